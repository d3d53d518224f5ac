"""`greedy_frames`: a set of frames for a trained classifier, from one prediction of every candidate frame."""

import json
from collections.abc import Callable

import pytest
import torch
from digit_networks import TRAINED_ON, digits, network
from search_cases import Arrays, blobs, tiny_network
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from image2video import Genotype, VideoWrap
from image2video.clip.frame_set import FrameSet
from image2video.clip.sampling import warp
from image2video.clip.slices import mirror
from image2video.errors import InputError, InputTypeError, StateError
from image2video.search import FrameChoice, candidate_frames, get_space, greedy_frames
from image2video.search.rank import frame_cache
from image2video.search.rank.candidates import frames_key
from image2video.search.score.task import SegmentationTask

CHAINS = ["translate_x(0.1)", "scale(1.2)", "flip_x", "rotate(15)", "scale(1.2) > flip_x"]


def found(**options: object) -> FrameChoice:
    """A choice for a small network on 90 images, 60 of which choose."""
    return greedy_frames(tiny_network(seed=3), blobs(90, 1), **{"candidates": CHAINS, "T": 4, "seed": 5, **options})


def order_of(data: Arrays, seed: int) -> Tensor:
    """The order in which the images of a set come."""
    return torch.randperm(data.num_images, generator=torch.Generator().manual_seed(seed))


def frame(images: Tensor, chain: Genotype, padding: str = "reflection") -> Tensor:
    """A frame by hand."""
    matrix = chain.step_matrices((1.0,), *images.shape[-2:])
    axes = chain.mirrored(1.0)
    return mirror(images, axes) if axes is not None else warp(images, matrix, padding=padding)[:, 0]


