"""Selection by one-shot ranking: weights trained on clips of sampled chains, then chains ranked with these weights."""

from __future__ import annotations

import time

import torch

from image2video.search.rank.candidates import candidate_chains
from image2video.search.rank.halving import Halving
from image2video.search.rank.pool import HeldOut
from image2video.search.rank.ranking import Ranking, count_tied, entries_of, is_decided, order_of
from image2video.search.rank.shared_weights import SharedWeights
from image2video.search.run import SearchRun
from image2video.search.score.network import in_mode
from image2video.search.select.selection import Measured, Selection
from image2video.search.space.space import SearchSpace
from image2video.search.state.config import SearchConfig
from image2video.search.state.seeds import derived_seed
from image2video.search.state.units import Unit


class OneShot(Selection):
    """Ranks chains under weights that many chains have trained (ours; after SPOS, Guo et al., ECCV 2020).

    The mixture of the cell blurs every frame, so that its parts look alike and masking one of them decides little. Here
    no clip is a mixture: every batch of the training part goes through the clip of one chain, drawn as the cell would
    give it at random. Then `config.candidates` chains, with the magnitudes and signs that the space offers, are scored
    on held-out images with the shared weights (running BatchNorm statistics), by successive halving as in
    `rank_genotypes`; what costs is the chains, not the size of the space. τ is never trained.

    The first of the ranking is chosen: by accuracy, ties by loss (`config.criterion="loss"`: by loss). A shorter chain
    is not preferred where it is within the error, as it is for a trained model: there the identity is the model as it
    is, here every chain, the identity too, costs the same T frames, and a network will be trained with it. The identity
    takes part to the end as the reference of every gain; `decided` and `tied` say what the choice is worth.
    """

    name = "one_shot"
    moves_tau = False

    def units(self, space: SearchSpace, config: SearchConfig) -> list[Unit]:
        """Epochs on sampled clips, one ranking."""
        return [*(Unit("sampled", epoch) for epoch in range(config.epochs)), Unit("rank")]

    def decide(self, unit: Unit, run: Measured) -> None:
        """Rank the candidates and put the ranking into the records."""
        assert isinstance(run, SearchRun), "a one-shot selection ranks with the network of its run"
        ranking = rank_with_shared_weights(run)
        run.state.ranking = ranking.to_dict()
        run.state.chain = str(ranking.best)


def rank_with_shared_weights(run: SearchRun) -> Ranking:
    """Rank chains of the run's space under its network as it is, on its held-out images, within its budget.

    Every process scores its share of the images; the scores, and so the ranking, are the same on all.
    """
    config, space = run.config, run.space
    chains = candidate_chains(space, config.candidates, config.seed)
    run.share_buffers()
    network, accelerator = run.bilevel.bare, run.accelerator
    shared = SharedWeights(
        network,
        config.T,
        space.schedule,
        config.padding,
        config.interpolation,
        run.task,
        run.colours,
        accelerator.autocast,
    )
    held_out = HeldOut(
        run.held_out,
        None,
        batch_size=config.batch_size,
        seed=derived_seed(config.seed, "ranking"),
        device=accelerator.device,
    )
    started, before = time.perf_counter(), run.state.evaluated_frames

    def late() -> bool:
        # The shares of the processes differ by an image at most; what all have scored is put right at the end.
        run.state.evaluated_frames = before + shared.frames * accelerator.num_processes
        return run.spent() >= 1

    with in_mode(network, training=False), torch.no_grad():
        halving = Halving(
            chains,
            shared,
            held_out,
            config.first_images,
            task=run.task,
            criterion=config.criterion,
            late=late if run.budget.limited else None,
            accelerator=accelerator,
            progress=run.progress,
        )
        survivors, scores, eliminated = halving.run()
    entries = entries_of(chains, survivors, scores, eliminated, config.criterion)
    frames = config.T * sum(entry.images for entry in entries)
    run.state.evaluated_frames = before + frames
    first, identity = order_of(scores, config.criterion)[0], survivors.index(0)
    return Ranking(
        entries,
        len(survivors),
        chains[survivors[first]],
        is_decided(scores, first, identity, config.criterion),
        scores.n,
        frames,
        time.perf_counter() - started,
        count_tied(scores, config.criterion),
        run.task.metric,
    )
