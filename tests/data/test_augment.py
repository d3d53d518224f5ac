"""Policies as texts, their draws, and the batches of image sets that they augment."""

import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from search_cases import blobs, tiny_network
from torchvision.transforms import v2

from image2video.cli.app import main
from image2video.clip.chain import apply_chain
from image2video.clip.options import ClipOptions
from image2video.data import (
    Augmentation,
    AutoAugment,
    Clips,
    CropFlip,
    DataSource,
    MemorySet,
    RandAugment,
    TrivialAugment,
    UniformAugment,
    load_data,
)
from image2video.data.augment import FAMILIES
from image2video.data.augment_apply import apply_each
from image2video.data.random_frame import RandomFrame
from image2video.data.uniform_augment import UNIFORM_OPS, draw_uniform
from image2video.errors import InputError, InputTypeError
from image2video.search import SearchSpace, get_space
from image2video.search.space.known_spaces import KNOWN_SPACES
from image2video.training import TrainConfig, train

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
PIXEL_POLICIES = ("autoaugment:svhn", "randaugment", "trivialaugment", "trivialaugment:wide=false", "uniformaugment")

policies = st.one_of(
    st.builds(AutoAugment, st.sampled_from(("imagenet", "cifar10", "svhn"))),
    st.builds(RandAugment, st.integers(1, 10), st.integers(0, 30)),
    st.builds(TrivialAugment, st.booleans()),
    st.builds(UniformAugment, st.integers(1, 10)),
    st.builds(Clips, st.sampled_from(("affine5", "gentle", "my/space.yaml")), st.integers(2, 20)),
)


def pixels(count=1, channels=3, height=12, width=20, seed=0):
    shape = (count, channels, height, width)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def memory(policy, count=24, channels=3, augment=None):
    labels = torch.arange(count) % 3
    return MemorySet(
        pixels(count, channels),
        labels,
        mean=MEAN[:channels],
        std=STD[:channels],
        augment=augment,
        policy=Augmentation.coerce(policy),
    )


def epoch_of(part, epoch=0, **options):
    batches = part.batches(options.pop("batch_size", 10), augment=True, shuffle=True, **options)
    return torch.cat([images for images, _ in batches.epoch(epoch)])


@given(policies)
def test_a_policy_is_its_text(policy):
    assert Augmentation.parse(str(policy)) == policy
    assert str(Augmentation.parse(str(policy))) == str(policy)


@pytest.mark.parametrize(
    ("short", "full"),
    [
        ("autoaugment", "autoaugment:imagenet"),
        ("autoaugment:policy=svhn", "autoaugment:svhn"),
        ("randaugment:5", "randaugment:ops=5,magnitude=9"),
        ("randaugment:magnitude=3", "randaugment:ops=2,magnitude=3"),
        ("trivialaugment", "trivialaugment:wide=true"),
        ("uniformaugment", "uniformaugment:ops=2"),
        ("clips:affine5", "clips:affine5,frames=5"),
        ("clips:frames=3,space=gentle", "clips:gentle,frames=3"),
    ],
)
def test_short_texts(short, full):
    assert str(Augmentation.parse(short)) == full


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unknown augmentation ''; known: autoaugment, randaugment, trivialaugment, uniformaugment, clips"),
        ("randaugmnt", "did you mean 'randaugment'?"),
        ("RandAugment", "unknown augmentation 'RandAugment'"),
        ("randaugment:", "randaugment:': ops must be a whole number, got ''"),
        ("randaugment:ops=two", "ops must be a whole number, got 'two'"),
        ("randaugment:ops=-1", "ops must be a whole number, got '-1'"),
        ("randaugment:ops=1.0", "ops must be a whole number, got '1.0'"),
        ("randaugment:ops=0", "randaugment: ops must be 1 … 10, got 0"),
        ("randaugment:magnitude=31", "randaugment: magnitude must be 0 … 30, got 31"),
        ("randaugment:ops=1,ops=2", "gives ops twice"),
        ("randaugment:ops=1,9", "randaugment has no option '9'; its options are ops=…, magnitude=…"),
        ("randaugment:n=2", "randaugment has no option 'n=2'"),
        ("autoaugment:cifar100", "policy must be one of imagenet, cifar10, svhn, got 'cifar100'"),
        ("trivialaugment:wide=yes", "wide must be true or false, got 'yes'"),
        ("clips", "must say space, as in clips:affine5,frames=3"),
        ("clips:", "clips:SPACE needs the name of a search space"),
        ("clips:affine5,frames=1", "clips: frames must be 2 … 1000, got 1"),
    ],
)
def test_wrong_texts_say_what_is_wrong(text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Augmentation.parse(text)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Augmentation.parse(3),
        lambda: RandAugment(ops=True),
        lambda: RandAugment(magnitude=2.0),
        lambda: TrivialAugment(wide="true"),
    ],
)
def test_wrong_types_are_refused(make):
    with pytest.raises(InputTypeError):
        make()


