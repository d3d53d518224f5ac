"""Clips with random draws: random chains and augmented copies, alone and within a wrapped model."""

import copy
import json
import pickle
import re
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from search_cases import tiny_network
from torch import nn
from torch.utils.checkpoint import checkpoint

from image2video import Genotype, Image2Video, VideoWrap
from image2video.clip.frame_sources import register_frame_source
from image2video.clip.random_chain import ChainLaw
from image2video.clip.random_clips import RandomClips
from image2video.data import AugmentedFrames, load_data
from image2video.errors import InputError, InputTypeError, MissingError, StateError, UnsupportedError
from image2video.search import get_space, random_genotype
from image2video.training import TrainConfig, train
from image2video.wrap.clip_record import ClipWarning

CANDIDATES = ("translate_x(0.1)", "rotate(15)", "scale(1.2)")
SIZE = (3, 12, 20)


def images(count=2, seed=0, channels=3):
    return torch.randn(count, channels, *SIZE[1:], generator=torch.Generator().manual_seed(seed))


def random_clips(**options):
    return RandomClips(CANDIDATES, **{"T": 3, **options})


def augmented(policy="trivialaugment", **options):
    return AugmentedFrames(policy, **{"T": 3, "mean": (0.5, 0.4, 0.3), "std": (0.25,), **options})


def backbone(seed=0):
    torch.manual_seed(seed)
    features = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


SOURCES = [random_clips, augmented, lambda **options: augmented("clips:affine5", **options)]
each_source = pytest.mark.parametrize("make", SOURCES, ids=["random_clips", "augmented", "clips of each image"])


