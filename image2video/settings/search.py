"""The settings of a search, and how they are checked and written down."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from image2video.errors import InputError

# What is imported below, in the functions, brings torch, which the help of the command line needs not.
if TYPE_CHECKING:
    from image2video.clip.colours import Colours
    from image2video.clip.options import ClipOptions

CRITERIA = ("accuracy", "loss")
AVERAGES = ("mean", "mean_prob")
"""How a ranking may average the logits of frames: their mean, or the log of the mean probability."""
CHOICES = ("choose_frames", "choose_schedule", "choose_padding", "choose_aggregate", "clip_at")
"""The settings that list what a ranking may choose from."""
RANKING: tuple[str, ...] = tuple(name for name in CHOICES if name != "clip_at")
"""The settings that matter to rankings of trained networks alone."""
STATISTICS = ("batch", "running")
PAPER: dict[str, object] = {"residual": False, "renormalise": False, "score_statistics": "batch"}
"""What `SearchConfig(paper=True)` sets."""
PRECISIONS = ("no", "fp16", "bf16")
DEVICES = ("auto", "cpu")
RELAXATIONS = ("mixture", "single_path")
SHARINGS = ("node", "edge")

_NUMBERS: tuple[tuple[tuple[str, ...], str, Callable[[float], bool]], ...] = (
    (
        ("lr", "lr_min", "weight_decay", "grad_clip", "tau_lr", "tau_weight_decay", "magnitude_lr"),
        "a finite number of at least 0",
        lambda value: 0 <= value < math.inf,
    ),
    (
        ("temperature", "temperature_min", "max_minutes", "stop_early"),
        "a finite number above 0",
        lambda value: 0 < value < math.inf,
    ),
    (("momentum",), "at least 0 and below 1", lambda value: 0 <= value < 1),
    (
        ("magnitude_bound",),
        "a finite number of at least 1 (where magnitudes start)",
        lambda value: 1 <= value < math.inf,
    ),
    (("max_cost",), "a finite number of at least 1", lambda value: 1 <= value < math.inf),
    (("validation_share",), "between 0 and 1", lambda value: 0 < value < 1),
)
"""Settings that are numbers, what they must be, and whether a number is that."""
_OPTIONAL_NUMBERS = ("max_minutes", "stop_early", "max_cost")

DEFAULT_SPACES: dict[str, str] = {
    **dict.fromkeys(("argmax", "random", "perturbation", "frozen"), "affine5"),
    **dict.fromkeys(("one_shot", "fixed_weights"), "gentle"),
    "greedy_frames": "pose",
}
"""The space of every selection where the settings name none: the library's own; `register_selection` adds others."""