def test_wrong_values_are_refused_in_python_too():
    with pytest.raises(InputError, match="policy must be one of"):
        AutoAugment("cifar100")
    with pytest.raises(InputError, match="unknown search space 'nowhere'"):
        Clips("nowhere").build(MEAN, STD)


@pytest.mark.parametrize("family", FAMILIES)
def test_grids_hold_different_policies_of_the_family(family):
    grid = FAMILIES[family].grid()
    assert len(grid) == len(set(grid)) >= 2
    assert {policy.family for policy in grid} == {family}


def test_the_grid_of_randaugment_is_ops_times_magnitudes():
    grid = RandAugment.grid()
    assert {policy.ops for policy in grid} == {1, 2, 3}
    assert (min(policy.magnitude for policy in grid), max(policy.magnitude for policy in grid)) == (3, 15)
    assert len(grid) == 15


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("autoaugment:cifar10", v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)),
        ("autoaugment", v2.AutoAugment()),
        ("randaugment", v2.RandAugment()),
        ("randaugment:ops=3,magnitude=14", v2.RandAugment(3, 14)),
        ("trivialaugment", v2.TrivialAugmentWide()),
    ],
)
def test_policies_are_those_of_torchvision(text, same):
    apply = Augmentation.parse(text).build(MEAN, STD)
    changed = 0
    for seed in range(12):
        image = pixels(seed=seed)[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            wanted = same(image)
            torch.manual_seed(seed)
            assert torch.equal(apply(image), wanted)
        changed += not torch.equal(wanted, image)
    assert changed >= 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("text", PIXEL_POLICIES)
def test_pixels_stay_pixels_in_grey_and_in_colour(text, channels):
    images = pixels(30, channels)
    augmented = apply_each(Augmentation.parse(text).build(MEAN, STD), images, torch.arange(30))
    assert (augmented.shape, augmented.dtype) == (images.shape, torch.uint8)
    assert sum(not torch.equal(a, b) for a, b in zip(augmented, images, strict=True)) > 10


def test_two_channels_are_refused():
    with pytest.raises(InputError, match="randaugment works on images of 1 or 3 channels; these have 2"):
        memory("randaugment", channels=2)


@pytest.mark.parametrize("op", UNIFORM_OPS, ids=lambda op: op.name)
@pytest.mark.parametrize("channels", [1, 3])
def test_every_op_of_uniformaugment_works_over_its_range(op, channels):
    image = pixels(channels=channels)[0]
    for place in (0.0, 0.3, 1.0):
        out = op.apply(image, op.low + place * (op.high - op.low))
        assert (out.shape, out.dtype) == (image.shape, torch.uint8)


def test_ranges_of_uniformaugment_hold_no_change():
    neutral = {"shear_x": 0, "shear_y": 0, "translate_x": 0, "translate_y": 0, "rotate": 0, "solarize": 255}
    neutral |= {"posterize": 8, "contrast": 1, "color": 1, "brightness": 1, "sharpness": 1, "cutout": 0}
    image = (pixels()[0] // 2 + 40).clamp(max=254)  # solarize inverts what reaches its threshold
    tried = 0
    for op in UNIFORM_OPS:
        if op.name in neutral:
            assert op.low <= neutral[op.name] <= op.high
            assert torch.equal(op.apply(image, neutral[op.name]), image), op.name
            tried += 1
    assert tried == 12


def test_the_draws_of_uniformaugment_are_uniform():
    count = 6000
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = [draw_uniform() for _ in range(count)]
    share = count / len(UNIFORM_OPS)
    for op in UNIFORM_OPS:
        mine = [draw for draw in draws if draw.op is op]
        assert abs(len(mine) - share) < 5 * share**0.5
        places = torch.tensor([(draw.magnitude - op.low) / (op.high - op.low) for draw in mine])
        assert places.min() >= 0
        assert places.max() <= 1
        assert abs(places.mean() - 0.5) < 5 * (1 / 12 / len(mine)) ** 0.5
    applied = sum(draw.applied for draw in draws) / count  # a uniform probability: one in two on average
    assert abs(applied - 0.5) < 5 * 0.5 / count**0.5


def test_batches_depend_on_seed_and_epoch_alone():
    for policy in (*PIXEL_POLICIES, "clips:affine5"):
        part = memory(policy, augment=CropFlip(pad=1))
        state = torch.get_rng_state()
        first = epoch_of(part, 2, seed=3)
        assert torch.equal(torch.get_rng_state(), state)
        torch.rand(5)
        assert torch.equal(epoch_of(part, 2, seed=3), first)
        assert torch.equal(epoch_of(part, 2, seed=3, batch_size=24), first)
        assert not torch.equal(epoch_of(part, 3, seed=3), first)
        assert not torch.equal(epoch_of(part, 2, seed=4), first)


def test_shards_hold_the_images_of_the_whole():
    part = memory("randaugment")
    options = {"augment": True, "shuffle": True, "seed": 1}
    whole = list(part.batches(8, **options).epoch(0))
    second = list(part.batches(8, shard=(1, 2), **options).epoch(0))
    for (images, _), (mine, _) in zip(whole, second, strict=True):
        assert torch.equal(images[1::2], mine)


def test_a_policy_acts_on_crops_and_changes_nothing_else():
    plain, augmented = memory(None, augment=CropFlip(pad=2)), memory("uniformaugment:ops=1", augment=CropFlip(pad=2))
    before, after = epoch_of(plain), epoch_of(augmented)
    same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert 0 < sum(same) < len(same)  # about one in two is left alone, and those are the very crops
    bare = torch.cat([images for images, _ in augmented.batches(10).epoch(0)])
    assert torch.equal(bare, torch.cat([images for images, _ in memory(None).batches(10).epoch(0)]))


def test_subsets_keep_the_policy():
    part = memory("randaugment")
    assert {str(part.policy)} == {str(p.policy) for p in (*part.split(0.5, seed=0), part.take(6, seed=0))}
    assert part.with_policy(None).policy is None


def test_labels_of_pixels_take_no_policy():
    with pytest.raises(InputError, match="moves images, not labels of pixels"):
        MemorySet(pixels(2), torch.zeros(2, 12, 20, dtype=torch.uint8), mean=MEAN, std=STD, policy=RandAugment())


def test_random_frames_are_frames_of_the_space():
    space = SearchSpace("two", ("translate_x(0.1)", "rotate(20)"), nodes=1)
    apply = RandomFrame(space, 3, MEAN, STD)
    image = torch.randn(3, 12, 20, generator=torch.Generator().manual_seed(1))
    possible = [image] + [
        apply_chain(image[None, None], chain, [step], ClipOptions(mean=MEAN, std=STD))[0, 0]
        for chain in space.candidates
        for step in (1.0, 2.0)
    ]
    found = set()
    for row in apply_each(apply, image.expand(60, -1, -1, -1), torch.arange(60)):
        matches = [i for i, frame in enumerate(possible) if torch.equal(frame, row)]
        assert len(matches) == 1
        found.update(matches)
    assert found == set(range(5))


@pytest.mark.parametrize("space", ["affine5", "autoaugment13"])
def test_random_frames_of_many_images_are_those_of_one_at_a_time(space):
    apply = Clips(space).build(MEAN, STD)
    images = torch.randn(20, 3, 12, 20, generator=torch.Generator().manual_seed(2))
    together = apply_each(apply, images, torch.arange(20))
    for seed, (image, frame) in enumerate(zip(images, together, strict=True)):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            torch.testing.assert_close(apply(image), frame)


def test_random_frames_may_be_photometric():
    images = epoch_of(memory("clips:autoaugment13", count=12))
    assert images.shape == (12, 3, 12, 20)
    assert images.isfinite().all()


def test_data_sources_name_their_policy():
    data = load_data("digits", train_images=60, augment="randaugment:ops=1")
    assert data.describe()["augment"] == "randaugment:ops=1,magnitude=9"
    assert data.with_policy(None).policy is None
    assert "augment" not in data.with_policy(None).describe()
    assert load_data("digits", train_images=60, augment="none").policy is None
    assert not torch.equal(epoch_of(data.train), epoch_of(data.with_policy(None).train))


def test_sets_of_others_take_no_policy():
    part = blobs(12, seed=0)
    data = DataSource("mine", part, None, part, ("a", "b", "c"), (1, 12, 16), (0.0,), (1.0,))
    assert data.policy is None
    with pytest.raises(InputTypeError, match="Arrays takes no policy"):
        data.with_policy(RandAugment())


def test_training_with_a_policy_is_resumed_exactly(tmp_path):
    data = load_data("digits", train_images=60, holdout=0.2, augment="trivialaugment")
    config = TrainConfig(epochs=3, batch_size=16, device="cpu", lr=0.05)
    whole = tiny_network(classes=10)
    train(whole, data, config)

    def interrupt(stage, done, total, **figures):
        if stage == "train" and done == 5:
            raise KeyboardInterrupt

    parted = tiny_network(classes=10)
    with pytest.raises(KeyboardInterrupt):
        train(parted, data, config, out=tmp_path / "run", progress=interrupt)
    parted = tiny_network(classes=10, seed=9)
    train(parted, data, config, out=tmp_path / "run", resume=True)
    for (name, a), b in zip(whole.state_dict().items(), parted.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    with pytest.raises(InputError, match=re.escape("augment: 'trivialaugment:wide=true' then, None now")):
        train(parted, data.with_policy(None), config, out=tmp_path / "run", resume=True)


def test_a_policy_needs_the_augmentation_of_training():
    data = load_data("digits", train_images=60, augment="randaugment")
    with pytest.raises(InputError, match="crop_flip=False"):
        train(tiny_network(classes=10), data, TrainConfig(epochs=1, device="cpu", crop_flip=False))


def test_every_registered_space_can_be_clips():
    assert get_space("affine5").schedule == "from_zero"
    assert {policy.space for policy in Clips.grid()} == {space["name"] for space in KNOWN_SPACES}
    for policy in Clips.grid():
        policy.build(MEAN, STD)


def test_policies_and_drawn_frames_are_trained_with_from_the_command_line(tmp_path, capsys):
    common = ["--train-images", "40", "--device", "cpu", "--epochs", "1", "--out", str(tmp_path / "t")]
    assert main(["train", "--augment", "trivialaugment", "--genotype", "none", *common]) == 0
    assert main(["train", "--frame-source", "clips:affine5,frames=2", *common, "--overwrite"]) == 0
    config = json.loads((tmp_path / "t" / "pretrained" / "config.json").read_text())
    assert (config["frames"]["kind"], config["frames"]["T"], config["genotype"]) == ("random_clips", 2, None)
    assert main(["evaluate", "--weights", str(tmp_path / "t" / "pretrained"), "--device", "cpu"]) == 0
    assert main(["train", "--frame-source", "randaugment", "--genotype", "identity", *common, "--overwrite"]) == 2
    assert "--frame-source makes the frames itself; leave out --genotype" in capsys.readouterr().err


@pytest.mark.parametrize("text", PIXEL_POLICIES)
def test_draws_are_those_after_manual_seed_and_leave_the_global_generator_alone(text):
    policy = Augmentation.parse(text).build(MEAN, STD)
    pixels = torch.randint(256, (12, 3, 12, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    seeds = torch.arange(12) * 7919
    expected = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(pixels, seeds.tolist(), strict=True):
            torch.manual_seed(seed)
            expected.append(policy(image))
    before = torch.get_rng_state()
    assert torch.equal(apply_each(policy, pixels, seeds), torch.stack(expected))
    assert torch.equal(torch.get_rng_state(), before)
