"""How a cell becomes one chain: the interface of the selections, and their names."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import fields
from typing import ClassVar, Protocol, TypeVar

from torch import Tensor

from image2video.errors import InputError, InputTypeError
from image2video.search.rank.clip_candidate import Chains
from image2video.search.rank.frame_choice import FrameChoice
from image2video.search.rank.ranking import Ranking
from image2video.search.score.scores import Scores
from image2video.search.space.deep_space import AnySpace
from image2video.search.state.state import SearchState
from image2video.search.state.units import Unit
from image2video.settings.search import DEFAULT_SPACES, SearchConfig, check_selection


class Run(Protocol):
    """What a selection may ask of a running search.

    A run without a trained network can `rank` and `choose_frames`; its other questions raise `StateError`.

    Attributes:
        space: candidates and graph.
        config: the settings.
        state: the records, where decisions go.
    """

    space: AnySpace
    config: SearchConfig
    state: SearchState

    @property
    def ranking(self) -> Ranking | None:
        """The last ranking that `rank` made; None before."""
        ...

    @property
    def frame_choice(self) -> FrameChoice | None:
        """The last choice that `choose_frames` made; None before."""
        ...

    def tau(self) -> Tensor:
        """τ as it is, on the CPU, without gradient."""
        ...

    def score(self, mixings: list[Tensor], first: int, stop: Callable[[Scores], bool] | None = None) -> Scores:
        """Held-out scores under several mixing matrices, which agree on all edges into nodes before `first`.

        `stop` is asked after every batch whether the scores so far suffice.
        """
        ...

    def rank(self, chains: tuple[Chains, ...]) -> Ranking:
        """Rank chains under the network's weights on held-out images, and put the ranking into the records."""
        ...

    def choose_frames(self) -> FrameChoice:
        """Choose a set of frames for the backbone as it is; a run that trains raises `StateError`."""
        ...

    def spent(self) -> float:
        """The share of the budget that is used: 1 and above is all of it, 0 means that there is no budget."""
        ...

    def snapshot(self) -> None:
        """Keep network and optimiser as they are, for `restore`."""
        ...

    def restore(self) -> None:
        """Put network and optimiser back to the snapshot."""
        ...


class Selection(ABC):
    """How the cell is discretised; `register_selection` gives a class its name.

    A selection keeps nothing itself, so that a killed search can be resumed: what it decides goes into
    `run.state.decisions`, or as the text of a chain, or of a frame set, into `run.state.chain`.

    Attributes:
        name: what `SearchConfig.selection` calls it; `register_selection` sets it.
        trains: whether a network is trained; else a run can only rank chains for the backbone as it is.
        moves_tau: whether τ is trained.
        needs_trained: whether the backbone has to be trained already, since chains are ranked for it as it is.
        only_classification: whether it works for no other task.
        over_places: whether it can search over places of a network; `run.space` is then a `DeepSpace`.
        default_space: the space where the settings name none.
        unused: settings that make no difference to it.
    """

    name: ClassVar[str]
    trains: ClassVar[bool] = True
    moves_tau: ClassVar[bool] = True
    needs_trained: ClassVar[bool] = False
    only_classification: ClassVar[bool] = False
    over_places: ClassVar[bool] = True
    default_space: ClassVar[str] = "affine5"
    unused: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def units(self, space: AnySpace, config: SearchConfig) -> list[Unit]:
        """All units of work in order; they depend on the arguments alone.

        Args:
            space: candidates and graph.
            config: the settings.

        Returns:
            The units; a search writes a checkpoint after each.
        """

    @abstractmethod
    def decide(self, unit: Unit, run: Run) -> None:
        """Carry out a unit that is no training and no plain score.

        Args:
            unit: one of `units`.
            run: the search, whose `state` takes what is decided.
        """


SelectionClass = TypeVar("SelectionClass", bound=type[Selection])
_SELECTIONS: dict[str, type[Selection]] = {}


def register_selection(name: str) -> Callable[[SelectionClass], SelectionClass]:
    """Give a `Selection` subclass a name, so that `SearchConfig(selection=name)` takes it; use it as a decorator.

    Args:
        name: a text that no other selection has.

    Returns:
        The decorator, which returns the class.

    Raises:
        InputError: a name that is taken.
        InputTypeError: a name that is no text, or a class that is no `Selection`.

    Example:
        >>> from image2video.search import get_space
        >>> @register_selection("always_identity")
        ... class AlwaysIdentity(Selection):
        ...     trains = False
        ...     def units(self, space, config):
        ...         return [Unit("read")]
        ...     def decide(self, unit, run):
        ...         run.state.chain = "identity"
        >>> SearchConfig(selection="always_identity").space_name
        'affine5'
    """
    if not isinstance(name, str) or not name.strip():
        raise InputTypeError(f"a selection's name must be a text such as 'my_selection', got {name!r:.80}")
    if name in _SELECTIONS:
        raise InputError(f"the selection {name!r} is registered already; choose a name other than {_known()}")

    def register(cls: SelectionClass) -> SelectionClass:
        if not (isinstance(cls, type) and issubclass(cls, Selection)):
            raise InputTypeError(f"only subclasses of Selection can be registered as {name!r}, got {cls!r:.80}")
        cls.name = name
        _SELECTIONS[name] = cls
        DEFAULT_SPACES[name] = cls.default_space
        return cls

    return register


def get_selection(name: str) -> Selection:
    """The selection of that name.

    Args:
        name: a registered name.

    Returns:
        A new object of the class.

    Raises:
        InputError: an unknown name; the message lists what is known.
    """
    check_selection(name)
    return _SELECTIONS[name]()


def selection_names() -> tuple[str, ...]:
    """The names of all registered selections.

    Returns:
        The built-in ones first, the others in the order of their registration.
    """
    return tuple(_SELECTIONS)


def without_effect(config: SearchConfig) -> str | None:
    """The text of a warning about settings that the selection never reads; None where all defaults stand."""
    defaults = {field.name: getattr(SearchConfig(paper=config.paper), field.name) for field in fields(SearchConfig)}
    unused = get_selection(config.selection).unused
    changed = [name for name in unused if getattr(config, name) != defaults[name]]
    if not changed:
        return None
    listed = ", ".join(f"{name}={getattr(config, name)!r}" for name in changed)
    return f"selection={config.selection!r} does not use {listed}: the search is the same without"


def _known() -> str:
    return ", ".join(_SELECTIONS)
