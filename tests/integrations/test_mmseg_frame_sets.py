"""`model.video.genotype="identity | flip_x"`: mirror images come back exactly, each within its image."""

import pytest
import torch

pytest.importorskip("mmseg")

from mmseg_cases import SIZE, build, pair, predictions, samples, tiny_config, total_loss

from image2video import FrameSet, InputError
from image2video.integrations.openmmlab import VideoOptions
from image2video.integrations.openmmlab.heads import HeadOutputs
from image2video.integrations.openmmlab.mask_heads import frame_places

MIRROR = {"genotype": "identity | flip_x", "fusion": "none"}


def mirrored(images, content):
    """Each image's content mirrored, its padding left alone."""
    found = images.clone()
    for b, (h, w) in enumerate(content):
        found[b, :, :h, :w] = images[b, :, :h, :w].flip(-1)
    return found


def metas_of(content, canvas):
    padding = [(0, canvas[1] - w, 0, canvas[0] - h) for h, w in content]
    shapes = zip(content, padding, strict=True)
    names = ("img_shape", "ori_shape", "pad_shape", "img_padding_size")
    return [dict(zip(names, (size, size, canvas, sides), strict=True)) for size, sides in shapes]


@pytest.mark.parametrize("content", [(SIZE, SIZE), (SIZE, (30, 41))], ids=["whole", "padded"])
@torch.no_grad()
def test_logits_are_the_mean_of_the_image_and_its_mirror_image(content):
    plain, wrapped = pair(video=MIRROR)
    assert (wrapped.to_video.T, wrapped.to_video.schedule) == (2, "from_zero")
    inputs, _ = samples(2, content)
    metas = metas_of(content, SIZE)
    logits, flipped = (plain.encode_decode(one, metas) for one in (inputs, mirrored(inputs, content)))
    expected = (logits + mirrored(flipped, content)) / 2
    torch.testing.assert_close(wrapped.encode_decode(inputs, metas), expected, rtol=1e-4, atol=1e-4)


def test_a_set_trains_and_predicts_with_fusion():
    _, wrapped = pair(video={"genotype": "identity | flip_x | scale(1.1)", "fusion": "gsf"})
    inputs, found = samples(2)
    total_loss(wrapped, inputs, found).backward()
    assert all(p.grad.isfinite().all() for p in wrapped.video_fusion.parameters() if p.grad is not None)
    assert all(one.isfinite().all() for one in predictions(wrapped, *samples(1, test=True)))


def test_options_read_a_set_as_a_text_or_a_file(tmp_path):
    path = tmp_path / "set.json"
    FrameSet.parse("flip_y | identity | flip_x").save(path)
    to_video = VideoOptions(genotype=str(path)).clip_maker()
    assert (str(to_video.genotype), to_video.T, to_video.padding) == ("flip_y | identity | flip_x", 3, "reflection")
    assert VideoOptions(genotype=str(path), T=2).clip_maker().T == 2
    for wrong, message in (({"T": 4}, "the frame set has 3 frames"), ({"schedule": "centred"}, "no schedule but")):
        with pytest.raises(InputError, match=rf"model.video \(genotype='.*set.json', .*{message}"):
            VideoOptions(genotype=str(path), **wrong).clip_maker()
    with pytest.raises(InputError, match="the frame set has 2 frames"):
        build(tiny_config(video={**MIRROR, "T": 3}))


def test_points_go_where_each_frame_shows_them():
    to_video = VideoOptions(genotype="identity | flip_x | flip_y").clip_maker()
    video = HeadOutputs(to_video, ((24, 40), (20, 30)), (24, 40), (24, 40))
    points = torch.tensor([[[0.25, 0.5]], [[0.25, 0.5]]])
    places, weights = frame_places(points, video)
    expected = [[[0.25, 0.5], [0.75, 0.5], [0.25, 0.5]], [[0.25, 0.5], [0.5, 0.5], [0.25, 1 / 3]]]
    torch.testing.assert_close(places[:, :, 0], torch.tensor(expected))
    assert torch.equal(weights, torch.ones(2, 3, 1))