class Counted(nn.Module):
    """A network that counts what goes through it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.rows = model, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.model(x)


@pytest.mark.parametrize("aggregate", ["mean", "mean_prob"])
@pytest.mark.parametrize("padding", ["zeros", "reflection"])
def test_scores_are_those_of_the_frames_averaged_by_hand(aggregate: str, padding: str) -> None:
    model, data = tiny_network(seed=3).eval(), blobs(90, 1)
    choice = found(aggregate=aggregate, padding=padding)
    images, labels = data.images[order_of(data, 5)], data.labels[order_of(data, 5)]
    assert len(choice.points) > 1
    for point in choice.points:
        with torch.no_grad():
            logits = torch.stack([model(frame(images, chain, padding)) for chain in point.frames.frames])
            bare = model(images)
        mean = logits.mean(0) if aggregate == "mean" else logits.softmax(-1).mean(0).log()
        for scores, rows in ((point.choosing, slice(0, 60)), (point.judging, slice(60, 90))):
            z, y = mean[rows], labels[rows]
            assert scores.images == len(y)
            assert scores.accuracy == pytest.approx((z.argmax(1) == y).double().mean().item())
            assert scores.loss == pytest.approx(cross_entropy(z, y).item(), abs=1e-5)
            assert scores.calibrated_loss == pytest.approx(cross_entropy(z / point.temperature, y).item(), abs=1e-4)
            gains = (z.argmax(1) == y).double() - (bare[rows].argmax(1) == y).double()
            assert scores.gain == pytest.approx(gains.mean().item())
            assert scores.gain_error == pytest.approx(gains.std(correction=0).item() / len(y) ** 0.5, abs=1e-6)
    assert choice.estimate.gain == pytest.approx(choice.best_point.judging.gain)
    assert choice.estimate.loss == pytest.approx(choice.best_point.judging.loss)
    assert choice.estimate.scaled_loss is not None


def test_every_frame_is_predicted_once_and_judges_see_only_what_is_in_a_set() -> None:
    model = Counted(tiny_network(seed=3))
    # The third one gives the same frame as the second one.
    chains = [*CHAINS, "flip_x > scale(1.2)", "translate_y(0.1)"]
    choice = greedy_frames(model, blobs(90, 1), candidates=chains, T=3, seed=5, batch_size=7)
    used = {chain for point in choice.points for chain in point.frames.frames}
    assert choice.candidates == 7
    assert 1 < len(used) < 7
    assert model.rows == choice.evaluated == 7 * 60 + len(used) * 30


def test_what_judges_does_not_choose() -> None:
    data = blobs(90, 1)
    judges = order_of(data, 5)[60:]
    images, labels = data.images.clone(), data.labels.clone()
    images[judges] = torch.randn(30, *images.shape[1:], generator=torch.Generator().manual_seed(9))
    labels[judges] = 2
    first = found()
    other = greedy_frames(tiny_network(seed=3), Arrays(images, labels), candidates=CHAINS, T=4, seed=5)
    assert other.best == first.best
    assert [(p.frames, p.temperature, p.choosing) for p in other.points] == [
        (p.frames, p.temperature, p.choosing) for p in first.points
    ]
    assert [p.judging for p in other.points] != [p.judging for p in first.points]
    assert found(judge=0).points[0].judging is None


def test_equal_runs_are_equal_to_the_byte() -> None:
    first, second = found(), found()
    assert json.dumps(first.to_dict()) == json.dumps(second.to_dict())
    assert first.best.to_json() == second.best.to_json()
    # Another batch size sums in another order, and chooses the same.
    assert found(batch_size=50).best == first.best
    assert found(seed=6).to_dict() != first.to_dict()


def test_records_and_provenance_say_how_it_was_found() -> None:
    choice = found(provenance={"dataset": "blobs"})
    record = json.loads(json.dumps(choice.to_dict()))
    again = FrameChoice.from_dict(record, choice.seconds)
    assert again.points == choice.points
    assert again.sentence() == choice.sentence()
    assert again.to_dict() == record
    known = choice.best.provenance
    assert (known["dataset"], known["selection"], known["criterion"]) == ("blobs", "greedy_frames", "calibrated")
    assert (known["T"], known["schedule"], known["padding"]) == (choice.best.T, "from_zero", "reflection")
    assert known["estimate"] == choice.estimate.to_dict()
    assert FrameSet.from_json(choice.best.to_json()).provenance == known
    options = choice.wrap_options()
    assert options["genotype"] is choice.best
    assert options["T"] == len(choice.best.frames)
    assert options["aggregate"] == choice.best_point.aggregate


@pytest.mark.parametrize("aggregate", ["mean", "mean_prob"])
def test_a_wrapper_predicts_what_was_judged(aggregate: str) -> None:
    images, labels = (part[TRAINED_ON : TRAINED_ON + 60] for part in digits())
    tilted = frame(images, Genotype.parse("rotate(20)"), "border")
    options = {"candidates": ["rotate(-20)", "rotate(-25)"], "padding": "border", "aggregate": aggregate}
    choice = greedy_frames(network(0), [(tilted, labels)], **options)
    assert choice.best.T > 1
    rows = order_of(Arrays(tilted, labels), 0)[40:]
    wrapper = VideoWrap(network(0), "none", **choice.wrap_options(), input_size=(1, 16, 16)).eval()
    with torch.no_grad():
        logits = wrapper(tilted[rows])
    assert choice.estimate.accuracy == (logits.argmax(1) == labels[rows]).double().mean().item()
    assert choice.estimate.loss == pytest.approx(cross_entropy(logits, labels[rows]).item(), abs=1e-5)


def test_the_curve_starts_with_the_image_and_grows_by_one_frame() -> None:
    choice = found()
    assert [point.T for point in choice.curve] == list(range(1, len(choice.curve) + 1))
    assert choice.curve[0].frames == FrameSet.parse("identity |")
    assert choice.curve[0].judging.gain == 0
    for before, after in zip(choice.curve, choice.curve[1:], strict=False):
        assert after.frames.frames[:-1] == before.frames.frames
        assert after.choosing.calibrated_loss < before.choosing.calibrated_loss
    assert {point.aggregate for point in choice.points} == {"mean", "mean_prob"}
    assert found(max_cost=1).best.T == 1
    assert len(found(max_cost=1).curve) == len(choice.curve)


def test_the_model_and_its_modes_stay() -> None:
    model = tiny_network()
    model[1].eval()
    modes = [module.training for module in model.modules()]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    greedy_frames(model, blobs(40, 0), candidates=CHAINS, T=2)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_tilted_camera_is_turned_back() -> None:
    """Digits tilted by 20°, and a network that learned upright ones."""
    images, labels = (part[TRAINED_ON : TRAINED_ON + 150] for part in digits())
    tilted = frame(images, Genotype.parse("rotate(20)"), "border")
    options = {"space": "pose", "count": 35, "padding": "border", "T": 3, "seed": 1}
    choice = greedy_frames(network(0), [(tilted, labels)], **options)
    turned = [chain.chain[0].magnitude for chain in choice.best.frames if chain.chain]
    assert turned
    assert all(chain.chain[0].op == "rotate" for chain in choice.best.frames if chain.chain)
    assert all(-30 <= angle <= -10 for angle in turned)
    assert choice.decided
    assert choice.estimate.bare_accuracy < 0.85
    assert choice.estimate.accuracy > 0.9
    assert "better than the image itself" in choice.sentence()
    # One turned frame is all that is needed, where the image itself may be left out.
    options["candidates"] = ["rotate(20)", "rotate(-20)", "scale(1.2)"]
    single = greedy_frames(network(0), [(tilted, labels)], start="best", max_cost=1, **options)
    assert str(single.best) == "rotate(-20) |"
    assert single.estimate.accuracy > 0.9


def test_nothing_found_is_said() -> None:
    class Sure(nn.Module):
        """Right on the image itself, whose corner tells the class; every other frame says nothing."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.one_hot((x[:, 0, 0, 0] * 3).long().clamp(0, 2), 3).float() * 3

    images = torch.rand(60, 1, 12, 16, generator=torch.Generator().manual_seed(0))
    labels = (images[:, 0, 0, 0] * 3).long()
    choice = greedy_frames(Sure(), Arrays(images, labels), candidates=["flip_x", "flip_y"])
    assert choice.found_nothing
    assert not choice.decided
    assert "the image is kept as it is" in choice.sentence()


