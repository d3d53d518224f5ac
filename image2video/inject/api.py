"""Injecting the fusions of a plan into a backbone, and taking them out again."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, NoReturn

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from image2video.errors import InputError, InputTypeError, StateError
from image2video.fusion.base import Fusion
from image2video.fusion.config import FusionConfig
from image2video.inject.checks import check_backbone, check_plan
from image2video.inject.clip_hook import ClipHook, FrameMaker, OnePlace, PlaceMaker
from image2video.inject.context import FrameContext
from image2video.inject.exit import ExitHook
from image2video.inject.hooks import (
    AfterHook,
    BeforeHook,
    BesideHook,
    EnterHook,
    Follower,
    LeaveHook,
    SiteHook,
    refuse_replica,
)
from image2video.inject.norms import check_norms, norms_behind
from image2video.inject.paths import Paths
from image2video.inject.plan import Plan, Site, some
from image2video.trace.capture import refuse_script
from image2video.trace.recompute import FrameState

_METHODS = frozenset({"frames", "tie", "check_fired", "no_weight_decay", "remove_", "replan_", "fuse"})
_REPLACED = frozenset({"_plan", "_removed"})
"""What an injection replaces in use: torch refuses that where a part of the same name stands."""
_HOOKS: dict[str, type[SiteHook]] = {"before": BeforeHook, "after": AfterHook, "beside": BesideHook}


def inject_(backbone: nn.Module, plan: Plan, *, residual: bool = True) -> Injection:
    """Hook the fusions of a plan into a backbone, in place.

    The backbone keeps its parameters, its state-dict keys and its structure; only forward hooks are added. The fusions
    are built on the device and in the dtype of the modules at their sites.

    Args:
        backbone: any module that takes frames `(B·T, …)`.
        plan: what `plan(backbone, …)` returned for it, or for a backbone built alike.
        residual: whether the fusions start as the identity (see `Fusion`).

    Returns:
        The module that holds the fusions and the switch.

    Raises:
        InputError: a plan made for other modules or other channel counts, or without a site; names that clash.
        StateError: a backbone that holds injected fusions already, or that is compiled.
        UnsupportedError: a scripted or DataParallel backbone.

    Where it raises, the backbone is as it was.

    Example:
        >>> from torch import nn
        >>> from image2video.fusion import TSMConfig
        >>> from image2video.inject.plan import Plan, Site
        >>> from image2video.trace.layout import NCHW
        >>> net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
        >>> site = Site("1", "before", 8, NCHW, "named", "", (1, 8, 14, 22))
        >>> injection = inject_(net, Plan(TSMConfig(), (site,), (3, 16, 24)))
        >>> with injection.frames(3):
        ...     net(torch.ones(6, 3, 16, 24)).shape
        torch.Size([6, 8, 12, 20])
        >>> injection.remove_()
    """
    check_backbone(backbone)
    check_plan(backbone, plan)
    _check_parts(plan)
    fusions = [_build(backbone, plan.fusion, site, residual) for site in plan.sites]
    return Injection(backbone, plan, fusions)


def _check_parts(plan: Plan) -> None:
    """Raise `InputError` where a site is in a part of the backbone whose name `Injection` needs for itself."""
    clashing = [name for name in plan.names if name.partition(".")[0] in _REPLACED]
    if clashing:
        raise InputError(
            f"the part {clashing[0].partition('.')[0]!r} of the backbone has the site of a fusion ({some(clashing)}), "
            "and the module that holds the fusions needs this name itself; rename the part, or name the other sites "
            "(sites=…)"
        )


def _build(backbone: nn.Module, config: FusionConfig, site: Site, residual: bool) -> Fusion:
    """Build the fusion of a site, on the device and in the dtype of the module there."""
    host = backbone.get_submodule(site.name)
    fusion = config.build(site, residual, host)
    # A module without parameters (an activation) takes those of the backbone.
    like = next((p for p in (*host.parameters(), *backbone.parameters()) if p.is_floating_point()), None)
    if like is not None:
        fusion.to(device=like.device, dtype=like.dtype)
    return fusion.train(backbone.training)


class Branch(nn.Module):
    """A level of the module path of a site; it holds fusions and further levels.

    It is no module to look for by name: its path ends as that of a module of the backbone does, and what replaces
    modules by their names (peft's `target_modules=["conv1"]`) would find it.
    """

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """Yield the modules within, without the levels themselves; the arguments are those of `nn.Module`."""
        memo = set() if memo is None else memo
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)


class Injection(nn.Module):
    """Holds the fusions that `inject_` hooked into a backbone, below the paths of their sites.

    The fusion at site `layer1.0.conv2` has its parameters at `layer1.0.conv2.gsf.…`. The backbone is no submodule of
    the injection: neither's state dict contains the other's.

    A deep copy or a pickle of a module that contains both keeps them together: the copy's backbone uses the copy's
    fusions. The hooks live as long as the injection: when it is dropped, the backbone is bare again.

    Forwards may run at once in several threads and asyncio tasks, each with its own T and batch, and one inside of
    another (`nn.DataParallel` is refused; DistributedDataParallel is fine). `torch.jit.script` does not know forward
    hooks and fails; use `torch.export` or `torch.compile`.

    Args:
        backbone: the module that is hooked.
        plan: the plan that is carried out; kept as the attribute `plan`.
        fusions: the module of each site, in the plan's order.

    A part of the backbone may be named as an attribute or a method of this class (`backbone`, `plan`, `frames`). Then
    the name is that of the level which holds the part's fusions: torch finds modules by their names. A hidden
    method is called as `Injection.frames(injection, T)`. The library itself uses names that begin with an underscore: a
    part named as one of those trains, but `get_submodule` and `torch.func` do not find its fusions' parameters.
    """

    def __init__(self, backbone: nn.Module, plan: Plan, fusions: list[Fusion]) -> None:
        super().__init__()
        self._plan = plan
        self._context = FrameContext()
        self._paths = Paths()
        # In lists, so that the backbone's modules do not become submodules of this one.
        self._root = [backbone]
        self._hooks = [
            _HOOKS[site.placement](site, fusion, self._context)
            for site, fusion in zip(plan.sites, fusions, strict=True)
        ]
        self._modules_at = [backbone.get_submodule(site.name) for site in plan.sites]
        self._removed = False
        self._handles: list[RemovableHandle] = []
        self._clip_hooks = [ClipHook(site, self._context, place) for place, site in enumerate(plan.clip_sites)]
        for clip_hook in self._clip_hooks:
            # Before the fusions': one at the same module gets the frames.
            self._handles.append(clip_hook.register(backbone.get_submodule(clip_hook.site.module)))
        self._handles += [hook.register(module) for hook, module in zip(self._hooks, self._modules_at, strict=True)]
        self._handles.append(
            backbone.register_forward_pre_hook(EnterHook(self._context, self._paths), with_kwargs=True)
        )
        fired = (*plan.names, *(clip_hook.fired for clip_hook in self._clip_hooks))
        self._exit = ExitHook(self._context, fired, fusions, self._paths)
        self._handles.append(backbone.register_forward_hook(self._exit))
        self._handles.append(backbone.register_forward_hook(LeaveHook(self._context), always_call=True))
        self._norms = norms_behind(backbone, plan.sites)
        self._own()
        # Last: torch refuses an attribute where a part of the same name stands.
        for hook in self._hooks:
            self._put(hook)
        for name in _METHODS & set(self._modules):  # these hide the methods
            self.__dict__[name] = self._modules[name]

    def __setstate__(self, state: dict[str, Any]) -> None:
        # An injection that version 0.1 has pickled kept them under their public names.
        state = {f"_{name}" if name in ("plan", "paths") else name: value for name, value in state.items()}
        super().__setstate__(state)
        if self._context.injection is None:  # a shallow copy has the context of the original
            self._own()

    @property
    def backbone(self) -> nn.Module:
        """The module that is hooked."""
        return self._modules.get("backbone") or self._backbone

    @property
    def plan(self) -> Plan:
        """The plan that is carried out."""
        return self._modules.get("plan") or self._plan  # type: ignore[return-value]

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._plan = plan

    @property
    def paths(self) -> Paths:
        """What looks at paths past the places of a clip."""
        return self._modules.get("paths") or self._paths  # type: ignore[return-value]

    @property
    def _backbone(self) -> nn.Module:
        """The module that is hooked, whatever its parts are named."""
        return self._root[0]

    def frames(
        self,
        T: int,
        *,
        enabled: bool = True,
        rows: int | None = None,
        size: tuple[int, int] | None = None,
        maker: FrameMaker | PlaceMaker | None = None,
        modes: Follower | None = None,
    ) -> FramesScope:
        """Open the scope in which the backbone may be called, with T frames per clip.

        Args:
            T: frames per clip, 1 or more; at 1 the backbone computes what it computes bare, bit for bit.
            enabled: False switches all fusion off, with the same effect.
            rows: B·T, where the backbone is entered by another door than its own call (`forward_features`); a call
                of the backbone itself is counted by its input.
            size: (height, width) of the images, where the backbone is entered by another door; the grid of tokens
                follows from it. A call of the backbone itself is measured by its input.
            maker: what makes the frames, where the plan has a clip site inside of the backbone: an `Image2Video`, or
                of several places what `DeepVideo.frames_of_call` returns. Where the clip begins inside of it, the
                backbone takes B images.
            modes: asked to `follow` before a fusion runs, where the backbone may change its mode within the scope.

        Returns:
            A context manager.

        Raises:
            InputError: T that is not a whole number of 1 or more; a plan with a clip site and no maker, or the reverse.
            StateError: after `remove_`, or where modules at sites have been replaced.
            UnsupportedError: under `nn.DataParallel`.
        """
        if isinstance(T, bool) or not isinstance(T, int) or T < 1:
            raise InputError(f"T must be a whole number of frames, 1 or more, got {T!r}")
        if T > 1 and (maker is None) != (len(self._plan.clip_sites) == 0):
            raise InputError(self._maker_wanted())
        makers = None if maker is None else self._makers(maker, T)
        self._check_usable()
        return FramesScope(self, FrameState(T, rows, enabled, size, makers, modes))

    def tie(self, outputs: Any) -> Any:
        """Make `outputs` depend on all fusion parameters where fusion is off and processes train together.

        DistributedDataParallel waits for a gradient of every parameter. A step at T = 1 or with fusion off has none for
        the fusions, and the next step would fail. The tie changes no value and gives no gradient (after the reduction
        it is zeros). Outputs pass as they are where fusion is on, without gradients, or without a process group. With
        gradient checkpointing, backward also learns here which forward made the outputs. The call of the backbone does
        this by itself; code that enters by another door has to call it.

        Args:
            outputs: what the backbone returned: tensors, also in tuples, lists and mappings.

        Returns:
            The outputs, in the same structure.

        Raises:
            StateError: outside of `frames`.
        """
        return self._exit.tie(outputs)

    def check_fired(self) -> None:
        """Raise unless the module of every site has run since this thread last entered the backbone.

        The call of the backbone does this by itself. Under compilation nothing is known, and nothing is checked.

        Raises:
            StateError: naming the sites whose module was not called.
        """
        self._exit.check_fired()

    def no_weight_decay(self) -> set[str]:
        """Name the fusion parameters that take no weight decay.

        Returns:
            Their names below this module.
        """
        return {f"{self._path(hook)}.{name}" for hook in self._hooks for name in hook.fusion.no_weight_decay()}

    def remove_(self) -> None:
        """Take all hooks out of the backbone, which then is as it came; the fusions stay here, unused.

        Raises:
            StateError: on the second call.
        """
        if self._removed:
            raise StateError("the fusions have been removed from their backbone already; call inject_ for new ones")
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._removed = True

    def replan_(self, plan: Plan) -> None:
        """Take the layouts of another plan of the same sites, as after a change of the backbone's input size.

        Args:
            plan: of the same fusion, sites and channels.

        Raises:
            InputError: a plan of other sites.
        """
        kept = [(site.name, site.placement, site.channels, site.index) for site in self._plan.sites]
        same_clip = _places(plan) == _places(self._plan)
        same_sites = kept == [(s.name, s.placement, s.channels, s.index) for s in plan.sites]
        if plan.fusion != self._plan.fusion or not same_sites or not same_clip:
            raise InputError(
                f"the plan must be for {self._plan.fusion} at the {len(kept)} sites that are injected, got "
                f"{plan.fusion} at {some(plan.names)}; remove the fusions and inject them by the new plan"
            )
        for hook, site in zip(self._hooks, plan.sites, strict=True):
            hook.site = site
        for clip_hook, clip_site in zip(self._clip_hooks, plan.clip_sites, strict=True):
            clip_hook.site = clip_site
        self._plan = plan

    _frames, _tie, _no_weight_decay, _remove_, _replan_ = frames, tie, no_weight_decay, remove_, replan_

    def fuse(self) -> nn.Module:
        """Refuse timm's `reparameterize_model`, which calls this before it would replace modules at sites.

        Returns:
            Nothing: it always raises.

        Raises:
            StateError: always.
        """
        raise StateError("fusions are injected: unwrap the backbone, reparameterise it, and wrap it again")

    def __prepare_scriptable__(self) -> NoReturn:
        refuse_script("a backbone with fusions")

    def _path(self, hook: SiteHook) -> str:
        """Name the place of a hook's fusion below this module."""
        return f"{hook.site.name}.{self._plan.fusion.name}"

    def _put(self, hook: SiteHook) -> None:
        """Make a hook's fusion a submodule, below the path of its site."""
        # Through _modules: a path may contain names of nn.Module's own methods, which attributes would hide.
        level: nn.Module = self
        for part in hook.site.name.split("."):
            level = level._modules.setdefault(part, Branch())  # type: ignore[assignment]
        level._modules[self._plan.fusion.name] = hook.fusion

    def _own(self) -> None:
        """Let the hooks know whose they are, and leave the backbone with this module."""
        self._context.injection = weakref.ref(self)
        self._paths.belong_to(self)
        # The handles refer to the backbone's hooks weakly, and to nothing of this module.
        weakref.finalize(self, _take_out, self._handles).atexit = False

    def _check_usable(self) -> None:
        """Raise unless backbone and fusions are as `inject_` left them."""
        if self._removed:
            raise StateError("the fusions have been removed from their backbone; call inject_ for new ones")
        refuse_replica(self)
        check_norms(self._norms)
        if torch.compiler.is_compiling():
            return
        places = zip(self._hooks, self._modules_at, strict=True)
        lost = [hook.site.name for hook, module in places if not self._is_in_place(hook, module)]
        for clip_hook in self._clip_hooks:
            host = _at(self._root[0], clip_hook.site.module)
            if host is None or clip_hook not in host._forward_pre_hooks.values():
                lost.append(clip_hook.site.name)
        if lost:
            raise StateError(
                f"{len(lost)} of {len(self._hooks) + len(self._clip_hooks)} sites are not in the backbone any more, or "
                f"lost their hook: {some(lost)}; something has replaced modules since the fusions were injected "
                "(reparameterize_model, folded batch norms, quantisation, adapters): do that first, then wrap"
            )

    def _maker_wanted(self) -> str:
        """Say that a maker of frames is missing, or that nothing would ask it."""
        if not self._plan.clip_sites:
            return "got a maker of frames, and the clip begins at the image; pass its frames, or plan with clip_at=…"
        names = ", ".join(repr(site.name) for site in self._plan.clip_sites)
        return (
            f"maps are moved at {names}, inside of the backbone, and nothing makes the frames there; pass "
            f"{self._maker_words()}, or plan without clip_at"
        )

    def _maker_words(self) -> str:
        """Name what makes the frames of the plan."""
        one = self._plan.clip_site is not None and len(self._plan.later_sites) == 0
        return "maker=Image2Video(…)" if one else "maker=DeepVideo(…).frames_of_call(T)"

    def _makers(self, maker: Any, T: int) -> PlaceMaker:
        """Return what makes the frames at every place; raise where it makes them for other places."""
        sites = self._plan.clip_sites
        one = self._plan.clip_site is not None and len(self._plan.later_sites) == 0
        if torch.compiler.is_compiling():  # a graph cannot ask for protocols
            return OnePlace(maker, T) if one else maker
        if one and isinstance(maker, FrameMaker):
            return OnePlace(maker, T)
        if not isinstance(maker, PlaceMaker):
            raise InputTypeError(
                f"maker must make frames at {len(sites)} places, got a {type(maker).__name__}; pass "
                f"{self._maker_words()}"
            )
        if len(maker.counts) != len(sites) + 1 or maker.counts[-1] != T:
            raise InputError(
                f"the maker makes {maker.counts[-1]} frames at {len(maker.counts) - 1} places inside of the backbone; "
                f"the plan has {len(sites)}, {', '.join(site.name for site in sites)}, and T = {T}; make it for these"
            )
        return maker

    def _is_in_place(self, hook: SiteHook, module: nn.Module) -> bool:
        """Whether a site's module is still in the backbone with its hook, and the hook's fusion still in here."""
        hooked = hook in module._forward_hooks.values() or hook in module._forward_pre_hooks.values()
        same_module = _at(self._root[0], hook.site.name) is module
        return hooked and same_module and _at(self, self._path(hook)) is hook.fusion


class FramesScope:
    """The scope that `Injection.frames` opens; it can be entered several times, in several threads too."""

    def __init__(self, injection: Injection, state: FrameState) -> None:
        self._injection = injection
        self._state = state

    def __enter__(self) -> None:
        self._injection._context.begin(self, self._state)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._injection._context.end(self)


def _places(plan: Plan) -> tuple[bool, list[tuple[str, int, int]]]:
    """Return what of the clip sites has to stay, whatever the size of the images."""
    return plan.clip_site is None, [(site.name, site.index, site.channels) for site in plan.clip_sites]


def _take_out(handles: list[RemovableHandle]) -> None:
    """Remove the hooks of an injection that is gone."""
    for handle in handles:
        handle.remove()


def _at(module: nn.Module, path: str) -> nn.Module | None:
    """Return the module at a path; None where there is none."""
    level: nn.Module | None = module
    for part in path.split("."):
        if level is None:
            return None
        level = level._modules.get(part)
    return level
