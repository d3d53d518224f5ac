"""Running `image2video search --compare`: the candidates' genotypes, then one final network per candidate and seed."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from image2video.clip.genotype import Genotype
from image2video.clip.options import ClipOptions
from image2video.data import DataSource, seeded_generator
from image2video.errors import InputError, StateError
from image2video.experiments.arms import check_arms, training_frames
from image2video.experiments.bench import Bench
from image2video.experiments.candidates import FOUND, SEARCHES, Candidate, candidate_arms, key_of
from image2video.experiments.comparison import Comparison
from image2video.experiments.genotypes import stated
from image2video.experiments.output import check_settings, comparison_record
from image2video.experiments.settings import CompareConfig
from image2video.protocols import Progress
from image2video.report import ComparisonResult
from image2video.runs.folders import OutputDirectory, atomic_write_json
from image2video.search import Decisions, SearchResult, SearchSpace, random_genotype
from image2video.search.select.controls import largest_edge, largest_op
from image2video.training import make_accelerator

KIND = "comparison"

SearchAgain = Callable[[str, int, Path], Genotype]
"""`(selection, number, folder)`: the genotype of the same search with another selection, and another seed by number."""


def compare(
    result: SearchResult,
    candidates: Sequence[Candidate],
    config: CompareConfig,
    *,
    data: DataSource,
    out: Path,
    network: Callable[[int], nn.Module],
    search_again: SearchAgain,
    accelerator: Accelerator | None = None,
    progress: Progress | None = None,
) -> ComparisonResult:
    """Train a final network for the found genotype, the bare network and every candidate, and test them.

    All are trained alike on `data.train`, with every seed. Genotypes are chosen before, and nothing is chosen by
    `data.test`, on which the last epoch's network is scored once. The folder `out` holds a file per finished run: a
    killed comparison goes on where it was, and a longer list of candidates or more seeds train only what is new.
    `network(seed)` makes the bare network; `search_again` does the searches that candidates need.

    Raises:
        InputError: the folder holds a comparison with other settings, or the search found no chain at the
            image.
        StateError: several processes, or another job writes into `out`.
    """
    if accelerator is not None and accelerator.num_processes > 1:
        raise StateError("a comparison runs in one process; start it again in one with --resume --compare")
    found = result.genotype
    if not isinstance(found, Genotype):
        raise InputError(
            f"a comparison trains networks on clips of one chain, and the search found {found}; leave out "
            "--compare, or train a network on that: image2video train --genotype"
        )
    with OutputDirectory(out, KIND, resume=True) as folder:
        check_settings(folder, config, genotype=str(result.genotype))
        chains: dict[str, Sequence[Genotype]] = {FOUND: [found]}
        for candidate in candidates:
            chains[key_of(candidate)] = _genotypes(candidate, result, folder, search_again)
        arms, contrasts = candidate_arms(
            candidates, chains, T=config.frames, fusion=config.fusion, space=result.space.name
        )
        check_arms(arms, contrasts)
        bench = compare_bench(config, data, network, accelerator or make_accelerator(config.device))
        comparison = Comparison(
            bench, arms, folder, stated, seeds=config.all_seeds, checkpoints=True, progress=progress
        )
        for seed in config.all_seeds:
            for arm in arms:
                comparison.run(arm, seed)
                # Its record is written: the checkpoints of all candidates together would fill a disk.
                shutil.rmtree(folder.path / "training" / f"{arm.name}-seed{seed}", ignore_errors=True)
        record = comparison_record(comparison, config, contrasts)
        atomic_write_json(folder / "result.json", record)
        folder.finish(seconds=record["seconds"], frames=record["frames"])
    return ComparisonResult.from_dict(record)


def compare_bench(
    config: CompareConfig, data: DataSource, network: Callable[[int], nn.Module], accelerator: Accelerator
) -> Bench:
    """The images, the network, the clip and the recipe of the final networks."""
    clip = ClipOptions(
        T=config.frames,
        schedule=config.schedule,
        padding=config.padding,
        interpolation=config.interpolation,
        mean=data.mean,
        std=data.std,
    )
    return Bench(
        data=data,
        build=network,
        clip=clip,
        recipe=config.training,
        epochs=config.epochs,
        finetune_epochs=config.epochs,  # no arm starts from another
        accelerator=accelerator,
        trained=config.trained,
    )


def comparison_folder(config: CompareConfig) -> str:
    """The comparison's folder inside the search's: longer training makes another one."""
    return f"comparison-{config.epochs}-epochs"


def planned_frames(candidates: Sequence[Candidate], config: CompareConfig, *, images: int, space: SearchSpace) -> int:
    """The training frames that a comparison costs at most, searches of the candidates' own not counted."""
    drawn = [candidate for candidate in candidates if candidate.name not in ("bare", "averaging")]
    chains: dict[str, Sequence[Genotype]] = {key_of(c): [Genotype.identity()] * c.count for c in drawn}
    chains[FOUND] = [Genotype.identity()]
    arms, _ = candidate_arms(candidates, chains, T=config.frames, fusion=config.fusion, space=space.name)
    frames = training_frames(arms, images=images, T=config.frames, epochs=config.epochs, finetune_epochs=config.epochs)
    return config.seeds * sum(frames.values())


def _genotypes(
    candidate: Candidate, result: SearchResult, folder: OutputDirectory, search_again: SearchAgain
) -> list[Genotype]:
    """The genotypes of a candidate: stated, drawn, or searched for; none for the bare network and for averaging."""
    if candidate.genotype is not None:
        return [candidate.genotype]
    if candidate.name == "replica":
        return [Genotype.identity()]
    numbers = range(candidate.count)
    if candidate.name == "random":
        assert isinstance(result.space, SearchSpace), "what was found at several places is refused"
        return [random_genotype(result.space, seeded_generator(result.config.seed, number)) for number in numbers]
    if candidate.name not in SEARCHES:
        return []
    found: list[Genotype] = []
    for number in numbers:
        # With the search's own selection, seed 0 would be the search itself: it begins with the next.
        seed = number + 1 if candidate.name == result.config.selection else number
        shared = shared_tau(result) if candidate.name == "argmax" and seed == 0 else None
        name = f"searches/{candidate.name}{seed}"
        found.append(shared or search_again(candidate.name, seed, folder / name))
    return found


def shared_tau(result: SearchResult) -> Genotype | None:
    """What the largest τ of this search says, where a search with `argmax` would have trained the same τ; else None."""
    config = result.config
    if config.selection != "perturbation" or not result.state.epochs:
        return None
    # A budget may end the two searches at other steps, and the space does not know magnitudes that were learned.
    if config.max_images is not None or config.max_minutes is not None or config.learn_magnitudes:
        return None
    # The records hold softmax weights; their logarithm is τ but for a constant per edge.
    tau = torch.tensor(result.state.epochs[-1]["weights"], dtype=torch.float64).log()
    space = result.space
    if not isinstance(space, SearchSpace):
        return None
    ops = {edge: largest_op(tau, edge) for edge in range(len(space.edges))}
    sources = {n: largest_edge(tau, space.incoming(n)) for n in range(space.inputs, space.num_nodes)}
    return Decisions(ops, sources).genotype(space)
