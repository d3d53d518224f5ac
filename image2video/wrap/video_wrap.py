"""`VideoWrap`: a backbone that sees each image as a short video, with the inputs and outputs of the bare backbone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from image2video.clip.any_clip import AnyClip, Clip
from image2video.clip.checks import check_frames, check_images, names_explained
from image2video.clip.colours import Values
from image2video.clip.deep_video import CallFrames, DeepVideo
from image2video.clip.frame_sources import FrameSource
from image2video.clip.genotype import DEFAULT_GENOTYPE
from image2video.clip.image_to_video import Image2Video, clip_to_frames
from image2video.clip.memory import check_frames_memory
from image2video.errors import StateError
from image2video.fusion.config import FusionConfig
from image2video.fusion.registry import resolve_fusion
from image2video.inject.api import FramesScope, inject_
from image2video.inject.checks import check_backbone
from image2video.inject.clip_hook import FrameMaker
from image2video.inject.door import Enter, entering
from image2video.inject.plan import Plan
from image2video.inject.recent import Recent, told_all
from image2video.protocols import Unwarper
from image2video.runs.weights import load_state
from image2video.trace.capture import refuse_symbols
from image2video.trace.sizes import nominal_size
from image2video.wrap import pretrained
from image2video.wrap.aggregate import Aggregation, OutputFormats, aggregate, check_aggregation
from image2video.wrap.builders import Builder
from image2video.wrap.checkpoint import adapt_state_dict
from image2video.wrap.clip_record import CLIP
from image2video.wrap.clip_state import ClipState
from image2video.wrap.hosts import host_of
from image2video.wrap.inside import (
    Given,
    Seen,
    check_begin,
    check_cells,
    check_channels,
    check_several,
    map_shape,
    named_as,
)
from image2video.wrap.intermediates import MAPS, aggregated, check_format, check_mapping, plan_of_size
from image2video.wrap.keywords import image_name, read_call, refuse_second
from image2video.wrap.late_layouts import Late, late_layouts
from image2video.wrap.methods import (
    Method,
    aggregation_of,
    first_channels,
    is_method_of,
    method_formats,
    prefix_tokens,
    seeing,
)
from image2video.wrap.modes import Modes
from image2video.wrap.own_loss import Parts, with_own_loss
from image2video.wrap.passed import Passed, passed_outputs, passed_places, rows_of_frames
from image2video.wrap.phases import phases
from image2video.wrap.steps import (
    CallWords,
    Sites,
    batch_norms,
    clip_maker,
    formats_of,
    found_at,
    make_clip,
    output_formats,
    plan_for,
    planned_formats,
    wanted_clip,
)
from image2video.wrap.timm_like import TimmLike
from image2video.wrap.ways import LateWays, way_back, way_behind, ways_between


class VideoWrap(ClipState, TimmLike):
    """Wrap a backbone: image → clip → frames → backbone with fusions at its sites → aggregate over T.

    Takes images `(B, C, H, W)`, floating point and normalised, and returns what the bare backbone returns for B
    images. The backbone is changed in place by forward hooks alone: its modules, keys and values stay, and `unwrap()`
    gives it back. All checks come before the first change. (Casarin et al., CVPR 2024, section 3.)

    Args:
        backbone: any module that takes images; the wrapper takes its training mode.
        fusion: how frames mix; a name from `fusion_names()` (`"none"`: never), or a config such as
            `GSFConfig(ratio=0.25)`.
        genotype: a `Genotype` or `FrameSet`, its text, the path of a .json file or `"preset:NAME"`. With the defaults
            (ours) the frames are the image and the image moved by 3 % either way, which costs a trained network no
            accuracy. Of a clip that moves at several places (ours) a `DeepClip`, its text or file, or a dict from
            places to clips, `{"image": "translate_x(0.03)", "layer3": "rotate(10)"}`: it begins at the first place;
            `"preset:phases"` is that of this backbone (see `phases`).
        T: frames per image, 1 or more; `set_frames` and `model(images, T=…)` change it. None: as the genotype was
            found with, else 3; all frames of a frame set.
        schedule: as in `Image2Video`; likewise, else `centred`. A frame set has no schedule but `from_zero`.
        aggregate: how outputs become those of images; see `image2video.wrap.aggregate.aggregate`.
        residual: start as the average of the bare model over the frames (ours, for trained backbones); False uses the
            fusions as published, for training from scratch.
        sites: where fusions act: a regular expression (fullmatch on module names), a list of names, a predicate on a
            `Site`, or a `Plan` made before; None for all that the rule finds.
        input_size: `(C, H, W)` for the trace that finds the sites, where the backbone's config does not tell.
        freeze_bn: keep the backbone's batch norms in eval mode in training too, since a batch of B·T frames is
            correlated: their running statistics do not move, their weights and biases still learn. The fusions' own
            norms train.
        padding: as in `Image2Video`; likewise, else `reflection`.
        interpolation: as in `Image2Video`; likewise.
        example_input: an input for the trace, `(B, C, H, W)`, in place of `input_size`.
        mean: of the images' normalisation, for photometric ops; by default as the backbone's `pretrained_cfg` says.
        std: likewise.
        frames: a `FrameSource` that draws clips, such as `RandomClips`; it takes the place of the genotype and of all
            options of the clip.
        clip_at: the module at whose input the clip begins, such as `"layer3"` (ours): up to there the backbone sees
            every image once, and what comes in there is warped as the image would be. `clip_sites(backbone)` lists
            all such places, `"image"` is the image. None: where the genotype says, or as it was found with, else at
            the image.

    Raises:
        InputError: an unknown option, one that a frame set cannot have, `sites` that match nothing, no known input
            size, no mean and std where needed, a T whose clip of one image is larger than the machine's memory; a
            `clip_at` where no clip can begin, with colours, with `frames`, or with T = 1; places of a genotype that
            the backbone does not have or does not pass in this order, beside `clip_at`, or with T = 1; more cells than
            the map at a place has.
        StateError: a backbone that is wrapped or compiled already.

    >>> import torch
    >>> from torch import nn
    >>> backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> VideoWrap(backbone, fusion="none", T=3)(torch.zeros(2, 3, 16, 24)).shape
    torch.Size([2, 8])
    """

    @names_explained
    def __init__(
        self,
        backbone: nn.Module,
        fusion: str | FusionConfig = "gsf",
        *,
        genotype: AnyClip | str | os.PathLike[str] | Mapping[str, Clip | str] = DEFAULT_GENOTYPE,
        T: int | None = None,
        schedule: str | None = None,
        aggregate: Aggregation = "auto",
        residual: bool = True,
        sites: Sites = None,
        input_size: tuple[int, int, int] | None = None,
        freeze_bn: bool = False,
        padding: str | None = None,
        interpolation: str | None = None,
        example_input: Tensor | None = None,
        mean: Values = None,
        std: Values = None,
        frames: FrameSource | None = None,
        clip_at: str | None = None,
    ) -> None:
        super().__init__()
        # All checks come before `inject_`, the first change of the backbone.
        check_backbone(backbone)
        check_aggregation(aggregate)
        host = host_of(backbone)
        if host is not None:
            host.check(backbone, aggregate)
        config = resolve_fusion(fusion)
        own = partial(phases, backbone, input_size=input_size, example_input=example_input)
        if isinstance(sites, Plan):
            own = partial(phases, backbone, input_size=sites.input_size)
        clip, places = wanted_clip(genotype, clip_at, own)
        how = {"T": T, "schedule": schedule, "padding": padding, "interpolation": interpolation}
        to_video = clip_maker(backbone, frames, clip, **how, mean=mean, std=std)
        the_plan = plan_for(backbone, config, sites, input_size, example_input, places, found=found_at(clip))
        self.to_video = named_as(to_video, the_plan)
        if the_plan.clip_site is None:
            nominal = nominal_size(backbone) if input_size is None else input_size
        else:
            if not the_plan.later_sites:
                check_begin(self.to_video, the_plan.clip_site.name)
            nominal = map_shape(the_plan.clip_site)
        check_cells(self.to_video, the_plan)
        check_frames_memory(self.to_video.T, nominal)
        # Before the backbone: timm's reparameterize_model goes through the children and meets the fusions' refusal.
        self.fusion = inject_(backbone, the_plan, residual=residual)
        self.backbone = backbone
        self.aggregate = aggregate
        self.residual = bool(residual)
        self.freeze_bn = bool(freeze_bn)
        self.builder: Builder | None = None
        self._image_name = image_name(backbone)
        self._unwrapped = False
        self._late: Recent[tuple[bool, str], Late] = Recent()
        self._passed: Recent[tuple[bool, tuple[int, int], str], dict[str, Passed]] = Recent()
        self._late_ways = LateWays()
        self._seen = Seen()
        self._of_plan: tuple[Plan, OutputFormats] | None = None
        self.fusion.train(backbone.training)
        self.to_video.train(backbone.training)
        self.training = backbone.training
        self._freeze_norms()
        self.register_load_state_dict_pre_hook(adapt_state_dict)

    def forward(
        self,
        images: Tensor | None = None,
        T: int | None = None,
        # Not behind a `*`: the TorchScript exporter of ONNX gives every default by position.
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        **flags: Any,
    ) -> Any:
        """See each image as T frames, and return what the bare backbone returns for B images.

        `InputTypeError` refuses images that are not floating point, `InputError` other shapes and channels,
        `UnsupportedError` other keywords that hold tensors, and labels for a backbone that has no loss of its own.

        Args:
            images: `(B, C, H, W)`, normalised; by keyword also under the name that the backbone has for them.
            T: frames per image; by default `self.T`.
            pixel_values: the images, under the name that Hugging Face's networks and Trainer have for them.
            labels: of the images, for a backbone that computes its loss itself: it does so from its aggregated scores.
            **flags: other keywords go to the backbone.

        Returns:
            The backbone's outputs, aggregated over T.
        """
        self._check_use()
        given_words = {"images": images, "pixel_values": pixel_values, "labels": labels}
        for value in given_words.values():
            refuse_symbols(value, "a model that makes clips")
        call = read_call(self.backbone, given_words, flags, self._image_name)
        # Keywords may ask for outputs between the places.
        given = self._given(call.images, T, share=not (call.flags or call.loss))
        parts = Parts(self.backbone) if call.loss else None
        with self._scope(given), CallWords(self.backbone, self.fusion, given.inputs), parts or nullcontext():
            outputs = self.backbone(given.inputs, **call.flags)
        of_images = partial(self._aggregate, given=given, frames=given.inputs, flags=call.flags)
        if parts is None:  # torch 2.11 compiles no isinstance of a nullcontext
            return of_images(outputs)
        return with_own_loss(self.backbone, parts.calls, outputs, call, of_images)

    def forward_features(self, images: Tensor, T: int | None = None) -> Any:
        """Return the features of every frame; `forward_head` aggregates them.

        Where the clip begins inside of the head, they are those of the images.

        Args:
            images: `(B, C, H, W)`, normalised.
            T: frames per image; by default `self.T`.

        Returns:
            What the backbone's `forward_features` returns for the frames, `(B·T, …)`.
        """
        method = self._method("forward_features")
        given = self._given(images, T)
        self._check_paths(given, "forward_features")
        with self._scope(given, by_door=True), CallWords(self.backbone, self.fusion, given.inputs):
            return self.fusion._tie(method(given.inputs))

    def forward_head(
        self,
        features: Any,
        pre_logits: bool = False,
        *,
        T: int | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> Any:
        """Apply the backbone's head: `forward(x)` equals `forward_head(forward_features(x))`.

        Args:
            features: of the frames, `(B·T, …)`.
            pre_logits: return what stands before the classifier.
            T: the T of `forward_features`; by default `self.T`.
            image_size: (height, width), by default that of the plan; it matters where the head returns maps, which are
                unwarped, or fuses tokens, whose grid follows from it.

        Returns:
            The outputs of B images.
        """
        self._check_use()
        method = self._method("forward_head")
        T = self.T if T is None else T
        inside = self.plan.clip_site is not None
        # A clip that begins inside of the head gets the features of images: their rows are not those of the outputs.
        rows = features.shape[0] if isinstance(features, Tensor) and not inside else None
        size = self.plan.input_size[1:] if image_size is None else image_size
        given = Given(features, T, rows, (size[0], size[1]), self._way_back(size), self._maker(T))
        if isinstance(features, Tensor):  # the way through a head is the end of that through the backbone
            like = features.new_empty(1, *self.plan.input_size[:1], *size)
            self._check_paths(given._replace(inputs=like), "__call__")
        with self.fusion._frames(T, rows=rows, size=given.size, maker=given.maker):
            outputs = method(features, pre_logits=True) if pre_logits else method(features)
            outputs = self.fusion._tie(outputs)
        return self._aggregate(outputs, given)

    def forward_intermediates(
        self,
        images: Tensor,
        indices: int | list[int] | None = None,
        *,
        T: int | None = None,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        **options: Any,
    ) -> Any:
        """Return intermediate features of B images as timm's method does, each aggregated over T.

        Features are no scores: where `aggregate` is `"mean_prob"`, they are aggregated as by `"auto"`.

        Args:
            images: `(B, C, H, W)`, normalised.
            indices: which blocks; as in the backbone's own method.
            T: frames per image; by default `self.T`.
            output_fmt: `"NCHW"`, `"NHWC"` or `"NLC"` for the intermediates.
            intermediates_only: leave the final features out.
            **options: further arguments of the backbone's own method (`norm`, `stop_early`, …).

        Returns:
            The intermediates, or `(final features, intermediates)`.

        Raises:
            InputError: an unknown `output_fmt`.
        """
        check_format(output_fmt)
        method = self._method("forward_intermediates")
        given = self._given(images, T)
        options = {**options, "indices": indices, "output_fmt": "NCHW", "intermediates_only": intermediates_only}
        how = "auto" if self.aggregate == "mean_prob" else self.aggregate
        self._check_paths(given, "forward_intermediates", options)
        with self._scope(given, by_door=True), CallWords(self.backbone, self.fusion, given.inputs):
            found = method(given.inputs, **options)
        if isinstance(found, Mapping):
            check_mapping(self.plan, output_fmt)
            return aggregate(
                found, given.T, how, to_video=given.unwarper, image_size=given.size, formats=MAPS, rows=given.rows
            )

        passed: dict[str, Passed] = {}
        if self.plan.clip_site is not None or (self.plan.later_sites and how in ("auto", "unwarp")):
            passed = self._passed_by(given, options)

        def of_images(outputs: Any, formats: OutputFormats, path: str) -> Any:
            way = given.unwarper
            if self.plan.clip_site is not None:
                if passed[path].places == 0:
                    return outputs  # from before the clip
                outputs = rows_of_frames(outputs, given, passed[path], f"out{path} of forward_intermediates")
            if self.plan.later_sites and path in passed:
                way = way_behind(self.to_video, self.plan.clip_sites, given.size, passed[path].places)
            return aggregate(
                outputs,
                given.T,
                how,
                to_video=way,
                image_size=given.size,
                formats=formats,
                rows=given.rows,
            )

        return aggregated(found, of_images, self.backbone, self.plan, output_fmt, intermediates_only)

    def set_input_size(self, img_size: int | tuple[int, int] | None = None, **options: Any) -> None:
        """Prepare the backbone for images of another size, as timm's method does, and plan its sites for that size.

        Nothing is changed where the backbone has no such size, or where its sites would not be the same.

        Args:
            img_size: height and width, or one number for both; None keeps the size.
            **options: further arguments of the backbone's own method (`patch_size`, `window_size`, …).
        """
        self._check_use()
        method = self._method("set_input_size")
        new = plan_of_size(self, img_size, options)
        method(img_size=img_size, **options)
        self.fusion._replan_(new)
        self._passed.clear()
        self.fusion._paths.clear()
        if self.builder is not None:
            given = {"img_size": list(new.input_size[1:]), **options}
            self.builder = self.builder.with_kwargs(**given)

    @property
    def T(self) -> int:  # noqa: N802 (the field's name for the number of frames)
        """Frames per image; read-only, since an attribute set on a DDP shell would do nothing: use `set_frames`."""
        return self.to_video.T

    @T.setter
    def T(self, value: Any) -> None:  # noqa: N802
        raise AttributeError(f"T is read-only; use model.set_frames({value}), or model(images, T={value}) for one call")

    def set_frames(self, T: int) -> None:
        """See every image as T frames from now on; parameters do not depend on T.

        Under `torch.compile` every value of T compiles once; from the ninth on torch runs it eagerly, with a log line.

        Args:
            T: 1 or more, of a clip inside of the backbone 2; of a frame set at most the frames that it lists.
        """
        self._check_inside(check_frames(T))
        site = self.plan.clip_site
        check_frames_memory(T, self.plan.input_size if site is None else map_shape(site))
        self.to_video.set_frames(T)
        self._follows -= {"T"}  # a checkpoint loaded later does not undo it

    @property
    def genotype(self) -> AnyClip | None:
        """The chain, frame set or deep clip that makes the frames (where they are drawn, in evaluation), or None."""
        return self.to_video.genotype

    @property
    def plan(self) -> Plan:
        """The frozen plan: every site, its layout and channels, and the rule that chose it."""
        return self.fusion._plan

    def cost(self, T: int | None = None) -> float:
        """Tell what a call in evaluation costs, in multiply-accumulates at the planned size.

        Frames that are the same up to a place of a deep clip count once until there, where no fusion stands between.

        Args:
            T: frames per image; by default `self.T`.

        Returns:
            The cost as a multiple of the bare backbone's on the images.

        Raises:
            InputError: a T below 1, or one that a clip at several places cannot have.
        """
        T = self.T if T is None else check_frames(T)
        if not isinstance(self.to_video, DeepVideo):
            return self.plan.cost(T)
        return self.plan.cost(T, self.to_video.frames_of_call(T, shared=self.plan.shared).counts)

    @property
    def clip_at(self) -> str | None:
        """The module at whose input the clip begins; None where it begins at the image.

        It is None too of a clip at several places, which its genotype names.
        """
        return None if self.plan.clip_site is None or self.plan.later_sites else self.plan.clip_site.name

    def train(self, mode: bool = True) -> VideoWrap:
        """Set the training mode; with `freeze_bn`, the backbone's batch norms stay in eval mode.

        Args:
            mode: True for training, False for evaluation.

        Returns:
            This module.
        """
        super().train(mode)
        self._freeze_norms()
        return self

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, **kwargs: Any) -> None:
        """Replace the backbone's classifier by a fresh one.

        Args:
            num_classes: its number of classes; 0 for none.
            global_pool: another pooling; None keeps it.
            **kwargs: further arguments of the backbone's own method.
        """
        super().reset_classifier(num_classes, global_pool, **kwargs)
        self._late.clear()
        self._passed.clear()
        self._late_ways.clear()
        self.fusion._paths.clear()
        if self.builder is not None:
            pool = {} if global_pool is None else {"global_pool": global_pool}
            self.builder = self.builder.with_kwargs(num_classes=num_classes, **pool)

    def unwrap(self) -> nn.Module:
        """Take the fusions out of the backbone; this wrapper then refuses use.

        Returns:
            The backbone object, without hooks. Values that training changed stay changed; untrained, it is bit for bit
            as it came.
        """
        self._check_use()
        backbone = self.backbone
        self.fusion._remove_()
        if self.freeze_bn:
            for norm in batch_norms(backbone):
                norm.train(backbone.training)
        del self._modules["backbone"]
        self._unwrapped = True
        return backbone

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write `model.safetensors` and `config.json`, each whole or not at all; see `from_pretrained`.

        `InputTypeError` refuses a callable as `aggregate`, which JSON cannot hold.

        Args:
            directory: the folder, which is made if needed.
        """
        pretrained.write(directory, self._config(), self.state_dict())

    def save_config(self, directory: str | os.PathLike[str]) -> None:
        """Write `config.json` alone, beside weights that a trainer wrote as `model.safetensors`.

        `InputTypeError` refuses a callable as `aggregate`, which JSON cannot hold.

        Args:
            directory: the folder, which is made if needed.
        """
        pretrained.write_config(directory, self._config())

    @classmethod
    def from_pretrained(
        cls,
        path: str | os.PathLike[str],
        backbone: nn.Module | None = None,
        *,
        revision: str | None = None,
        allow_download: bool = False,
    ) -> VideoWrap:
        """Load the wrapper that `save_pretrained` wrote.

        `MissingError` says that files or the builder are missing. `InputError` refuses a config that is not ours,
        weights that do not fit or hold NaN, and a backbone in which the rule finds other sites than were saved; it
        lists both.

        Args:
            path: a local folder, or the id of a Hugging Face Hub repository, of which the two files are downloaded.
            backbone: the bare backbone, built as it was; by default the builder makes it that the config names and that
                integrations record (`timm:resnet50` with its arguments).
            revision: a branch, tag or commit of the repository; a local folder has none.
            allow_download: let the config name places: a builder that fetches weights, paths, links out of the folder.
                Without it nothing but the two files is read, and a local folder needs no network.

        Returns:
            The wrapper, in eval mode.
        """
        saved = pretrained.read(path, backbone, revision, allow_download=allow_download)
        model = cls(saved.backbone, **saved.arguments)
        model.builder = saved.builder
        # The config counts; where the weights say another clip, loading warns.
        load_state(model, {CLIP: model.get_extra_state(), **saved.state}, saved.source)
        return model.eval()

    def extra_repr(self) -> str:
        """Show the options in `print(model)`.

        Returns:
            The fusion and the options of the wrapper.
        """
        fusion = f"{self.plan.fusion} at {len(self.plan.sites)} sites"
        place = f"clip_at={', '.join(self.plan.places)}, " if self.plan.clip_sites else ""
        options = f"aggregate={self.aggregate}, residual={self.residual}, freeze_bn={self.freeze_bn}"
        return f"fusion={fusion}, {place}{options}"

    def _config(self) -> dict[str, Any]:
        """Return everything that loading needs beside the weights."""
        self._check_use()
        options = {"aggregate": self.aggregate, "residual": self.residual, "freeze_bn": self.freeze_bn}
        host = host_of(self.backbone)
        builder = host.builder(self.backbone) if self.builder is None and host is not None else self.builder
        return pretrained.config_of(self.to_video, self.plan, builder, **options)

    def _given(self, images: Tensor, T: int | None, *, share: bool = False) -> Given:
        """Return what the backbone gets for images: their frames, or themselves where the clip begins inside of it."""
        self._check_use()
        refuse_second(self.backbone, T)
        T = self.T if T is None else T  # read once: another thread may call set_frames
        if len(self.plan.clip_sites) == 0:
            clip, unwarper = make_clip(self.to_video, images, T)
            inputs = clip_to_frames(clip)
            given = Given(inputs, T, inputs.shape[0], (images.shape[-2], images.shape[-1]), unwarper)
        else:
            check_images(images)
            self._check_inside(check_frames(T))
            size = (images.shape[-2], images.shape[-1])
            maker = self._maker(T, share=share)
            inputs = maker.image_frames(images) if isinstance(maker, CallFrames) and maker.begins_at_image else images
            self._seen.look(self.to_video, self.plan.clip_sites, size, T)
            given = Given(inputs, T, images.shape[0] * T, size, self._way_back(size), maker)
        check_channels(images, self.plan.input_size[0])
        return given

    def _scope(self, given: Given, *, by_door: bool = False, modes: Modes | None = None) -> FramesScope:
        """Open the scope of a call of the backbone; `by_door` where another method than its call is entered."""
        rows, size = (given.rows, given.size) if by_door else (None, None)
        return self.fusion._frames(given.T, rows=rows, size=size, maker=given.maker, modes=modes)

    def _maker(self, T: int, *, share: bool = False) -> FrameMaker | CallFrames | None:
        """Return what makes T frames inside of the backbone; None where maps are moved nowhere.

        With `share`, frames that are the same up to a place are one row until there, in evaluation: in training, norms
        would weigh them otherwise.
        """
        if isinstance(self.to_video, DeepVideo):
            shared = self.plan.shared if share and not (self.training or self.backbone.training) else 0
            return self.to_video.frames_of_call(T, shared=shared)
        if self.plan.clip_site is None or T == 1:
            return None
        assert isinstance(self.to_video, Image2Video), "a source of frames is refused with clip_at"
        return self.to_video

    def _way_back(self, size: Sequence[int]) -> Unwarper:
        """Return what brings maps of the frames back to images of this (height, width)."""
        return way_back(self.to_video, self.plan.clip_sites, (size[0], size[1]))

    def _check_inside(self, T: int) -> None:
        """Raise `InputError` for one frame, where the clip begins inside of the backbone."""
        if self.plan.clip_site is not None:
            check_several(T, self.plan.clip_site.name)

    def _check_paths(self, given: Given, method: str, options: Mapping[str, Any] | None = None) -> None:
        """Raise `InputError` where something leads past a place on the way of a method; a call finds out by itself."""
        if self.plan.clip_sites and given.T > 1:
            self.fusion._paths.check(self.backbone, given.inputs, method=method, options=options)

    def _passed_by(self, given: Given, options: Mapping[str, Any]) -> dict[str, Passed]:
        """Tell which places the intermediates have passed; traced once for each mode, size and set of options."""
        key = (self.backbone.training, given.size, told_all(options.items()))
        if key not in self._passed:
            enter = entering(options, "forward_intermediates")
            self._passed[key] = passed_outputs(self.backbone, self.fusion, given.inputs, enter)
        return self._passed[key]

    def _aggregate(
        self, outputs: Any, given: Given, frames: Tensor | None = None, flags: Mapping[str, Any] | None = None
    ) -> Any:
        """Aggregate the outputs of the frames of images over T.

        `frames` are traced, with the keywords of the call, where the plan does not know an output.
        """
        plan = self.plan
        ways = ways_between(self.to_video, plan, given.size)
        if plan.later_sites and frames is not None and self.aggregate in ("auto", "unwarp", "mean_prob"):
            ways |= self._late_ways.of(self.backbone, self.fusion, self.to_video, given, outputs, flags or {})
        later = None if frames is None else partial(self._late_formats_of_call, frames, flags or {})
        return aggregate(
            outputs,
            given.T,
            self.aggregate,
            to_video=given.unwarper,
            image_size=given.size,
            formats=output_formats(self.backbone, plan, later=later, planned=self._planned(plan)),
            rows=given.rows,
            ways=ways,
        )

    def _planned(self, plan: Plan) -> OutputFormats:
        """Return what the plan tells of outputs, remembered from call to call."""
        if torch.compiler.is_compiling():
            return planned_formats(plan)
        kept = self.__dict__.get("_of_plan")  # a wrapper that was pickled by an earlier version has none
        if kept is None or kept[0] is not plan:
            kept = self.__dict__["_of_plan"] = plan, planned_formats(plan)
        return kept[1]

    def _late_formats_of_call(self, frames: Tensor, flags: Mapping[str, Any]) -> OutputFormats:
        """Trace the outputs of a call with these keywords that the plan does not know."""
        return self._late_formats(frames, entering(flags), told_all(flags.items()))

    def _late_formats(self, frames: Tensor, enter: Enter, call: str) -> OutputFormats:
        """Trace the outputs that the plan does not know, once for each training mode and each kind of call."""
        key = (self.backbone.training, call)
        if key not in self._late:
            self._late[key] = late_layouts(self.backbone, self.fusion, frames, enter)
        late = self._late[key]
        return dataclasses.replace(formats_of(late.outputs), before=late.before)

    def _see(self, method: Method, images: Tensor, enter: Enter) -> Any:
        """Return what a method of the backbone returns for images, each seen as its clip (see `methods`)."""
        how = aggregation_of(self.aggregate, method.name)
        given = self._given(images, None)
        if self.plan.clip_sites and given.T > 1:
            self.fusion._paths.check(
                self.backbone, given.inputs, method=method.name, enter=enter, arguments=method.arguments
            )
        drawn = isinstance(self.to_video, FrameSource) and self.to_video.training
        modes = None if torch.compiler.is_compiling() else Modes(self.backbone, self.fusion)
        try:
            scope = self._scope(given, by_door=True, modes=modes)
            with scope, CallWords(self.backbone, self.fusion, given.inputs):
                outputs = self.fusion._tie(enter(self.backbone, given.inputs))
        finally:
            if modes is not None:
                modes.close()
                if self.backbone.training != modes.entry:
                    # The method leaves its network in another mode: all of the wrapper goes with it.
                    self.train(self.backbone.training)
        if modes is not None and modes.changed and drawn:
            return self._see_evaluated(method, images, enter)
        ways: dict[str, Unwarper] = {}
        if self.plan.later_sites and how in ("auto", "unwarp"):
            passed = passed_places(self.backbone, self.fusion, given.inputs, enter)
            ways = {path: way_behind(self.to_video, self.plan.clip_sites, given.size, n) for path, n in passed.items()}
        formats = method_formats(
            output_formats(self.backbone, self.plan),
            partial(self._late_formats, given.inputs, enter, method.key),
            prefix_tokens(self.backbone),
        )
        return aggregate(
            outputs,
            given.T,
            how,
            to_video=given.unwarper,
            image_size=given.size,
            formats=formats,
            rows=given.rows,
            ways=ways,
        )

    def _see_evaluated(self, method: Method, images: Tensor, enter: Enter) -> Any:
        """See images again with the frames of evaluation: those of training were drawn before a method ended it."""
        mode = self.to_video.training
        self.to_video.eval()
        try:
            return self._see(method, images, enter)
        finally:
            self.to_video.train(mode)

    def _of_backbone(self, name: str, value: Any) -> Any:
        """Return a method of the backbone so that it sees a clip of every image; other values as they are."""
        if not is_method_of(self.backbone, value):
            return value
        return seeing(value, self.plan.input_size[0] or first_channels(self.backbone), self._see)

    def _freeze_norms(self) -> None:
        """Put the backbone's batch norms into eval mode, where `freeze_bn` asks for it."""
        if self.freeze_bn and not self._unwrapped:
            for norm in batch_norms(self.backbone):
                norm.eval()

    def _check_use(self) -> None:
        """Raise `StateError` after `unwrap`."""
        if self._unwrapped:
            raise StateError("this VideoWrap was unwrapped and has no backbone; wrap the backbone again")
