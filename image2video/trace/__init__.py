"""One forward pass of a model written down: its operations, their graph, the meaning of every axis."""
