"""How well does each selection's ranking of chains agree with the accuracy of the chains trained alone?

    python benchmarks/ranking_study.py --part alone --data npz:cifar10.npz --out runs/ranking
    python benchmarks/ranking_study.py --part scores --data npz:cifar10.npz --out runs/ranking
    python benchmarks/ranking_study.py --part summary --out runs/ranking --results benchmarks/results/ranking.json

Half of the labelled images trains, the other half is held out: every score of a selection comes from these two halves.
The truth is the test accuracy of each chain trained alone. It is measured on images that no selection has seen, or the
luck of the held-out images would count as agreement; no network and no genotype is chosen by it.

Every finished run is a JSON file below OUT, and a study that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import commit, hardware, versions, write_result
from ranking_arms import by_cell, by_fixed_weights, by_shared_weights
from ranking_paths import cell_scores
from ranking_summary import (
    RECORDED,
    chain_rows,
    chance_row,
    gather,
    repeated_facts,
    shortest_first,
    summary_rows,
    truth_facts,
)
from torch import nn

from image2video import Genotype, VideoWrap
from image2video.data import DataSource, load_data, seeded_generator
from image2video.integrations.timm_backbones import build
from image2video.runs.folders import atomic_write_json
from image2video.search import SearchSpace, get_space
from image2video.training import TrainConfig, evaluate, train

SPACE = "affine5"
MODEL, FUSION, FRAMES, SCHEDULE = "cifar_resnet8", "gsf", 3, "from_zero"
DRAW_SEED = 0
DRAWN_PER_LENGTH = 2
EPOCHS, BATCH_SIZE, LR = 6, 64, 0.1
SEARCH: dict[str, Any] = {
    "space": SPACE,
    "frames": FRAMES,
    "fusion": FUSION,
    "search_epochs": 6,
    "tune_epochs": 1,
    "batch_size": BATCH_SIZE,
    "validation_images": 2000,
    "search_lr": 0.05,
    "tau_lr": 3e-3,
}
BARE_EPOCHS = EPOCHS * FRAMES
"""Of the network behind `fixed_weights`: as many frames as a chain trained alone."""


def chains(space: SearchSpace, draw_seed: int = DRAW_SEED) -> list[Genotype]:
    """The chains of the study: the identity, every single op, and for each longer length up to the cell's depth one op
    repeated and two chains drawn with replacement."""
    ops = [candidate for candidate in space.candidates if candidate.chain]
    generator = seeded_generator(draw_seed)
    found = [Genotype.identity(), *ops]
    for length in range(2, space.nodes + 1):
        repeated = ops[int(torch.randint(len(ops), (1,), generator=generator))]
        found.append(Genotype(repeated.chain * length))
        wanted = len(found) + DRAWN_PER_LENGTH
        while len(found) < wanted:
            drawn = torch.randint(len(ops), (length,), generator=generator).tolist()
            chain = Genotype(tuple(transform for index in drawn for transform in ops[index].chain))
            if chain not in found:
                found.append(chain)
    return found


def load(options: Namespace) -> DataSource:
    """The images: half to train, half held out, the same for every seed."""
    return load_data(options.data, train_images=options.train_images, holdout=0.5, seed=0)


def bare_network(data: DataSource, seed: int) -> nn.Module:
    """The bare network: equal weights for equal seeds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(MODEL, num_classes=data.num_classes, in_chans=data.input_size[0])


