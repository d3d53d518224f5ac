"""open_clip: the tower of the images is wrapped, the texts stay; tiny networks with random weights."""

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize
from wrap_helpers import enliven, images, stir

from image2video import VideoWrap
from image2video.errors import InputTypeError, UnsupportedError

pytest.importorskip("open_clip")
from open_clip.model import CLIP, CustomTextCLIP  # after the skip

TOWERS = {
    "vit": {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 64},
    "resnet": {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64},
    "timm": {"timm_model_name": "test_vit", "timm_pool": "avg", "timm_proj": "linear", "image_size": 64},
}
SIZE = (3, 64, 64)
PAIR = "identity | flip_x"


def network(tower="vit", kind=CLIP):
    torch.manual_seed(0)
    words = {"context_length": 8, "vocab_size": 50, "width": 32, "heads": 2, "layers": 1}
    return kind(32, vision_cfg=TOWERS[tower], text_cfg=words).eval()


def wrapped(net, fusion="none", **options):
    net.visual = VideoWrap(net.visual, fusion, input_size=SIZE, **({"genotype": PAIR} | options))
    return net.eval()


def texts(count=3):
    return torch.randint(1, 50, (count, 8), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("tower", "kind"), [*((tower, CLIP) for tower in TOWERS), ("vit", CustomTextCLIP)])
def test_zero_shot_classification_sees_the_clip(tower, kind):
    bare = network(tower, kind)
    net, batch = wrapped(copy.deepcopy(bare)), images(size=SIZE)
    with torch.no_grad():
        vectors = normalize((bare.visual(batch) + bare.visual(batch.flip(-1))) / 2, dim=-1)
        words = bare.encode_text(texts(), normalize=True)
        torch.testing.assert_close(net.encode_image(batch, normalize=True), vectors, atol=1e-6, rtol=0)
        torch.testing.assert_close(net.encode_text(texts(), normalize=True), words, atol=0, rtol=0)
        scores = bare.logit_scale.exp() * vectors @ words.T
        torch.testing.assert_close(net.get_logits(batch, texts())[0], scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_network_that_is_wrapped_whole_encodes_images_with_the_clip(tower):
    """With `fusion="none"` it ran the bare network, silently."""
    bare, batch = network(tower), images(size=SIZE)
    whole = VideoWrap(copy.deepcopy(bare), fusion="none", genotype=PAIR)
    with torch.no_grad():
        expected = (bare.encode_image(batch) + bare.encode_image(batch.flip(-1))) / 2
        torch.testing.assert_close(whole.encode_image(batch), expected, atol=1e-6, rtol=0)
        assert torch.equal(whole.encode_text(texts()), bare.encode_text(texts()))
        with pytest.raises(UnsupportedError, match=r"get_logits\(\) of CLIP got another tensor beside the images, 1"):
            whole.get_logits(batch, texts())
        # It was said to be no integer, with all of its values.
        message = r"got a tensor \(3, 8\) as the second argument.* CLIP takes images alone: call encode_image\(images\)"
        with pytest.raises(InputTypeError, match=message):
            whole(batch, texts())


@pytest.mark.parametrize("tower", TOWERS)
def test_contrastive_training_with_a_locked_tower_moves_the_fusions(tower):
    bare = network(tower)
    enliven(bare)
    net = wrapped(copy.deepcopy(bare), "gsf", genotype="translate_x(0.05)").train()
    for one in (bare, net):
        one.lock_image_tower(unlocked_groups=0, freeze_bn_stats=True)
    net.set_grad_checkpointing()
    locked = {name for name, p in bare.visual.named_parameters() if not p.requires_grad}
    assert locked
    assert {name for name, p in net.visual.backbone.named_parameters() if not p.requires_grad} == locked
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.1)
    before = {name: value.clone() for name, value in net.named_parameters()}
    for _ in range(2):
        vectors, words, scale = net(images(3, SIZE), texts())
        cross_entropy(scale * vectors @ words.T, torch.arange(3)).backward()
        optimizer.step()
    moved = {name for name, value in net.named_parameters() if not torch.equal(value, before[name])}
    assert any(name.startswith("visual.fusion.") for name in moved)
    assert not {"visual.backbone." + name for name in locked} & moved
    assert {"visual.fusion." + name for name in net.visual.fusion.no_weight_decay()} <= net.no_weight_decay()


def test_intermediates_by_name():
    bare, batch = network("vit"), images(size=SIZE)
    net = wrapped(copy.deepcopy(bare))
    with torch.no_grad():
        found = net.forward_intermediates(batch)
        one, other = bare.forward_intermediates(batch), bare.forward_intermediates(batch.flip(-1))
    assert [tuple(maps.shape) for maps in found["image_intermediates"]] == [(2, 32, 8, 8)] * 2
    for index, maps in enumerate(found["image_intermediates"]):
        by_hand = (one["image_intermediates"][index] + other["image_intermediates"][index].flip(-1)) / 2
        torch.testing.assert_close(maps, by_hand, atol=1e-5, rtol=0)
    with pytest.raises(UnsupportedError, match=r"got output_fmt='NLC'"):
        net.visual.forward_intermediates(batch, output_fmt="NLC")


def test_a_checkpoint_of_the_whole_keeps_the_clip():
    net = wrapped(network(), "gsf", genotype="rotate(5)", T=4)
    stir(net.visual.fusion)
    other = wrapped(network(), "gsf", genotype="rotate(5)", T=4)
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        assert torch.equal(other.encode_image(images(size=SIZE)), net.encode_image(images(size=SIZE)))