@dataclass(frozen=True)
class SearchConfig:
    """The settings of a search; where no origin is named, the default is ours.

    Args:
        space: name of a registered space, or a .yaml or .json file that holds one. Default: `affine5` (paper), and
            `gentle` for `fixed_weights` and `one_shot`: these rank whole chains, at a cost that does not grow with the
            space, so several magnitudes and signs are free; and random chains of the large steps of `affine5` move
            much of the image out of the frame. `greedy_frames` has `pose`: a frame that does not help is not taken.
        selection: `perturbation` (paper), `argmax`, `random`, `frozen` (τ is never trained, then perturbation),
            `one_shot` (ours: the network trains on clips of sampled chains, then chains are ranked), `fixed_weights`
            (ours: a trained model stays as it is; chains are ranked) or `greedy_frames` (the same model; frames are
            chosen one by one, each with a chain of its own).
        T: frames of the clip (paper); of the largest set of `greedy_frames`.
        fusion: how frames mix (paper: `gsf`); a name from `fusion_names()`; not used by `fixed_weights`.
        residual: start as the average of the bare backbone over the frames.
        epochs: epochs over the training half (50 in the authors' code).
        warmup_epochs: epochs at the start in which τ stays as it is.
        batch_size: images per step, over all processes together (64 in the authors' code).
        validation_share: the part of the images that trains τ and selects; the rest trains the network (DARTS: half).
        validation_images: at most so many images per held-out score (default: all of the validation part).
        lr: learning rate of the weights at the start; cosine to `lr_min` (0.025 to 0.001: DARTS).
        lr_min: learning rate at the end.
        momentum: of SGD (DARTS).
        weight_decay: of the weights (DARTS); biases, norms and scales take none.
        grad_clip: largest norm of the weights' gradient (DARTS); 0 is no limit.
        accumulate: batches whose gradients are summed up for one step of the weights and of τ.
        second_order: take the gradient of τ through one step of the weights, by finite differences (DARTS), at the
            cost of three more passes, in full precision; first order otherwise (paper).
        relaxation: `mixture` (paper: every op on every edge) or `single_path` (one op per edge, drawn by Gumbel-max).
        temperature: of the softmax behind `single_path` at the start; it falls linearly to `temperature_min`.
        temperature_min: of the softmax behind `single_path` at the end.
        learn_magnitudes: train the magnitudes of geometric ops with τ.
        magnitudes_per: whether an op has one magnitude per source `node`, or one per `edge` (then every edge warps its
            source anew).
        magnitude_lr: learning rate of the magnitudes, Adam, in units of the op's first deviation from doing nothing.
        magnitude_bound: largest magnitude, in the same units, either sign.
        max_images: end when so many images have gone through the network, each counted every time, held-out ones
            included. Training ends at 0.6 of it and tuning at 0.9, in the middle of an epoch too; the learning rate and
            the temperature then fall with the budget.
        max_minutes: end when so much time has passed, over all resumed parts; then runs are not reproducible.
        tau_lr: learning rate of τ, Adam (DARTS).
        tau_betas: betas of Adam (DARTS).
        tau_weight_decay: weight decay of τ (DARTS).
        tune_epochs: epochs of tuning after each decided edge; cosine from `lr` to `lr_min` over all of them (DARTS-PT).
        criterion: what a removal, and the ranking of `one_shot`, is judged by: `accuracy` (paper; the loss breaks ties)
            or `loss`.
        renormalise: whether masking scales the other weights up, so that no clip is smaller than another and a network
            without norms is judged by what it sees; the paper's sources (DARTS-PT) do not.
        score_statistics: what norms use while cells with masked parts are scored: those of the `batch` (DARTS-PT), or
            the `running` ones, under which the largest weight hurts most whatever its op does (see
            `docs/appendix/masking.md`).
        score_batch_size: images per batch of these scores, on each process, since the statistics are those of a batch
            (default: `batch_size`).
        orders: random orders of the edges in `perturbation` and `frozen`; with more than one, each starts from the
            searched network, and the means of their scores decide.
        stop_early: in `perturbation` and `frozen`: end the scores of an edge when the gap between its first two ops
            exceeds so many standard errors, and at least 256 images were scored (default, paper: all are).
        candidates: chains that `fixed_weights` and `one_shot` rank, and frames that `greedy_frames` chooses from.
        first_images: images of the first round of a ranking.
        choose_frames: frames per clip that `fixed_weights` chooses from, such as 2, 3 and 5 (default: `T` alone).
        choose_schedule: schedules that it chooses from (default: the space's).
        choose_padding: paddings that it chooses from (default: `padding`).
        choose_aggregate: averages that it and `greedy_frames` choose from: `mean` of the logits, `mean_prob` (default:
            `mean`, and both in `greedy_frames`).
        clip_at: the path of a module, `image`, or several of them, in a list or with commas between them (default: the
            image alone). A search through cells (`perturbation`, `argmax`, `frozen`, `random`) puts a cell at each of
            the places, in the order of the network: the clip begins at the first, and its frames are moved once more
            at the others; `one_shot` draws and ranks a chain for each of them. For `fixed_weights` they are the places
            where a clip may begin, or `all` of the network and the image; places with bars between them, in quotes as
            in `image | layer3`, are those of one clip, with a chain at each; see `rank_genotypes`.
        max_cost: the most that the clip costs, as a multiple of the image's multiply-accumulates; of a clip that
            begins at the image that is its frames. `fixed_weights` and `greedy_frames` choose among the clips within
            it; a search through cells is refused where it would cost more.
        crop_flip: the data's own crops and flips in training steps.
        padding: what lies outside the image: `zeros`, `border` or `reflection`.
        interpolation: how frames are sampled: `bilinear`, `nearest` or `bicubic`.
        device: `auto` or `cpu`, where the search makes its own accelerator.
        precision: mixed precision where the search makes its own accelerator: `no`, `fp16` or `bf16`.
        channels_last: memory layout of the network.
        checkpoint_activations: keep no activations inside the network's blocks and compute them again in the backward
            pass: less memory, more time.
        seed: of every random draw.
        paper: selection and fusion as the paper and its sources have them, where our defaults differ: sets
            `renormalise=False`, `residual=False` and `score_statistics="batch"`.
    """

    space: str | None = None
    selection: str = "perturbation"
    T: int = 5
    fusion: str = "gsf"
    residual: bool = True
    epochs: int = 50
    warmup_epochs: int = 0
    batch_size: int = 64
    validation_share: float = 0.5
    validation_images: int | None = None
    lr: float = 0.025
    lr_min: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 3e-4
    grad_clip: float = 5.0
    accumulate: int = 1
    second_order: bool = False
    relaxation: str = "mixture"
    temperature: float = 5.0
    temperature_min: float = 0.5
    learn_magnitudes: bool = False
    magnitudes_per: str = "node"
    magnitude_lr: float = 0.01
    magnitude_bound: float = 3.0
    max_images: int | None = None
    max_minutes: float | None = None
    tau_lr: float = 3e-4
    tau_betas: tuple[float, float] = (0.5, 0.999)
    tau_weight_decay: float = 1e-3
    tune_epochs: int = 1
    criterion: str = "accuracy"
    renormalise: bool = True
    score_statistics: str = "batch"
    score_batch_size: int | None = None
    orders: int = 1
    stop_early: float | None = None
    candidates: int = 64
    first_images: int = 128
    choose_frames: tuple[int, ...] | None = None
    choose_schedule: tuple[str, ...] | None = None
    choose_padding: tuple[str, ...] | None = None
    choose_aggregate: tuple[str, ...] | None = None
    clip_at: tuple[str, ...] | str | None = None
    max_cost: float | None = None
    crop_flip: bool = True
    padding: str = "zeros"
    interpolation: str = "bilinear"
    device: str = "auto"
    precision: str = "no"
    channels_last: bool = False
    checkpoint_activations: bool = False
    seed: int = 0
    paper: bool = False

    def __post_init__(self) -> None:
        from image2video.clip.checks import check_frames
        from image2video.clip.sampling import INTERPOLATIONS, PADDINGS

        if self.paper is True:
            _follow_paper(self)
        check_frames(self.T)
        _check_counts(self)
        _check_switches(self)
        check_selection(self.selection)
        for what, value, choices in (
            ("criterion", self.criterion, CRITERIA),
            ("score_statistics", self.score_statistics, STATISTICS),
            ("relaxation", self.relaxation, RELAXATIONS),
            ("magnitudes_per", self.magnitudes_per, SHARINGS),
            ("padding", self.padding, PADDINGS),
            ("interpolation", self.interpolation, INTERPOLATIONS),
            ("precision", self.precision, PRECISIONS),
            ("device", self.device, DEVICES),
        ):
            if value not in choices:
                raise InputError(f"unknown {what} {value!r}; choose one of {', '.join(choices)}")
        _check_numbers(self)
        _check_choices(self)

    @property
    def space_name(self) -> str:
        """The name of the space, the default filled in."""
        return self.space or DEFAULT_SPACES[self.selection]

    def clip_options(self, schedule: str, colours: Colours | None) -> ClipOptions:
        """How the search makes its clips.

        Args:
            schedule: of the space.
            colours: how the images are normalised, where that is known.

        Returns:
            The options of every clip.
        """
        from image2video.clip.options import ClipOptions

        mean, std = (None, None) if colours is None else (colours.mean, colours.std)
        return ClipOptions(self.T, schedule, self.padding, self.interpolation, mean, std)

    def to_dict(self) -> dict[str, Any]:
        """The settings for records.

        Returns:
            Plain JSON values.
        """
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _follow_paper(config: SearchConfig) -> None:
    """Set what `paper=True` stands for; refuse a value that is neither the default nor the paper's."""
    defaults = {field.name: field.default for field in fields(SearchConfig)}
    for name, value in PAPER.items():
        given = getattr(config, name)
        if given not in (value, defaults[name]):
            raise InputError(f"paper=True means {name}={value!r}, got {given!r}; leave one of them out")
        object.__setattr__(config, name, value)


