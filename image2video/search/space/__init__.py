"""Search spaces: their candidates and graph, the ones that come with the library, and their files."""

from image2video.search.space.space import SearchSpace, get_space, register_space, space_names

__all__ = ["SearchSpace", "get_space", "register_space", "space_names"]
