"""What a search says of a chain that it did not choose: by τ, by perturbation, by shared weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from image2video.clip.colours import Colours
from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.errors import InputError
from image2video.search.rank.clip_candidate import ClipCandidate
from image2video.search.rank.shared_weights import SharedWeights
from image2video.search.score.measure import score_variants
from image2video.search.score.network import FrameNetwork, in_mode
from image2video.search.score.scores import Scores
from image2video.search.score.task import ClassificationTask, Task
from image2video.search.space.space import SearchSpace


def score_chains(
    network: FrameNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    chains: Sequence[Genotype | str],
    *,
    T: int = 5,
    schedule: str = "from_zero",
    padding: str = "zeros",
    interpolation: str = "bilinear",
    colours: Colours | None = None,
    task: Task | None = None,
    accelerator: Accelerator | None = None,
) -> Scores:
    """Held-out scores of chains under one network that was trained on clips of many (`selection="one_shot"`).

    Variant v of the scores is `chains[v]`, so `scores.accuracy(v)`, `scores.mean_loss(v)` and their errors are its. The
    network is evaluated with its running statistics, and is left as it is.

    Args:
        network: clip to frame outputs, on its device; not the one wrapped for several processes.
        batches: `(images, labels)` that the network was not trained on, normalised, on its device.
        chains: genotypes or texts.
        T: frames per clip.
        schedule: the power of each frame.
        padding: see `image2video.clip.sampling.warp`.
        interpolation: see `image2video.clip.sampling.warp`.
        colours: how the images are normalised, which chains with photometric ops need.
        task: what is predicted; classification by default.
        accelerator: where each process holds a share of the images; the scores are those of all.

    Returns:
        Scores of as many variants as there are chains.

    Raises:
        InputError: no chain, no image, or chains that change colours where `colours` is None.
    """
    if not chains:
        raise InputError("there is no chain to score; give at least one, such as 'identity'")
    task = task or ClassificationTask()
    mean, std = (None, None) if colours is None else (colours.mean, colours.std)
    options = ClipOptions(T, schedule, padding, interpolation, mean, std)
    shared = SharedWeights(network, task)
    genotypes = (Genotype.coerce(chain).with_provenance(None) for chain in chains)
    clips = tuple(ClipCandidate.mixed(genotype, options) for genotype in genotypes)
    with in_mode(network, training=False), torch.no_grad():
        return score_variants(lambda x: shared.predictions(x, clips), batches, accelerator, task=task)


def chain_score_by_tau(tau: Tensor, space: SearchSpace, chain: Genotype | str) -> float:
    """How likely τ makes a chain: the mean log softmax weight along its best path.

    The chain may lie on several paths from an input to the last node, with identities between; the path counts on which
    the mean over the edges is largest.

    Args:
        tau: `(edges, candidates)`.
        space: candidates and graph.
        chain: a genotype or its text.

    Returns:
        The mean, in nats.

    Raises:
        InputError: a chain that no path of the cell gives.

    >>> from image2video.search import get_space
    >>> round(chain_score_by_tau(torch.zeros(10, 5), get_space("affine5"), "rotate(10) > scale(1.1)"), 4)
    -1.6094
    """
    values = torch.log_softmax(tau.detach().double().cpu(), dim=-1).tolist()
    return max(total / length for length, total in _best_sums(values, space, chain).items())


def chain_score_by_perturbation(
    records: Iterable[Mapping[str, Any]], space: SearchSpace, chain: Genotype | str
) -> float:
    """How much held-out accuracy the cell lost in all when the parts of a chain were masked, one at a time.

    The drops `accuracy − masked_accuracy` are summed up along the path from an input to the last node that gives the
    chain (identities between count too) and on which the sum is largest.

    Args:
        records: the `edges` of `scores.json`.
        space: candidates and graph.
        chain: a genotype or its text.

    Returns:
        The sum of the drops; a drop of 1 is all of the accuracy.

    Raises:
        InputError: an edge that was not measured, or a chain that no path of the cell gives.
    """
    measured = {record["edge"]: record for record in records if record.get("masked_accuracy") is not None}
    missing = [edge for edge in range(len(space.edges)) if edge not in measured]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(space.edges)} edges were not measured, the first is {space.edges[missing[0]]}; "
            "a score by perturbation needs all of them"
        )
    values = [
        [measured[edge]["accuracy"] - masked for masked in measured[edge]["masked_accuracy"]]
        for edge in range(len(space.edges))
    ]
    return max(_best_sums(values, space, chain).values())


def _best_sums(values: Sequence[Sequence[float]], space: SearchSpace, chain: Genotype | str) -> dict[int, float]:
    """The largest sum of `values[edge][candidate]` over all paths that give the chain, per length of the path."""
    wanted = Genotype.coerce(chain).chain
    # A way into a node is known by how many transforms of the chain it holds and how many edges it passes; of ways
    # that agree in both, only the one with the largest sum can be part of the best path.
    best_into: list[dict[tuple[int, int], float]] = [{(0, 0): 0.0} for _ in range(space.inputs)]
    for node in range(space.inputs, space.num_nodes):
        best: dict[tuple[int, int], float] = {}
        for edge in space.incoming(node):
            source, _ = space.edges[edge]
            for (done, length), total in best_into[source].items():
                for candidate, value in zip(space.candidates, values[edge], strict=True):
                    end = done + len(candidate.chain)
                    if wanted[done:end] == candidate.chain:
                        key = (end, length + 1)
                        best[key] = max(best.get(key, -math.inf), total + value)
        best_into.append(best)
    found = {length: total for (done, length), total in best_into[-1].items() if done == len(wanted)}
    if not found:
        raise InputError(
            f"no path through the cell of {space.name!r} gives the chain {Genotype.coerce(chain)}: it has "
            f"{space.nodes} nodes and the candidates {', '.join(space.labels)}"
        )
    return found