def check_selection(name: object) -> None:
    """Raise `InputError` for a name under which no selection is registered."""
    if not isinstance(name, str) or name not in DEFAULT_SPACES:
        meant = "; what DARTS does is 'argmax'" if str(name).lower() == "darts" else ""
        raise InputError(f"unknown selection {name!r:.80}{meant}; choose one of {', '.join(DEFAULT_SPACES)}")


def _check_counts(config: SearchConfig) -> None:
    least = {"epochs": 0, "warmup_epochs": 0, "tune_epochs": 0, "seed": 0}
    least |= {"batch_size": 1, "accumulate": 1, "orders": 1, "candidates": 1, "first_images": 1}
    optional = {"validation_images": 1, "max_images": 1, "score_batch_size": 1}
    for name, low in {**least, **optional}.items():
        value = getattr(config, name)
        if value is None and name in optional:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            or_none = " or None" if name in optional else ""
            raise InputError(f"{name} must be an integer of at least {low}{or_none}, got {value!r}")
    if config.T < 2:
        raise InputError(f"a search needs clips of at least 2 frames, got T={config.T}")


def _check_switches(config: SearchConfig) -> None:
    names = ("residual", "second_order", "learn_magnitudes", "renormalise", "crop_flip", "channels_last")
    for name in (*names, "checkpoint_activations", "paper"):
        if not isinstance(getattr(config, name), bool):
            raise InputError(f"{name} must be True or False, got {getattr(config, name)!r}")


