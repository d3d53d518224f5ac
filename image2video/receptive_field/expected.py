"""What theory expects of a video network's field: the bare network's, mapped back from every frame, and added up."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from image2video.clip.any_clip import Clip, as_clip, steps_of
from image2video.clip.matrices import inverse_affine
from image2video.clip.sampling import warp
from image2video.errors import InputError
from image2video.receptive_field.effective import EffectiveField
from image2video.receptive_field.measures import Measures, measures

Shares = Sequence[float] | Sequence[Sequence[float]] | Tensor


def expected(bare: EffectiveField, genotype: Clip | str, schedule: str, shares: Shares) -> tuple[Tensor, Measures]:
    """The map `(H, W)` that sums to 1, and its measures, where the frames have these shares of a unit's gradient.

    Every frame is taken to be seen as the bare network sees the image (`bare`), which is what a fusion by shifts comes
    to. Ours: Casarin et al., CVPR 2024, Fig. 4, with shares in place of a union.

    Args:
        bare: the field of the same unit of the bare network.
        genotype: of the clip; a frame set too.
        schedule: of the clip; of a frame set `from_zero`.
        shares: `(T,)` for a unit of one frame, or a class logit: it looks at one place of all frames, which their warps
            take to different places of the image. `(T, T)` for averaged, unwarped maps: entry (t, u) is what comes from
            frame u by way of the features of frame t, which were brought back by the warp of frame t: without fusion
            (a diagonal) shifts cancel, and only turns and zooms are left. `averaged_shares` makes it.

    Raises:
        InputError: shares of another shape, negative or all 0, or a frame with a share that sees nothing of the image
            in this place.
    """
    weights = _checked(shares)
    T = weights.shape[-1]
    height, width = bare.size
    clip = as_clip(genotype)
    ahead = clip.step_matrices(steps_of(clip, schedule, T), height, width).double()
    back = inverse_affine(ahead)
    if weights.ndim == 2:
        # Maps of frame t were brought back by its own warp: what counts is the place that frame u shows there.
        y, x = bare.measures.centre
        place = torch.tensor([x - width / 2, y - height / 2, 1.0], dtype=torch.float64)
        seen = torch.einsum("uij,tjk,k->tui", back, ahead, place)[..., :2]  # where frame u has what frame t has at it
        pairs = back.expand(T, T, 3, 3).clone()
        pairs[..., :2, 2] = seen - pairs[..., :2, :2] @ place[:2]
        back, weights = pairs.flatten(0, 1), weights.flatten()
    used = weights > 0
    # Each frame's field is scaled to its share, so that one that is cut by the border does not lose weight.
    maps = warp(bare.map[None, None].double(), back[used], padding="zeros", interpolation="bilinear")[0, :, 0]
    sums = maps.sum((1, 2))
    if bool((sums <= 0).any()):
        lost = int(used.nonzero().flatten()[sums <= 0][0]) % T
        raise InputError(
            f"the field lies outside the image in frame {lost}, which has a share of it; take another place, smaller "
            "steps or fewer frames"
        )
    total = (maps * (weights[used] / weights.sum() / sums)[:, None, None]).sum(0)
    return total, measures(total)


def averaged_shares(shares: Sequence[float], frame: int) -> Tensor:
    """The shares `(T, T)` of averaged maps, from those of the features of one frame.

    A frame at a distance from another is taken to have, in its features, the share that it has at the same distance
    from `frame`; every frame's features count alike. Distances that do not occur around `frame` count 0.

    >>> averaged_shares((0.5, 0.5, 0.0), 0)[1].tolist()
    [0.1111111111111111, 0.1111111111111111, 0.1111111111111111]
    """
    T = len(shares)
    kernel = []
    for distance in range(T):
        found = [share for other, share in enumerate(shares) if abs(other - frame) == distance]  # one or two, or none
        kernel.append(sum(found) / len(found) if found else 0.0)
    rows = torch.tensor([[kernel[abs(t - u)] for u in range(T)] for t in range(T)], dtype=torch.float64)
    return rows / rows.sum(1, keepdim=True) / T


def shares_of(field: EffectiveField, others: Sequence[EffectiveField]) -> Shares | None:
    """The shares that `expected` takes for a field; None for a network without frames.

    Those of averaged maps come from the features of one frame of the same network, which are among the `others`; where
    they are not, the frames are taken not to mix.
    """
    if field.frame_shares is None or field.unit.frame is not None or not isinstance(field.unit.position, tuple):
        return field.frame_shares
    for other in others:
        if other.unit.frame is not None and other.frame_shares is not None:
            return averaged_shares(other.frame_shares, other.unit.frame)
    return torch.diag(torch.tensor(field.frame_shares, dtype=torch.float64))


def _checked(shares: Shares) -> Tensor:
    """The shares in float64."""
    weights = torch.as_tensor(shares, dtype=torch.float64)
    square = weights.ndim == 2 and weights.shape[0] == weights.shape[1]
    if (weights.ndim != 1 and not square) or not bool((weights >= 0).all()) or float(weights.sum()) <= 0:
        raise InputError(
            f"shares must be (T,) or (T, T) numbers of at least 0, not all 0; got shape {tuple(weights.shape)} "
            f"with sum {float(weights.sum()):g}"
        )
    return weights