def wrapped(network: nn.Module, data: DataSource, genotype: Genotype, seed: int) -> nn.Module:
    """The network over the clip of a chain, its fusion as published."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VideoWrap(
            network, FUSION, genotype=genotype, T=FRAMES, schedule=SCHEDULE, residual=False, input_size=data.input_size
        )


def recipe(epochs: int, seed: int, lr: float = LR) -> TrainConfig:
    """How a network of the study is trained."""
    return TrainConfig(
        epochs=epochs, batch_size=BATCH_SIZE, lr=lr, warmup_epochs=min(1.0, epochs / 4), seed=seed, device="cpu"
    )


def train_alone(data: DataSource, genotype: Genotype, seed: int, options: Namespace) -> dict[str, Any]:
    """One chain trained alone with one seed: its accuracies after the last epoch, nothing chosen on the way."""
    model = wrapped(bare_network(data, seed), data, genotype, seed)
    result = train(model, replace(data, holdout=None), recipe(options.epochs, seed))
    assert data.holdout is not None
    device = next(model.parameters()).device
    held_out = evaluate(model, data.holdout.batches(256, device=device), device)
    return {
        "chain": str(genotype),
        "seed": seed,
        "test_accuracy": result.test_last.top1,
        "test_loss": result.test_last.loss,
        "heldout_accuracy": held_out.top1,
        "heldout_loss": held_out.loss,
        "train_loss": result.history[-1].train_loss,
        "epochs": options.epochs,
        "frames": result.trained_images * FRAMES,
        "seconds": result.seconds,
        "commit": options.commit,
        "versions": versions(),
        "hardware": hardware(),
    }


def part_alone(options: Namespace) -> None:
    """Every chain with every seed, seed by seed; what is there is kept."""
    data, found = load(options), chains(get_space(SPACE))
    for seed in options.seeds:
        for number, genotype in enumerate(found):
            path = options.out / "alone" / f"chain{number:02d}-seed{seed}.json"
            if path.is_file():
                continue
            started = time.perf_counter()
            record = train_alone(data, genotype, seed, options)
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_json(path, record)
            print(
                f"seed {seed}, chain {number + 1} of {len(found)}, {genotype}: test {record['test_accuracy']:.4f}, "
                f"held out {record['heldout_accuracy']:.4f}, {time.perf_counter() - started:.0f} s",
                flush=True,
            )


def score(name: str, data: DataSource, found: list[Genotype], seed: int, folder: Path) -> dict[str, Any]:
    """The scores of one run, see `ranking_summary.RECORDED`."""
    network = bare_network(data, seed)
    if name == "one_shot":
        return by_shared_weights(data, network, found, seed, SEARCH)
    if name == "fixed_weights":
        return by_fixed_weights(data, network, found, recipe(BARE_EPOCHS, seed), SEARCH)
    return by_cell(name, data, network, found, seed, folder, SEARCH)


def part_scores(options: Namespace) -> None:
    """Every run with every search seed, seed by seed; what is there is kept."""
    data, found = load(options), chains(get_space(SPACE))
    for seed in options.search_seeds:
        for name in options.runs:
            path = options.out / "scores" / f"{name}-seed{seed}.json"
            if path.is_file():
                continue
            record = {"run": name, "seed": seed, "chains": [str(genotype) for genotype in found]}
            record |= score(name, data, found, seed, options.out / "searches")
            record |= {"settings": SEARCH, "commit": options.commit, "versions": versions(), "hardware": hardware()}
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write_json(path, record)
            print(f"seed {seed}, {name}: {record['seconds']:.0f} s", flush=True)


def part_summary(options: Namespace) -> None:
    """The figures of all runs that are there, as a table and a result file."""
    labels = [str(genotype) for genotype in chains(get_space(SPACE))]
    alone = {(r["chain"], r["seed"]): r for r in _records(options.out / "alone")}
    seeds = sorted({seed for _, seed in alone if all((label, seed) in alone for label in labels)})
    if not seeds:
        raise SystemExit(f"{options.out / 'alone'} holds no seed with all {len(labels)} chains; run --part alone first")
    truth = np.array([[alone[label, seed]["test_accuracy"] for label in labels] for seed in seeds])
    runs = _records(options.out / "scores")
    for record in runs:
        if "edges" in record:  # what a cell says of a chain follows from its records
            space, found = get_space(SPACE), [Genotype.parse(label) for label in labels]
            record["scores"] = cell_scores(record["run"], record["edges"], space, found)
    scores, costs = gather(runs, labels)
    searches = max([len(values) for values in scores.values()], default=1)
    scores["shortest first"] = shortest_first([Genotype.parse(label).chain for label in labels], searches)
    rows = [*summary_rows(truth, scores, costs), chance_row(truth)]
    first = next(iter(alone.values()))
    payload = {
        "settings": {
            "network": {"model": MODEL, "fusion": FUSION, "T": FRAMES, "schedule": SCHEDULE, "residual": False},
            "alone": {"epochs": first["epochs"], "batch_size": BATCH_SIZE, "lr": LR, "seeds": seeds},
            "search": SEARCH,
            "bare_epochs": BARE_EPOCHS,
            "chains_drawn_by_seed": DRAW_SEED,
            "commits": {
                "alone": sorted({r["commit"] for r in alone.values()}),
                "scores": sorted({r["commit"] for r in runs}),
            },
        },
        "truth": [truth_facts(truth)],
        "repeated": repeated_facts(labels, {key: record["test_accuracy"] for key, record in alone.items()}),
        "chains": chain_rows(labels, truth, scores),
        "results": rows,
    }
    write_result(
        options.results, "ranking", payload, columns=("selection", "tau", "tau_low", "tau_high", "regret_points")
    )


def _records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


PARTS = {"alone": part_alone, "scores": part_scores, "summary": part_summary}


def parser() -> ArgumentParser:
    """The options."""
    found = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    found.add_argument("--part", choices=tuple(PARTS), required=True, help="which part of the study to run")
    found.add_argument("--data", default="torchvision:CIFAR10@data", help="a data source, see image2video.data")
    found.add_argument("--train-images", type=int, default=10000, help="labelled images; half of them are held out")
    found.add_argument("--epochs", type=int, default=EPOCHS, help="epochs of a chain trained alone")
    found.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the chains trained alone")
    found.add_argument("--search-seeds", type=int, nargs="+", default=[0, 1], help="seeds of the searches")
    found.add_argument("--runs", nargs="+", choices=tuple(RECORDED), default=list(RECORDED), help="searches to run")
    found.add_argument("--results", type=Path, default=None, help="write the summary to this JSON file")
    found.add_argument("--out", type=Path, default=Path("runs/ranking"), help="folder of the finished runs")
    found.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    found.add_argument("--commit", default=None, help="code that runs, where it is no checkout (default: ask git)")
    return found


def main() -> None:
    options = parser().parse_args()
    options.commit = options.commit or commit()
    torch.set_num_threads(options.threads)
    PARTS[options.part](options)


if __name__ == "__main__":
    main()