def _check_numbers(config: SearchConfig) -> None:
    for names, needed, fits in _NUMBERS:
        for name in names:
            value = getattr(config, name)
            if value is None and name in _OPTIONAL_NUMBERS:
                continue
            if not (_is_number(value) and fits(value)):
                raise InputError(f"{name} must be {needed}, got {value!r}")
    betas = config.tau_betas
    if not isinstance(betas, tuple | list) or len(betas) != 2 or not all(_is_number(b) and 0 <= b < 1 for b in betas):
        raise InputError(f"tau_betas must be two numbers, each at least 0 and below 1, got {betas!r}")
    if config.lr_min > config.lr:
        raise InputError(
            f"the learning rate must fall: 0 <= lr_min <= lr, got lr={config.lr!r}, lr_min={config.lr_min!r}"
        )
    if config.temperature < config.temperature_min:
        raise InputError(
            f"the temperature must fall: temperature_min <= temperature, got temperature={config.temperature}, "
            f"temperature_min={config.temperature_min}"
        )


def _check_choices(config: SearchConfig) -> None:
    """Check what a ranking may choose from; lists, as files hold them, become tuples, and so does a single place."""
    from image2video.clip.checks import check_choice, check_frames
    from image2video.clip.sampling import PADDINGS
    from image2video.clip.schedules import SCHEDULES

    if isinstance(config.clip_at, str):
        object.__setattr__(config, "clip_at", tuple(place.strip() for place in config.clip_at.split(",")))
    for name in CHOICES:
        value = getattr(config, name)
        if value is None:
            continue
        listed = isinstance(value, tuple | list) and bool(value)
        if listed and name == "clip_at":
            # The places of one clip as one text: records and files hold texts.
            value = [" | ".join(map(str, place)) if isinstance(place, tuple | list) else place for place in value]
        if not listed or (name == "clip_at" and not all(isinstance(place, str) for place in value)):
            raise InputError(f"{name} must be a list of different values or None, got {value!r:.80}")
        object.__setattr__(config, name, tuple(value))
    for T in config.choose_frames or ():
        check_frames(T)
    for what, chosen, known in (
        ("schedule", config.choose_schedule, SCHEDULES),
        ("padding", config.choose_padding, PADDINGS),
        ("aggregate", config.choose_aggregate, AVERAGES),
    ):
        for value in chosen or ():
            check_choice(what, value, known)
    for name in CHOICES:
        value = getattr(config, name) or ()
        if len(set(value)) < len(value):
            raise InputError(f"{name} must be a list of different values or None, got {list(value)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
