"""The scores that each selection gives the chains of the study, from searches of about equal cost."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from ranking_paths import cell_scores
from torch import nn

from image2video import Genotype
from image2video.data import DataSource
from image2video.search import SearchConfig, get_space, rank_genotypes, search
from image2video.search.epochs import one_shot_epoch
from image2video.search.rank.chain_scores import score_chains
from image2video.search.run import SearchRun
from image2video.search.score.network import build_network
from image2video.search.setup import Setup
from image2video.training import TrainConfig, train

BACKWARD = 3
"""What a frame forward and backward costs, in frames forward."""


def search_config(selection: str, seed: int, **settings: Any) -> SearchConfig:
    """The search of the study: short, so τ has a larger rate than the paper's 3e-4."""
    return SearchConfig(
        space=settings["space"],
        selection=selection,
        T=settings["frames"],
        fusion=settings["fusion"],
        residual=False,
        epochs=settings["search_epochs"],
        tune_epochs=settings["tune_epochs"],
        batch_size=settings["batch_size"],
        validation_images=settings["validation_images"],
        lr=settings["search_lr"],
        tau_lr=settings["tau_lr"],
        seed=seed,
        device="cpu",
    )


def search_frames(images: int, held_out: int, settings: dict[str, Any]) -> int:
    """Frames forward that a search by perturbation costs: the budget of every other one."""
    space = get_space(settings["space"])
    T, V = settings["frames"], min(held_out, settings["validation_images"] or held_out)
    trained = settings["search_epochs"] * (images + max(images, held_out))
    trained += len(space.edges) * settings["tune_epochs"] * images
    per_edge = len(space.candidates) + 1
    nodes = [len(space.incoming(n)) + 1 for n in range(space.inputs, space.num_nodes) if len(space.incoming(n)) > 1]
    return T * (BACKWARD * trained + V * (len(space.edges) * per_edge + sum(nodes)))


def by_cell(
    selection: str,
    data: DataSource,
    network: nn.Module,
    chains: list[Genotype],
    seed: int,
    folder: Path,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Scores from a search through the cell: drops along a chain's paths, and τ as the search epochs left it."""
    assert data.holdout is not None
    config = search_config(selection, seed, **settings)
    space = get_space(config.space_name)
    result = search(
        network, data.train, config, validation=data.holdout, out=folder / f"{selection}-seed{seed}", resume=True
    )
    edges = result.state.edges
    costs = {}
    if selection == "perturbation":
        searched = config.T * config.epochs * (data.train.num_images + data.holdout.num_images)
        costs["argmax"] = {"frames": searched, "evaluated_frames": 0, "seconds": None}
    return {
        "scores": cell_scores(selection, edges, space, chains),
        "costs": costs,
        "genotype": str(result.genotype),
        "edges": edges,
        "entropy": [epoch["entropy"] for epoch in result.state.epochs],
        "frames": result.state.frames,
        "evaluated_frames": result.state.evaluated_frames,
        "seconds": result.state.seconds,
    }


def by_shared_weights(
    data: DataSource, network: nn.Module, chains: list[Genotype], seed: int, settings: dict[str, Any]
) -> dict[str, Any]:
    """Scores from one network that is trained on clips of chains drawn per batch, with the budget of the others."""
    assert data.holdout is not None
    images, held_out = data.train.num_images, data.holdout.num_images
    spent = settings["frames"] * held_out * len(chains)
    epochs = (search_frames(images, held_out, settings) - spent) / (BACKWARD * settings["frames"] * images)
    config = search_config("one_shot", seed, **{**settings, "search_epochs": math.floor(epochs)})
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(seed)
    own = build_network(network, config.fusion, residual=config.residual, input_size=data.input_size)
    run = SearchRun(own, Setup(config, get_space(config.space_name), accelerator), data.train, data.holdout)
    begun = time.perf_counter()
    for epoch in range(config.epochs):
        one_shot_epoch(run, epoch)
    batches = data.holdout.batches(256).epoch(0)
    scores = score_chains(run.bilevel.bare, batches, chains, T=config.T, schedule=run.space.schedule)
    return {
        "scores": {
            "one_shot": [scores.accuracy(v) for v in range(len(chains))],
            "one_shot_loss": [-scores.mean_loss(v) for v in range(len(chains))],
        },
        "errors": [scores.accuracy_error(v) for v in range(len(chains))],
        "epochs": config.epochs,
        "frames": run.state.frames,
        "evaluated_frames": spent,
        "seconds": time.perf_counter() - begun,
    }


def by_fixed_weights(
    data: DataSource, network: nn.Module, chains: list[Genotype], recipe: TrainConfig, settings: dict[str, Any]
) -> dict[str, Any]:
    """Scores from the bare network, trained alone: the averaged predictions of the frames of each chain."""
    assert data.holdout is not None
    begun = time.perf_counter()
    trained = train(network, replace(data, holdout=None), recipe)
    every = data.holdout.num_images
    ranking = rank_genotypes(
        network,
        data.holdout,
        candidates=chains,
        T=settings["frames"],
        schedule=get_space(settings["space"]).schedule,
        first_images=every,  # one round: every chain is scored on all images
        seed=recipe.seed,
    )
    entries = {str(entry.genotype): entry for entry in ranking.entries}
    return {
        "scores": {
            "fixed_weights": [entries[str(chain)].accuracy for chain in chains],
            "fixed_weights_loss": [-entries[str(chain)].loss for chain in chains],
        },
        "epochs": recipe.epochs,
        "bare_heldout_accuracy": entries["identity"].accuracy,
        "frames": trained.trained_images,
        "evaluated_frames": ranking.frames,
        "seconds": time.perf_counter() - begun,
    }
