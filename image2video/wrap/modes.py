"""The fusions' modes while a method of the backbone runs that changes the mode of its network by itself."""

from __future__ import annotations

from torch import nn


class Modes:
    """Lets fusions follow the mode of a backbone for a while.

    A `predict` begins evaluation by itself, and may end it: what it calls in between is evaluation for the fusions too,
    whose norms must not move. Where the backbone is in the mode in which the method found it, each fusion is in its
    own, which may be another.

    Args:
        backbone: the backbone.
        fusion: what holds the fusions.

    Attributes:
        entry: the mode in which the method found the backbone.
        changed: whether a fusion, or the backbone itself, ran in another mode, or the method has ended in another.
    """

    def __init__(self, backbone: nn.Module, fusion: nn.Module) -> None:
        self.entry = backbone.training
        self.changed = False
        self._backbone = backbone
        self._fusion = fusion
        self._own = [(module, module.training) for module in fusion.modules()]
        self._is_following = False
        self._is_closed = False

    def follow(self) -> None:
        """Put the fusions into the mode that the backbone is in; its hooks call this before a fusion runs."""
        elsewhere = self._backbone.training != self.entry
        if self._is_closed or elsewhere == self._is_following:
            return
        self.changed = True
        self._is_following = elsewhere
        if elsewhere:
            self._fusion.train(self._backbone.training)
        else:
            self._restore()

    def close(self) -> None:
        """Give the fusions their own modes back, and follow no more: backward may come to the hooks again."""
        self._is_closed = True
        self.changed = self.changed or self._backbone.training != self.entry
        if self._is_following:
            self._restore()

    def _restore(self) -> None:
        """Give every fusion the mode that it had."""
        for module, mode in self._own:
            module.training = mode
