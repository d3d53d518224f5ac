"""Clips that change colours: geometric runs are resampled once each, photometric ops act between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from image2video.clip.any_clip import Clip
from image2video.clip.colours import Colours
from image2video.clip.frame_set import FrameSet
from image2video.clip.genotype import Genotype
from image2video.clip.ops.op import working_dtype
from image2video.clip.ops.registry import get_op
from image2video.clip.options import ClipOptions
from image2video.clip.sampling import in_order, matrix_device, stack_frames, warp, warp_frames
from image2video.clip.transform import Transform, mirrored_axes, run_matrices, split_runs
from image2video.errors import InputError

_Runs = Sequence[tuple[Transform, ...]]


def apply_chain(
    frames: Tensor,
    genotype: Genotype,
    steps: Sequence[float],
    options: ClipOptions,
) -> Tensor:
    """Move each of the frames `(S, N, C, H, W)` through the whole chain at its own power; same shape and dtype.

    Frame s is `frames[s]` after every transform of `genotype` at power `steps[s]`. A maximal run of geometric
    transforms is one resampling (one sampler call for all frames). Photometric transforms see colours in 0 … 1: the
    mean and std of the options undo the normalisation. Frames with a step of 0 come back bit for bit. Half precision is
    computed in float32, under autocast too.

    Differentiable in the frames, as the ops' gradients say. Raises `InputError` for another number of steps than
    frames, and for a chain with a photometric op where the options have no mean and std.
    """
    if frames.ndim != 5 or len(steps) != frames.shape[0]:
        raise InputError(
            f"{len(steps)} steps need frames (S, N, C, H, W) with S = {len(steps)}, got {tuple(frames.shape)}"
        )
    check_colours(genotype, options.colours)
    kept = [() if step == 0 else None for step in steps]
    if None not in kept or len(genotype.chain) == 0:
        return frames
    powers = [step for step in steps if step != 0]
    some_stay = len(powers) < len(steps)
    moving = torch.stack([frames[s] for s, step in enumerate(steps) if step != 0]) if some_stay else frames
    moved = _through(moving.to(working_dtype(frames)), split_runs(genotype.chain), powers, options).to(frames.dtype)
    return torch.stack(in_order(kept, frames.unbind(0), moved.unbind(0))) if some_stay else moved


def chain_clip(
    images: Tensor,
    genotype: Genotype,
    steps: Sequence[float],
    options: ClipOptions,
) -> Tensor:
    """Make the clip `(N, S, C, H, W)` of images `(N, C, H, W)`: `apply_chain` on S copies, without copying them.

    The dtype and the memory layout are those of the images.
    """
    check_colours(genotype, options.colours)
    return stack_frames(_chain_frames(images, genotype, steps, options), like=images)


def set_clip(images: Tensor, frame_set: FrameSet, steps: Sequence[float], options: ClipOptions) -> Tensor:
    """Make the clip `(N, S, C, H, W)` of images `(N, C, H, W)`, whose frames are those of the set with these numbers.

    Frames that change no colours are one sampler call together. Otherwise as `chain_clip`.
    """
    check_colours(frame_set, options.colours)
    chains = [frame_set.frame(step) for step in steps]
    plain = [step for step, chain in zip(steps, chains, strict=True) if chain.is_geometric]
    moved: Iterator[Tensor] = iter(())
    if plain:
        matrices = frame_set.step_matrices(plain, images.shape[-2], images.shape[-1], matrix_device(images))
        mirrored = [frame_set.mirrored(step) for step in plain]
        how = {"padding": options.padding, "interpolation": options.interpolation}
        moved = iter(warp(images, matrices, mirrored=mirrored, **how).unbind(1))
    frames = [next(moved) if c.is_geometric else _chain_frames(images, c, (1.0,), options)[0] for c in chains]
    return stack_frames(frames, like=images)


def _chain_frames(images: Tensor, genotype: Genotype, steps: Sequence[float], options: ClipOptions) -> list[Tensor]:
    """Make the frames `(N, C, H, W)` of images `(N, C, H, W)`; those that are the image are the same object."""
    kept = [() if step == 0 or not genotype.chain else None for step in steps]
    powers = [step for step, axes in zip(steps, kept, strict=True) if axes is None]
    moved: Iterable[Tensor] = ()
    if powers:
        source, runs = images.to(working_dtype(images)), split_runs(genotype.chain)
        if runs[0][0].geometric:
            # The first run makes all frames from the one image, which `warp` reads in place.
            matrices = run_matrices(runs[0], powers, images.shape[-2], images.shape[-1], matrix_device(images))
            mirrored = [mirrored_axes(runs[0], power) for power in powers]
            how = {"padding": options.padding, "interpolation": options.interpolation}
            clip = warp(source, matrices, mirrored=mirrored, **how)
            frames, runs = clip.transpose(0, 1), runs[1:]
        else:
            frames = source.expand(len(powers), *source.shape)
        moved = _through(frames, runs, powers, options).to(images.dtype).unbind(0)
    return in_order(kept, [images] * len(kept), moved)


def check_colours(clip: Clip, colours: Colours | None) -> None:
    """Raise `InputError` where a photometric op of the clip would not know how the images are normalised."""
    if colours is None:
        chains = clip.frames if isinstance(clip, FrameSet) else (clip,)
        op = next((t.op for chain in chains for t in chain.chain if not t.geometric), None)
        if op is not None:
            raise InputError(
                f"the genotype changes colours ({op}), which needs to know their range; say how the images are "
                "normalised: mean=…, std=… (those of the backbone's training; mean=0, std=1 for images in 0 … 1)"
            )


def _through(frames: Tensor, runs: _Runs, powers: Sequence[float], options: ClipOptions) -> Tensor:
    """Move frames `(S, N, C, H, W)` through the runs, at powers other than 0, in float32 or float64.

    Colours are undone before the first photometric transform and redone before the next resampling, not at each one.
    """
    colours = options.colours
    is_unit = False
    for run in runs:
        if run[0].geometric:
            if is_unit and colours is not None:
                frames, is_unit = colours.to_normalised(frames), False
            mirrored = [mirrored_axes(run, power) for power in powers]
            if None not in mirrored:
                frames = torch.stack(in_order(mirrored, frames.unbind(0), ()))
                continue
            matrices = run_matrices(run, powers, frames.shape[-2], frames.shape[-1], matrix_device(frames))
            frames = warp_frames(frames, matrices, padding=options.padding, interpolation=options.interpolation)
            continue
        assert colours is not None, "check_colours lets no photometric transform through without"
        if not is_unit:
            frames, is_unit = colours.to_unit(frames), True
        op, magnitude = get_op(run[0].op), run[0].magnitude
        moved = [op.apply(frame, magnitude, power) for frame, power in zip(frames.unbind(0), powers, strict=True)]
        frames = torch.stack(moved)
    return colours.to_normalised(frames) if is_unit and colours is not None else frames
