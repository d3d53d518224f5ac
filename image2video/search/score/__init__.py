"""How good a network is on held-out images: the tasks, scores and their errors, over all processes."""
