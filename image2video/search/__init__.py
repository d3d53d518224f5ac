"""Differentiable augmentation search: spaces, the cell, selection strategies, and genotypes for trained models."""

from image2video.search.cell import Cell
from image2video.search.config import SearchConfig
from image2video.search.driver import search
from image2video.search.fixed_weights import candidate_chains, rank_genotypes
from image2video.search.ranking import RankedGenotype, Ranking
from image2video.search.result import SearchResult
from image2video.search.space import SearchSpace, get_space, register_space, space_names
from image2video.search.topology import Decisions, random_decisions, random_genotype, random_share

__all__ = [
    "Cell",
    "Decisions",
    "RankedGenotype",
    "Ranking",
    "SearchConfig",
    "SearchResult",
    "SearchSpace",
    "candidate_chains",
    "get_space",
    "random_decisions",
    "random_genotype",
    "random_share",
    "rank_genotypes",
    "register_space",
    "search",
    "space_names",
]