def test_without_judges_the_sentence_says_what_chose() -> None:
    images, labels = (part[TRAINED_ON : TRAINED_ON + 60] for part in digits())
    tilted = frame(images, Genotype.parse("rotate(20)"), "border")
    options = {"candidates": ["rotate(-20)"], "padding": "border"}
    choice = greedy_frames(network(0), [(tilted, labels)], judge=0, **options)
    assert choice.estimate is None
    assert choice.decided
    assert "which also chose it" in choice.sentence()


def test_colours_may_be_among_the_frames() -> None:
    data = blobs(60, 1)
    chains = ["invert(1)", "flip_x > brightness(1.2)"]
    with pytest.raises(InputError, match="say how the images are normalised"):
        greedy_frames(tiny_network(), data, candidates=chains)
    choice = greedy_frames(tiny_network(), data, candidates=chains, mean=0.5, std=0.25, judge=0)
    assert choice.candidates == 3


def test_images_without_a_label_are_left_out() -> None:
    data = blobs(90, 1)
    labels = data.labels.clone()
    labels[:30] = -100
    choice = greedy_frames(tiny_network(seed=3), Arrays(data.images, labels), candidates=CHAINS, T=3)
    assert choice.images + choice.estimate.images == 60
    with pytest.raises(InputError, match="none of the 60 held-out images has a label"):
        greedy_frames(tiny_network(), Arrays(data.images, torch.full((90,), -100)), candidates=CHAINS)


def test_predictions_beyond_the_memory_are_refused_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Counted(tiny_network())
    monkeypatch.setattr(frame_cache, "machine_memory", lambda: 8_000)
    message = (
        r"6 frames for 60 images of 3 classes would take 4.32 kB, and half .* is 4 kB; lower count .*: 55 images fit"
    )
    with pytest.raises(InputError, match=message):
        greedy_frames(model, blobs(90, 1), candidates=CHAINS, batch_size=8)
    assert model.rows <= 8


