"""Kept grids: they change no bit, stay within their bounds, and are seen by no module, graph, transform or thread."""

import copy
import pickle
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from clip_cases import CHAIN, H, W, noise
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from image2video.clip import kept
from image2video.clip.image_to_video import Image2Video
from image2video.clip.kept import GRIDS, Kept
from image2video.clip.sampling import INTERPOLATIONS, PADDINGS, warp

SETS = "identity | rotate(7) > scale(1.1) | flip_x"


@pytest.fixture(autouse=True)
def empty() -> Iterator[None]:
    GRIDS.clear()
    yield
    GRIDS.clear()


def by_hand(to_video: Image2Video, images: Tensor) -> Tensor:
    """The clip with all images at once, by matrices that are made now, through the path of gradients."""
    steps = to_video._steps(None)
    matrices = to_video.genotype.step_matrices(steps, *images.shape[-2:])
    mirrored = [to_video.genotype.mirrored(step) for step in steps]
    how: dict[str, Any] = {"padding": to_video.padding, "interpolation": to_video.interpolation}
    return warp(images.detach().requires_grad_(), matrices, mirrored=mirrored, **how).detach()


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_clips_are_those_without_a_cache_bit_for_bit(padding: str, interpolation: str) -> None:
    """Every dtype, layout, batch and number of pieces; the second call takes the grid of the first."""
    to_video = Image2Video(CHAIN, T=4, schedule="centred", padding=padding, interpolation=interpolation)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for batch in (0, 1, 5):
            images = noise(batch, 3, H, W).to(dtype)
            for given in (images, images.contiguous(memory_format=torch.channels_last), images[:, :2]):
                expected = by_hand(to_video, given)
                for _ in range(2):
                    clip = to_video(given)
                    assert torch.equal(clip, expected)
                    assert clip.stride() == expected.stride()
    assert len(GRIDS) == 2, "float32, which half precision is sampled in, and float64"