def test_the_law_is_that_of_random_genotypes():
    space = get_space("affine5")
    law, count = ChainLaw.of(space), 1500
    mine, theirs = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    drawn = Counter(str(law.draw(mine)) for _ in range(count))
    wanted = Counter(str(random_genotype(space, theirs)) for _ in range(count))
    for chain, expected in wanted.most_common(8):
        assert abs(drawn[chain] - expected) < 6 * (2 * expected) ** 0.5, chain
    lengths = [Counter(len(Genotype.parse(c).chain) for c in found.elements()) for found in (drawn, wanted)]
    for length in range(5):
        assert abs(lengths[0][length] - lengths[1][length]) < 6 * (2 * lengths[1][length]) ** 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomClips(()), "need at least one candidate"),
        (lambda: RandomClips(("spin(3)",)), "unknown op 'spin'"),
        (lambda: random_clips(T=0), "T, the number of frames, must be at least 1, got 0"),
        (lambda: random_clips(schedule="odd"), "unknown schedule 'odd'"),
        (lambda: random_clips(seed=-1), "seed must be an integer of at least 0, got -1"),
        (lambda: RandomClips(("invert(1)",)), "mean"),
        (lambda: ChainLaw(("identity",), nodes=0), "nodes must be an integer of at least 1, got 0"),
        (lambda: RandomClips("affine5"), "a list of candidates, got 'affine5'; get_space(NAME)"),
        (lambda: RandomClips(None), "a list of candidates, got None"),
        (lambda: RandomClips(ChainLaw(("scale(2)",)), T=12), "is singular: at step 10"),
        (lambda: augmented("none"), "frames need a policy"),
        (lambda: augmented("rand"), "unknown augmentation 'rand'"),
        (lambda: augmented(std=(0.0,)), "std"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises((InputError, InputTypeError), match=re.escape(message)):
        make()


@each_source
def test_training_draws_anew_and_evaluation_does_not(make):
    source, x = make(seed=4), images()
    state = torch.get_rng_state()
    drawn = [source(x) for _ in range(6)]
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone
    assert drawn[0].shape == (2, 3, *SIZE)
    assert all(torch.equal(clip[:, 0], x) for clip in drawn)
    assert any(not torch.equal(drawn[0], clip) for clip in drawn[1:])
    again = make(seed=4)
    assert all(torch.equal(again(x), clip) for clip in drawn)
    other = make(seed=5)
    assert any(not torch.equal(other(x), clip) for clip in drawn)
    source.eval()
    fixed = source(x)
    assert source.drawn == 6
    assert torch.equal(source(x), fixed)
    assert torch.equal(source(x[1:]), fixed[1:])  # a prediction depends on its image alone


@each_source
@pytest.mark.parametrize("T", [1, 3])
def test_frames_keep_the_layout_of_the_images(make, T):
    source, x = make(T=T).eval(), images()
    clip = source(x.contiguous(memory_format=torch.channels_last))
    assert clip.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(clip, source(x))


@each_source
def test_copies_and_state_go_on_with_the_same_draws(make):
    source, x = make(seed=1), images()
    source(x)
    twins = [copy.deepcopy(source), pickle.loads(pickle.dumps(source)), make(seed=1)]
    twins[2].load_state_dict(source.state_dict())
    assert source.state_dict()["_extra_state"].item() == 1
    clip = source(x)
    assert all(torch.equal(twin(x), clip) for twin in twins)
    source.load_state_dict({})  # a state without the count leaves it
    assert source.drawn == 2


@each_source
def test_the_number_of_frames_can_change(make):
    source, x = make(), images()
    assert source(x, 5).shape == (2, 5, *SIZE)
    source.set_frames(2)
    assert (source.T, source(x).shape) == (2, (2, 2, *SIZE))
    assert torch.equal(source(x, 1), x[:, None])
    with pytest.raises(InputTypeError, match="must be an integer"):
        source.set_frames(2.0)


def test_a_clip_is_that_of_one_chain_of_the_space():
    source, x = random_clips(schedule="ramp"), images()
    possible = [Image2Video(chain, T=3, schedule="ramp")(x) for chain in CANDIDATES]
    found = set()
    for _ in range(30):
        clip = source(x)
        found.update(i for i, wanted in enumerate(possible) if torch.equal(wanted, clip))
    assert found == {0, 1, 2}
    source.eval()
    assert torch.equal(Image2Video(source.genotype, T=3, schedule="ramp")(x), source(x))


def test_the_schedule_is_that_of_the_space():
    source = RandomClips(get_space("affine5"), T=4)
    assert source.to_dict()["schedule"] == get_space("affine5").schedule
    assert source.law == ChainLaw.of(get_space("affine5"))


def test_photometric_chains_take_mean_and_std():
    source = RandomClips(("invert(1)",), T=2, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    x = images().clamp(-2, 2)
    torch.testing.assert_close(source(x)[:, 1], -x)


def test_augmented_copies_are_pixels_of_the_policy():
    source, x = augmented(), images(4)
    unit = (x * 0.25 + torch.tensor((0.5, 0.4, 0.3)).view(3, 1, 1)).clamp(0, 1)
    x = (unit.mul(255).round() / 255 - torch.tensor((0.5, 0.4, 0.3)).view(3, 1, 1)) / 0.25  # 256 levels, in range
    clip = source(x)
    levels = (clip * 0.25 + torch.tensor((0.5, 0.4, 0.3)).view(3, 1, 1)) * 255
    assert (levels - levels.round()).abs().max() < 1e-2
    copies = clip[:, 1:].flatten(0, 1)
    assert len({copy.sum().item() for copy in copies}) > 4  # every copy is another draw
    assert source.genotype is None


def test_half_precision_and_grey_images():
    clip = augmented(mean=(0.5,), std=(0.25,))(images(channels=1).half())
    assert (clip.dtype, clip.shape) == (torch.float16, (2, 3, 1, *SIZE[1:]))
    with pytest.raises(InputError, match="1 or 3 channels; these have 2"):
        augmented(mean=(0.5,), std=(0.25,))(images(channels=2))
    with pytest.raises(InputTypeError, match="uint8"):
        augmented()(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_gradients_reach_the_image_through_its_own_frame():
    x = images().requires_grad_()
    augmented()(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x))


@each_source
def test_a_wrapped_model_trains_and_evaluates(make):
    model = VideoWrap(backbone(), fusion="none", frames=make()).eval()
    x = images()
    fixed = model(x)
    assert fixed.shape == (2, 4)
    assert torch.equal(model(x), fixed)
    bare = backbone().eval()
    wanted = torch.stack([bare(frames) for frames in model.to_video(x).unbind(1)]).mean(0)
    torch.testing.assert_close(fixed, wanted)
    model.train()
    assert len({model(x).sum().item() for _ in range(6)}) > 1
    model.set_frames(2)
    assert (model.T, model(x, T=4).shape) == (2, (2, 4))
    assert model.eval().to_video.drawn > 0
    torch.testing.assert_close(copy.deepcopy(model)(x), model(x))
    repr(model)


def test_fusions_see_the_drawn_frames():
    model = VideoWrap(backbone(), fusion="tsm", frames=random_clips(), input_size=SIZE)
    replica = VideoWrap(backbone(), fusion="tsm", genotype="identity", T=3, input_size=SIZE)
    x = images()
    assert not torch.allclose(model.eval()(x), replica.eval()(x))
    model.train()(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_maps_are_unwarped_by_the_chain_of_their_own_batch():
    model = VideoWrap(nn.Identity(), fusion="none", frames=random_clips(padding="border")).train()
    x = torch.full((2, *SIZE), 3.0)
    for _ in range(4):
        torch.testing.assert_close(model(x), x)
    smooth = torch.linspace(-1, 1, SIZE[2]).expand(2, *SIZE)
    assert (model(smooth) - smooth).abs().mean() < 0.03  # the mean of the frames themselves is off by 0.1 and more
    with pytest.raises(UnsupportedError, match="maps of frames by RandomClips"):
        model.to_video.unwarped_mean(torch.zeros(6, 3, 4, 4), SIZE[1:])
    model.eval()
    assert model.to_video.unwarped_mean(torch.ones(6, 3, 4, 4), SIZE[1:]).shape == (2, 3, 4, 4)


def test_maps_of_augmented_copies_are_refused():
    model = VideoWrap(nn.Identity(), fusion="none", frames=augmented())
    with pytest.raises(UnsupportedError, match=re.escape("maps of frames by AugmentedFrames cannot be brought back")):
        model(images())
    model.aggregate = "mean"
    assert model(images()).shape == (2, *SIZE)


def test_frames_and_a_genotype_exclude_each_other():
    for options in (
        {"genotype": "identity"},
        {"T": 3},
        {"schedule": "ramp"},
        {"mean": torch.zeros(3), "std": 1.0},
        {"mean": np.zeros(3), "std": np.ones(3)},
    ):
        with pytest.raises(InputError, match=f"makes the clips itself; give it {next(iter(options))}"):
            VideoWrap(backbone(), fusion="none", frames=random_clips(), **options)
    with pytest.raises(InputTypeError, match="frames must be a FrameSource such as RandomClips, got str"):
        VideoWrap(backbone(), fusion="none", frames="randaugment")


@each_source
def test_saved_models_come_back(make, tmp_path):
    model = VideoWrap(backbone(), fusion="none", frames=make(seed=7)).train()
    model(images())
    model.set_frames(4)
    model.save_pretrained(tmp_path)
    again = VideoWrap.from_pretrained(tmp_path, backbone(seed=1))
    assert again.to_video.to_dict() == model.to_video.to_dict()
    assert type(again.to_video) is type(model.to_video)
    assert (again.T, again.to_video.drawn) == (4, 1)
    x = images()
    assert torch.equal(again(x), model.eval()(x))
    assert torch.equal(again.train()(x), model.train()(x))


def test_unknown_sources_in_a_config_are_named(tmp_path):
    VideoWrap(backbone(), fusion="none", frames=random_clips()).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["frames"]["kind"] = "mixup"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingError, match="made by 'mixup', known here: augmented_frames, random_clips"):
        VideoWrap.from_pretrained(tmp_path, backbone())
    config["frames"] = {**config["frames"], "kind": "random_clips", "speed": 2}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="the record of 'random_clips' frames does not fit this version"):
        VideoWrap.from_pretrained(tmp_path, backbone())


def test_kinds_are_taken_once():
    class Other(RandomClips):
        kind = "random_clips"

    assert register_frame_source(RandomClips) is RandomClips
    with pytest.raises(InputError, match="another frame source is registered as 'random_clips'"):
        register_frame_source(Other)


def test_weights_move_between_kinds_of_clips():
    drawn = VideoWrap(backbone(), fusion="none", frames=random_clips()).train()
    drawn(images())
    chosen = VideoWrap(backbone(seed=3), fusion="none", genotype="rotate(5)")
    with pytest.warns(ClipWarning, match=r"frames=None \(genotype='rotate\(5\)'\), the checkpoint has \{'kind'"):
        chosen.load_state_dict(drawn.state_dict())
    other = VideoWrap(backbone(seed=4), fusion="none", frames=random_clips())
    with pytest.warns(ClipWarning, match=r"frames=\{'kind'.*, the checkpoint has None \(genotype='rotate\(5\)'\)"):
        other.load_state_dict(chosen.state_dict())
    assert other.to_video.drawn == 0
    bare = VideoWrap(backbone(seed=5), fusion="none", frames=random_clips())
    bare.load_state_dict(chosen.backbone.state_dict())
    for model in (chosen, other, bare):
        assert torch.equal(model.backbone[5].weight, drawn.backbone[5].weight)


@each_source
def test_training_is_resumed_exactly(make, tmp_path):
    data = load_data("digits", train_images=40, holdout=0.25)
    config = TrainConfig(epochs=2, batch_size=16, device="cpu", lr=0.05, ema=0.9)
    frames = {"mean": data.mean, "std": data.std}

    def model(seed=0):
        return VideoWrap(tiny_network(classes=10, seed=seed), fusion="none", frames=make(**frames))

    def interrupt(stage, done, total, **figures):
        if stage == "train" and done == 3:
            raise KeyboardInterrupt

    whole = model()
    train(whole, data, config)
    with pytest.raises(KeyboardInterrupt):
        train(model(), data, config, out=tmp_path / "run", progress=interrupt)
    resumed = model(seed=8)
    train(resumed, data, config, out=tmp_path / "run", resume=True)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_checkpoint_around_the_whole_model_is_refused():
    model = VideoWrap(backbone(), fusion="none", frames=random_clips())
    for reentrant, x in ((False, images()), (True, images().requires_grad_())):
        loss = checkpoint(model, x, use_reentrant=reentrant).sum()
        with pytest.raises(StateError, match="RandomClips would draw other frames"):
            loss.backward()
    fixed = model.eval()
    checkpoint(fixed, images(), use_reentrant=False).sum().backward()  # evaluation has one clip


def test_compiled_models_draw_outside_the_graph():
    torch.compiler.reset()
    model = VideoWrap(backbone(), fusion="none", frames=random_clips())
    twin = copy.deepcopy(model)
    compiled = torch.compile(model, backend="eager")
    for _ in range(3):
        torch.testing.assert_close(compiled(images()), twin(images()))
    assert model.to_video.drawn == 3


@pytest.mark.parametrize("make", [random_clips, augmented], ids=lambda make: make.__name__)
def test_threads_draw_clips_of_their_own_and_all_of_them_are_the_serial_ones(make):
    """Every number of a batch is taken once, and another thread's draws (dropout) change none."""
    batch, count, threads = images(1), 48, 4
    source = make()
    serial = Counter(source(batch).numpy().tobytes() for _ in range(count))
    source = make()
    stop = threading.Event()

    def dropout():
        while not stop.is_set():
            torch.rand(3)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(threads + 1) as pool:
            other = pool.submit(dropout)
            clips = list(pool.map(lambda _: source(batch).numpy().tobytes(), range(count)))
            stop.set()
            other.result()
    finally:
        sys.setswitchinterval(before)
    assert source.drawn == count
    assert Counter(clips) == serial