def nan_network() -> nn.Module:
    model = tiny_network()
    with torch.no_grad():
        model[-1].bias[1] = float("nan")
    return model


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 0}, "T, the number of frames, must be at least 1"),
        ({"T": 257}, "at most 256 frames, got T=257"),
        ({"criterion": "loss"}, "unknown criterion 'loss'; choose one of calibrated, accuracy"),
        ({"start": "none"}, "unknown start 'none'; choose one of identity, best"),
        ({"aggregate": "first"}, "unknown aggregate 'first'; choose one of mean, mean_prob"),
        ({"aggregate": ()}, "aggregate must be one value or several different ones"),
        ({"max_cost": 0.5}, "max_cost=0.5 frames leaves no set; the smallest has 1 frame"),
        ({"judge": 1}, "judge must be a share of the images"),
        ({"candidates": []}, "candidates is empty"),
        ({"candidates": None, "count": 0}, "number of candidates must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_images": 0}, "max_images must be at least 1"),
        ({"padding": "mirror"}, "unknown padding 'mirror'"),
        ({"space": "nowhere", "candidates": None}, "unknown search space 'nowhere'"),
        ({"task": SegmentationTask(2)}, r"the task is segmentation; rank_genotypes .* ranks clips for any task"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        found(**options)


@pytest.mark.parametrize(
    ("model", "labels", "error", "message"),
    [
        (tiny_network, torch.full((20,), 3), InputError, r"labels must be classes of the network, 0 … 2, got 3 … 3"),
        (tiny_network, torch.rand(20, 3), InputError, r"one class index per image, got labels of shape \(5, 3\)"),
        (nan_network, torch.zeros(20).long(), InputError, r"of 5 images are NaN or infinite for the frame identity"),
        (
            lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 1)),
            torch.zeros(20).long(),
            InputError,
            r"returned 1 logit per frame",
        ),
        (lambda: VideoWrap(tiny_network(), "none"), torch.zeros(20).long(), StateError, "the model is a VideoWrap"),
    ],
)
def test_networks_and_labels_that_do_not_fit(
    model: Callable[[], nn.Module], labels: Tensor, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        greedy_frames(model(), Arrays(torch.rand(20, 1, 12, 16), labels), candidates=CHAINS, batch_size=20)


def test_images_that_are_no_floats_are_refused() -> None:
    data = Arrays(torch.zeros(20, 1, 12, 16, dtype=torch.uint8), torch.zeros(20).long())
    with pytest.raises(InputTypeError, match="images must be float"):
        greedy_frames(tiny_network(), data, candidates=CHAINS)


def test_progress_is_told() -> None:
    stages: dict[str, list[tuple[int, int]]] = {}
    found(progress=lambda stage, done, total, **_: stages.setdefault(stage, []).append((done, total)))
    assert list(stages) == ["frames", "choose", "judge"]
    assert stages["frames"][-1] == (60, 60)
    assert stages["judge"][-1] == (30, 30)
    for steps in stages.values():
        assert all(0 < done <= total for done, total in steps)
        assert steps == sorted(steps)


@pytest.mark.parametrize("name", ["pose", "gentle"])
def test_candidates_are_single_steps_their_mirror_images_and_random_chains(name: str) -> None:
    space = get_space(name)
    frames = candidate_frames(space, 100, seed=0)
    texts = [str(chain) for chain in frames]
    assert texts[: len(space.candidates)] == ["identity", *(t for t in space.labels if t != "identity")]
    assert {"rotate(5) > flip_x", "rotate(-5) > flip_x", "scale(1.2) > flip_x", "flip_y > flip_x"} <= set(texts)
    assert len(frames) == len({frames_key(chain, (1.0,)) for chain in frames}) == 100
    assert candidate_frames(space, 100, seed=0) == frames
    assert candidate_frames(space, 100, seed=1) != frames
    few = candidate_frames(space, 10, seed=0)
    assert len(few) == 10
    assert few[0] == Genotype.identity()
    assert {str(chain) for chain in few} <= set(space.labels)