@pytest.mark.parametrize("pieces", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 3, 8])
@pytest.mark.parametrize("genotype", [CHAIN, SETS, "translate_x(0.25) > flip_y"])
def test_pieces_and_threads_change_nothing(
    genotype: str, pieces: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    to_video = Image2Video(genotype, T=3)
    images = noise(5, 3, H, W)
    expected = to_video(images)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    monkeypatch.setattr("image2video.clip.sampling._PIECE", 4 * 3 * H * W * 3 * 5 // pieces // threads)
    assert torch.equal(to_video(images), expected)


def test_a_grid_serves_only_what_it_was_made_for() -> None:
    """Genotype, powers, size, dtype and place of the clip: another one of any of these is another grid."""
    images = noise(2, 3, H, W)
    Image2Video(CHAIN, T=3)(images)
    assert len(GRIDS) == 1
    Image2Video(CHAIN, T=3, padding="border", interpolation="nearest")(noise(7, 1, H, W))
    assert len(GRIDS) == 1, "padding, interpolation, batch and channels have no part in it"
    for number, other in enumerate(
        (
            lambda: Image2Video("rotate(9)", T=3)(images),
            lambda: Image2Video(CHAIN, T=4)(images),
            lambda: Image2Video(CHAIN, T=3, schedule="ramp")(images),
            lambda: Image2Video(CHAIN, T=3)(noise(2, 3, W, H)),
            lambda: Image2Video(CHAIN, T=3)(images.double()),
            lambda: Image2Video(CHAIN, T=3).map_frames(images, (H, W)),
            lambda: Image2Video(CHAIN, T=3).map_frames(images, (2 * H, W)),
            lambda: Image2Video(CHAIN, T=3).unwarp(noise(6, 2, H, W), (H, W)),
            lambda: Image2Video(CHAIN, T=3).unwarp(noise(6, 2, H, W), (H, 2 * W)),
            lambda: Image2Video(CHAIN, T=3).unwarp(noise(6, 2, H // 2, W), (H, W)),
        ),
        start=2,
    ):
        other()
        assert len(GRIDS) == number


def test_cells_of_other_maps_are_other_grids() -> None:
    to_video = Image2Video("translate_x(1.5 cell)", T=2)
    maps = noise(2, 4, 6, 8)
    for cells in ((6, 8), (12, 16)):
        way_back = to_video.at_map(cells)
        first = way_back.unwarp(maps, (48, 64))
        GRIDS.clear()
        assert torch.equal(way_back.unwarp(maps, (48, 64)), first)
    assert not torch.equal(to_video.at_map((6, 8)).unwarp(maps, (48, 64)), first)


def test_random_sizes_do_not_grow_the_memory() -> None:
    draw = random.Random(0)
    small: Kept[Tensor] = Kept(most_bytes=10_000, most_entries=20)
    for _ in range(10_000):
        size = draw.randint(1, 400), draw.randint(1, 40)
        found = small.get(size, lambda size=size: torch.zeros(size), kept.bytes_of)  # type: ignore[misc]
        assert found.shape == size
        assert small.bytes <= 10_000
        assert len(small) <= 20
    assert small.bytes == sum(kept.bytes_of(grid) for grid, _ in small._values.values()) > 0
    to_video = Image2Video(CHAIN, T=2)
    for _ in range(600):
        to_video(torch.zeros(1, 1, draw.randint(4, 40), draw.randint(4, 40)))
    assert GRIDS.bytes <= kept.MOST_BYTES
    assert len(GRIDS) <= kept.MOST_ENTRIES


def test_what_was_asked_for_last_stays() -> None:
    cache: Kept[int] = Kept(most_bytes=3)
    made: list[str] = []

    def ask(key: str) -> None:
        cache.get(key, lambda: made.append(key) or 1, lambda _: 1)

    for key in ("a", "b", "c", "a", "d", "a", "b"):
        ask(key)
    assert made == ["a", "b", "c", "d", "b"], "b was the oldest when d came"
    cache.get("large", lambda: 1, lambda _: 4)
    assert len(cache) == 3, "what is larger than all is not kept"


def test_no_module_holds_a_grid() -> None:
    to_video = Image2Video(CHAIN, T=3)
    before = pickle.dumps(to_video)
    to_video(noise(1, 3, H, W))
    assert pickle.dumps(to_video) == before
    assert not to_video.state_dict()
    assert copy.deepcopy(to_video).__dict__.keys() == to_video.__dict__.keys()


def test_a_grid_of_inference_mode_serves_training() -> None:
    to_video = Image2Video(CHAIN, T=2)
    with torch.inference_mode():
        to_video.unwarp(noise(2, 3, H, W), (H, W))
        to_video(noise(1, 3, H, W))
    images = noise(1, 3, H, W).requires_grad_()
    maps = noise(2, 3, H, W).requires_grad_()
    (to_video(images).square().sum() + to_video.unwarp(maps, (H, W)).square().sum()).backward()
    assert images.grad is not None
    assert maps.grad is not None
    assert len(GRIDS) == 2


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, in forward mode
def test_transforms_graphs_and_modes_make_grids_of_their_own() -> None:
    to_video = Image2Video(CHAIN, T=2)
    images = noise(3, 1, 3, H, W)
    expected = torch.stack([to_video(image) for image in images])
    GRIDS.clear()
    assert torch.equal(torch.func.vmap(to_video)(images), expected)
    gradient = torch.func.grad(lambda x: to_video(x).square().sum())(images[0])
    leaf = images[0].clone().requires_grad_()
    to_video(leaf).square().sum().backward()
    assert torch.equal(gradient, leaf.grad)
    mirrored = Image2Video("flip_x", T=2)
    with torch.autograd.forward_ad.dual_level():  # which the sampler does not know
        dual = mirrored(torch.autograd.forward_ad.make_dual(images[0], images[1]))
        assert torch.equal(torch.autograd.forward_ad.unpack_dual(dual).tangent, mirrored(images[1]))
    with torch.device("meta"):
        assert torch.equal(to_video(images[0]), expected[0])
    GRIDS.clear()
    with FlopCounterMode(display=False):
        assert torch.equal(to_video(images[0]), expected[0])
    exported = torch.export.export(to_video, (images[0],)).module()
    assert torch.equal(exported(images[0]), expected[0])
    assert to_video(images[0].to("meta")).device.type == "meta"
    assert len(GRIDS) == 0


def test_threads_share_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GRIDS, "most_bytes", 40_000)
    to_video = Image2Video(CHAIN, T=2)
    sizes = [(h, w) for h in (8, 9, 24) for w in (10, 11, 36)]
    expected = {size: to_video(noise(1, 2, *size)) for size in sizes}
    wrong: list[object] = []

    def work(seed: int) -> None:
        draw = random.Random(seed)
        try:
            for _ in range(60):
                size = draw.choice(sizes)
                if not torch.equal(to_video(noise(1, 2, *size)), expected[size]):
                    wrong.append(size)
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert GRIDS.bytes == sum(count for _, count in GRIDS._values.values()) <= 40_000


def test_a_forked_process_begins_with_none() -> None:
    cache: Kept[int] = Kept()
    cache.get("a", lambda: 1, lambda _: 1)
    cache._lock.acquire()
    cache._after_fork()
    assert len(cache) == cache.bytes == 0
    assert cache.get("a", lambda: 2, lambda _: 1) == 2


def test_frames_shifted_by_whole_pixels_are_slices_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    images = noise(3, 3, H, W)

    def refused(*args: object, **kwargs: object) -> Tensor:
        raise AssertionError("sampled")

    monkeypatch.setattr(torch.nn.functional, "grid_sample", refused)
    clip = Image2Video(f"translate_x({3 / W!r}) > translate_y({-2 / H!r})", T=3, schedule="centred")(images)
    for t, step in enumerate((-1, 0, 1)):
        dx, dy = 3 * step, -2 * step
        ys, xs = slice(max(0, dy), H + min(0, dy)), slice(max(0, dx), W + min(0, dx))
        assert torch.equal(clip[:, t, :, ys, xs], images.roll((dy, dx), (-2, -1))[:, :, ys, xs])
        assert clip[:, t].count_nonzero() == images[:, :, : H - abs(dy), : W - abs(dx)].numel()
    mirrored = Image2Video(f"flip_x > translate_x({-5 / W!r})", T=2, padding="border")(images)[:, 1]
    assert torch.equal(mirrored[..., :-5], images.flip(-1)[..., 5:])
    assert torch.equal(mirrored[..., -5:], images[..., :1].expand(-1, -1, -1, 5))
