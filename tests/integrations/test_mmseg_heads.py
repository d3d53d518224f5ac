"""Heads of all kinds over frames: what they return is walked, their losses are those of averaged outputs."""

from collections import namedtuple

import pytest
import torch
from torch import nn

pytest.importorskip("mmseg")

from by_hand import CHAIN
from mmseg.models.decode_heads import FCNHead
from mmseg.registry import MODELS
from mmseg_cases import SIZE, build, largest_difference, pair, predictions, samples, tiny_config, total_loss

from image2video import Image2Video
from image2video.errors import InputTypeError, UnsupportedError
from image2video.integrations.openmmlab import HeadOutputs, HeadRule, heads, register_head_rule

# The loss of these takes what the head gives in training alone.
TRAINED = ("pid", "knet")
ALL = ("psp", "fcn", "aspp", "enc", "da", "pid", "knet", "ocr")


def trained_alike(*models):
    """In training mode, with norms as in eval mode, so that equal frames give equal losses."""
    for model in models:
        model.train()
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()


@pytest.mark.parametrize("decode", ALL)
def test_every_head_equals_the_plain_one_at_identity(decode):
    plain, wrapped = pair(decode, video={"genotype": "identity", "T": 3, "fusion": "gsf"})
    batch = samples(2, canvas=(48, 64), test=True)
    assert largest_difference(predictions(wrapped, *batch), predictions(plain, *batch)) < 1e-4
    inputs, found = samples(2, edges=decode == "pid")
    if decode in TRAINED:
        trained_alike(plain, wrapped)
    losses, expected = wrapped.loss(inputs, found), plain.loss(inputs, found)
    assert losses.keys() == expected.keys()
    for key, value in expected.items():
        torch.testing.assert_close(losses[key], value, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decode", ALL)
def test_every_head_learns_through_the_frames(decode):
    video = {"genotype": CHAIN, "T": 3, "fusion": "gsf", "schedule": "ramp"}
    model = build(tiny_config(decode, video=video)).train()
    total_loss(model, *samples(2, [SIZE, (32, 40)], edges=decode == "pid")).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    with torch.no_grad():
        for one in predictions(model.eval(), *samples(2, test=True)):
            assert one.shape == (5, *SIZE)
            assert one.isfinite().all()


@pytest.mark.filterwarnings("ignore:When align_corners=True")  # PSPHead's own pyramid
@pytest.mark.parametrize("decode", ["psp", "enc", "da", "ocr"])
def test_head_size_works_for_heads_whose_maps_are_known(decode):
    plain, wrapped = pair(decode, video={"genotype": "identity", "T": 2, "unwarp": "head"}, align_corners=True)
    batch = samples(1, canvas=(48, 64), test=True)
    assert largest_difference(predictions(wrapped, *batch), predictions(plain, *batch)) < 1e-4


def test_the_auxiliary_heads_of_a_list_keep_their_names():
    config = tiny_config(video={"genotype": "identity", "T": 2})
    config["auxiliary_head"] = [
        config["auxiliary_head"],
        {**config["auxiliary_head"], "in_index": 1, "in_channels": 16},
    ]
    losses = build(config).loss(*samples(1))
    assert {key.split(".")[0] for key in losses} == {"decode", "aux_0", "aux_1"}


@pytest.fixture
def registered(monkeypatch):
    """Register head classes and rules for one test."""
    monkeypatch.setattr(heads, "_RULES", dict(heads._RULES))
    names = []

    def add(head):
        names.append(head.__name__)
        MODELS.register_module(module=head)
        return head

    yield add
    for name in names:
        del MODELS._module_dict[name]


def with_head(kind, **video):
    config = tiny_config("fcn", video={"genotype": "identity", "T": 2, **video})
    config["decode_head"]["type"] = kind
    return config


def test_a_head_with_a_loss_of_its_own_is_refused_by_name(registered):
    @registered
    class LonerHead(FCNHead):
        def loss(self, inputs, batch_data_samples, train_cfg):
            return {"loss_own": self.forward(inputs).mean()}

    with pytest.raises(UnsupportedError, match="the head LonerHead computes its loss in a way of its own"):
        build(with_head("LonerHead"))

    class LonerRule(HeadRule):
        def losses(self, head, features, samples, train_cfg, video, previous=None):
            return {"loss_own": video.images(head.forward(features)).mean()}

    register_head_rule("LonerHead", LonerRule())
    model = build(with_head("LonerHead"))
    inputs, found = samples(2)
    losses = model.loss(inputs, found)
    torch.testing.assert_close(losses["decode.loss_own"], model(inputs).mean(), rtol=1e-4, atol=1e-4)
    assert predictions(model, inputs, found)[0].shape == (5, *SIZE)


def test_a_rule_may_predict(registered):
    @registered
    class ConstantHead(FCNHead):
        pass

    class ConstantRule(HeadRule):
        def losses(self, head, features, samples, train_cfg, video, previous=None):
            return {}

        def predict(self, head, features, metas, test_cfg, video, previous=None):
            return features[0].new_full((len(metas), 5, *video.canvas), 2.0)

    register_head_rule("ConstantHead", ConstantRule())
    model = build(with_head("ConstantHead"))
    assert predictions(model, *samples(1, test=True))[0].unique().tolist() == [2.0]


def test_what_is_no_rule_is_refused():
    with pytest.raises(InputTypeError, match="the rule of SomeHead must be a HeadRule, got function"):
        register_head_rule("SomeHead", lambda: None)


def test_head_size_is_refused_where_the_head_predicts_in_its_own_way(registered):
    @registered
    class OwnWayHead(FCNHead):
        def predict(self, inputs, batch_img_metas, test_cfg):
            return super().predict(inputs, batch_img_metas, test_cfg) * 2

    with pytest.raises(UnsupportedError, match=r"unwarp='head' needs the maps that the head OwnWayHead"):
        build(with_head("OwnWayHead", unwarp="head"))
    build(with_head("OwnWayHead", unwarp="label"))


Named = namedtuple("Named", "maps scores")


def outputs_of(T=2, size=None):
    return HeadOutputs(Image2Video("identity", T=T), ((8, 12), (8, 12)), (8, 12), size)


def test_outputs_are_walked_and_keep_their_kinds():
    maps, vector, queries = torch.rand(4, 3, 4, 6), torch.rand(4, 7), torch.rand(4, 2, 7)
    found = outputs_of().images({"a": [maps, None], "b": Named(maps, (vector, queries))})
    mean = maps.unflatten(0, (2, 2)).mean(1)
    torch.testing.assert_close(found["a"][0], mean)
    assert found["a"][1] is None
    assert isinstance(found["b"], Named)
    torch.testing.assert_close(found["b"].maps, mean)
    torch.testing.assert_close(found["b"].scores[0], vector.unflatten(0, (2, 2)).mean(1))
    torch.testing.assert_close(found["b"].scores[1], queries.unflatten(0, (2, 2)).mean(1))
    assert outputs_of(size=(8, 12)).images(maps).shape == (2, 3, 8, 12)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.zeros(4, 3, 4, 6, dtype=torch.long), r"returned torch.int64 \(4, 3, 4, 6\), which cannot be averaged"),
        (torch.zeros(4, 1, 1, 1, 1), r"returned torch.float32 \(4, 1, 1, 1, 1\), which cannot be averaged"),
        ("logits", "must return tensors, .* got 'logits'"),
        (3, "must return tensors, .* got 3"),
    ],
)
def test_what_has_no_average_is_refused(output, message):
    with pytest.raises(InputTypeError, match=message):
        outputs_of().images([output])


def test_features_that_have_no_frames_are_refused():
    features = heads.frame_of({"a": Named(torch.arange(6.0).view(6, 1), None)}, 1, 3)
    assert features["a"].maps.flatten().tolist() == [1.0, 4.0]
    with pytest.raises(InputTypeError, match=r"must return tensors, .* got 'features'"):
        heads.frame_of(["features"], 0, 1)
