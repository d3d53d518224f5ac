"""Differentiable augmentation search: spaces, the cell, selection strategies, and genotypes for trained models."""

from image2video.search.candidates import candidate_chains
from image2video.search.cell import Cell
from image2video.search.chain_scores import chain_score_by_perturbation, chain_score_by_tau, score_chains
from image2video.search.config import SearchConfig
from image2video.search.driver import search
from image2video.search.fixed_weights import rank_genotypes
from image2video.search.problems import Problem, Request, build_problem
from image2video.search.ranking import RankedGenotype, Ranking
from image2video.search.result import SearchResult
from image2video.search.scores import PairedScores, Scores
from image2video.search.space import SearchSpace, get_space, register_space, space_names
from image2video.search.task import ClassificationTask, SegmentationTask, Task, get_task
from image2video.search.topology import Decisions, random_decisions, random_genotype, random_share

__all__ = [
    "Cell",
    "ClassificationTask",
    "Decisions",
    "PairedScores",
    "Problem",
    "RankedGenotype",
    "Ranking",
    "Request",
    "Scores",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "SegmentationTask",
    "Task",
    "build_problem",
    "candidate_chains",
    "chain_score_by_perturbation",
    "chain_score_by_tau",
    "get_space",
    "get_task",
    "random_decisions",
    "random_genotype",
    "random_share",
    "rank_genotypes",
    "register_space",
    "score_chains",
    "search",
    "space_names",
]
