"""Differentiable augmentation search: spaces, the cell, selections, and genotypes for trained models.

Each room stands on those before it: space, cell, score, state, then optimise and rank (side by side), then
select. The driver joins them: `search` sets up a run (`run`, or `bare` where nothing is trained), `work` carries out
its units of work, and `result` writes down what was found.
"""

from image2video.search import select as select
from image2video.search.cell.cell import Cell
from image2video.search.cell.deep_cell import DeepCell
from image2video.search.cell.topology import Decisions, random_decisions, random_genotype, random_share
from image2video.search.driver import search
from image2video.search.problems import Problem, Request, build_problem
from image2video.search.rank.candidates import candidate_chains, candidate_frames
from image2video.search.rank.chain_scores import chain_score_by_perturbation, chain_score_by_tau, score_chains
from image2video.search.rank.fixed_weights import rank_genotypes
from image2video.search.rank.frame_choice import CurvePoint, FrameChoice, FrameScores
from image2video.search.rank.greedy_frames import greedy_frames
from image2video.search.rank.ranking import RankedGenotype, Ranking
from image2video.search.result import SearchResult
from image2video.search.score.scores import PairedScores, Scores
from image2video.search.score.task import ClassificationTask, SegmentationTask, Task, get_task
from image2video.search.select.selection import (
    Run,
    Selection,
    get_selection,
    register_selection,
    selection_names,
)
from image2video.search.space.deep_space import DeepSpace
from image2video.search.space.space import SearchSpace, get_space, register_space, space_names
from image2video.search.state.units import Unit
from image2video.settings.search import SearchConfig

__all__ = [
    "Cell",
    "ClassificationTask",
    "CurvePoint",
    "Decisions",
    "DeepCell",
    "DeepSpace",
    "FrameChoice",
    "FrameScores",
    "PairedScores",
    "Problem",
    "RankedGenotype",
    "Ranking",
    "Request",
    "Run",
    "Scores",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "SegmentationTask",
    "Selection",
    "Task",
    "Unit",
    "build_problem",
    "candidate_chains",
    "candidate_frames",
    "chain_score_by_perturbation",
    "chain_score_by_tau",
    "get_selection",
    "get_space",
    "get_task",
    "greedy_frames",
    "random_decisions",
    "random_genotype",
    "random_share",
    "rank_genotypes",
    "register_selection",
    "register_space",
    "score_chains",
    "search",
    "selection_names",
    "space_names",
]
