"""How places of a network are named."""

IMAGE = "image"
"""The name of the place before the network: the clip begins with the image."""
MAX_PATH = 1000
"""Characters of the path of a module, which may come from a file."""
MAX_PLACES = 64
"""Of one clip."""
