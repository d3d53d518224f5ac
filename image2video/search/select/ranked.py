"""Selections that rank whole chains on held-out images and read nothing from the cell."""

from __future__ import annotations

from image2video.search.rank.candidates import candidate_chains, candidate_deep_clips, drawn_clips
from image2video.search.rank.clip_candidate import Chains
from image2video.search.rank.places import check_places
from image2video.search.select.selection import Run, Selection, register_selection
from image2video.search.space.deep_space import AnySpace, DeepSpace
from image2video.search.space.space import SearchSpace
from image2video.search.state.units import Unit
from image2video.settings.search import RANKING, SearchConfig

_OF_THE_CELL: tuple[str, ...] = (
    "second_order",
    "learn_magnitudes",
    "relaxation",
    "renormalise",
    "score_statistics",
    "score_batch_size",
    "orders",
    "stop_early",
)


@register_selection("one_shot")
class OneShot(Selection):
    """Ranks chains under weights that many chains have trained (ours; after SPOS, Guo et al., ECCV 2020).

    The mixture of the cell blurs every frame, so that its parts look alike and masking one of them decides little. Here
    no clip is a mixture: every batch of the training part goes through the clip of one chain, drawn as the cell would
    give it at random. Then `config.candidates` chains, with the magnitudes and signs that the space offers, are scored
    on held-out images with the shared weights (running BatchNorm statistics), by successive halving as in
    `rank_genotypes`. The cost grows with the number of chains, not with the size of the space. τ is never trained.

    The first of the ranking is chosen: by accuracy, ties by loss (`config.criterion="loss"`: by loss). Unlike in a
    ranking for a trained model, a shorter chain within the error is not preferred. There the identity is the model as
    it is; here every chain, the identity too, costs the same T frames, and a network will be trained with it. The
    identity takes part to the end as the reference of every gain; `decided` and `tied` say what the choice is worth.

    Over several places of a network (`clip_at`) every batch goes through a chain at each, and so does every candidate.
    """

    moves_tau = False
    default_space = "gentle"
    unused = (*_OF_THE_CELL, *RANKING)

    def units(self, space: AnySpace, config: SearchConfig) -> list[Unit]:
        """Epochs on sampled clips, one ranking."""
        return [*(Unit("sampled", epoch) for epoch in range(config.epochs)), Unit("rank")]

    def decide(self, unit: Unit, run: Run) -> None:
        """Rank chains of the space, or clips at its places, and take the best one."""
        space, count, seed = run.space, run.config.candidates, run.config.seed
        if isinstance(space, DeepSpace):
            clips: tuple[Chains, ...] = candidate_deep_clips(space, count, seed)
        else:
            clips = candidate_chains(space, count, seed)
        run.state.chain = str(run.rank(clips).best)


@register_selection("fixed_weights")
class FixedWeights(OneShot):
    """Ranks chains for a trained backbone as it is, by the mean of its outputs over the frames (ours).

    Nothing is trained and no frames mix; see `rank_genotypes`. Places are alternatives here, and those of one clip
    stand together: `clip_at="image, image | layer3"`.
    """

    trains = False
    needs_trained = True
    unused = (*_OF_THE_CELL, "criterion")

    def units(self, space: AnySpace, config: SearchConfig) -> list[Unit]:
        """One ranking."""
        return [Unit("rank")]

    def decide(self, unit: Unit, run: Run) -> None:
        """Rank chains of the space at the places of the settings, and clips at several of them together."""
        assert isinstance(run.space, SearchSpace), "each place has chains of its own"
        names = check_places(run.config.clip_at)
        run.state.chain = str(run.rank(drawn_clips(run.space, names, run.config.candidates, run.config.seed)).best)


@register_selection("greedy_frames")
class GreedyFrames(FixedWeights):
    """Chooses frames for a trained classifier as it is, one by one, each with a chain of its own.

    What is found is a frame set, not a chain; see `greedy_frames`, whose criterion is the calibrated log-likelihood.
    """

    default_space = "pose"
    only_classification = True
    unused = (
        *FixedWeights.unused,
        *("first_images", "choose_frames", "choose_schedule", "choose_padding", "clip_at"),
        *("max_images", "max_minutes"),
    )

    def units(self, space: AnySpace, config: SearchConfig) -> list[Unit]:
        """One choice."""
        return [Unit("choose")]

    def decide(self, unit: Unit, run: Run) -> None:
        """Choose the frames."""
        run.state.chain = str(run.choose_frames().best)
