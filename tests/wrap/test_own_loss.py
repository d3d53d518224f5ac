"""Labels: the backbone's own loss, of its aggregated scores."""

import threading

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy, interpolate
from wrap_helpers import images, stir

from image2video.errors import UnsupportedError
from image2video.wrap.video_wrap import VideoWrap

CLIP = {"genotype": "translate_x(0.1) > rotate(12)", "T": 3, "input_size": (3, 32, 48)}
LABELS = torch.tensor([3, 1])


class Classifier(nn.Module):
    """Blocks in a ModuleList, a head, and a loss with smoothed labels, as a dict or a tuple."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 3, stride=4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)) for _ in range(2)])
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8, 5)

    def forward(self, pixel_values, labels=None, as_dict=True, num_items_in_batch=None):
        x = self.stem(pixel_values)
        for block in self.blocks:
            x = x + block(x).relu()
        logits = self.head(self.drop(x.mean((2, 3))))
        loss = None
        if labels is not None:
            how = "mean" if num_items_in_batch is None else "sum"
            loss = cross_entropy(logits, labels, label_smoothing=0.2, reduction=how) / (num_items_in_batch or 1)
        if as_dict:
            return {"logits": logits, "x": x} if loss is None else {"loss": loss, "logits": logits, "x": x}
        return (logits,) if loss is None else (loss, logits)


class Segmentor(nn.Module):
    """A head and an auxiliary head, enlarged to the image; the second one is seen by the loss alone."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(3, 8, 4, stride=4)
        self.head, self.auxiliary = nn.Conv2d(8, 5, 1), nn.Conv2d(8, 5, 1)

    def forward(self, pixel_values, labels=None):
        x = self.stem(pixel_values).relu()
        size = pixel_values.shape[-2:]
        logits = interpolate(self.head(x), size=size, mode="bilinear")
        other = interpolate(self.auxiliary(x), size=size, mode="bilinear")
        found = {"logits": logits}
        if labels is not None:
            found = {"loss": cross_entropy(logits, labels) + 0.4 * cross_entropy(other, labels)} | found
        return found


def batch(count=2):
    return images(count, size=(3, 32, 48))


@pytest.mark.parametrize("fusion", ["none", "tsm", "gsf"])
@pytest.mark.parametrize("how", ["auto", "mean_prob", "first"])
def test_the_loss_is_the_backbones_own_of_the_aggregated_scores(fusion, how):
    model = VideoWrap(Classifier().eval(), fusion, aggregate=how, **CLIP)
    stir(model.fusion)
    (expected,) = model(batch(), as_dict=False)
    loss, logits = model(pixel_values=batch(), labels=LABELS, as_dict=False)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(loss, cross_entropy(expected, LABELS, label_smoothing=0.2))


def test_the_other_outputs_are_aggregated_beside_it():
    model = VideoWrap(Classifier().eval(), "gsf", **CLIP)
    expected = model(batch())
    found = model(batch(), labels=LABELS)
    assert [*found] == ["loss", "logits", "x"]
    torch.testing.assert_close(found["x"], expected["x"])
    counted = model(batch(), labels=LABELS, num_items_in_batch=torch.tensor(7))
    summed = cross_entropy(expected["logits"], LABELS, label_smoothing=0.2, reduction="sum")
    torch.testing.assert_close(counted["loss"], summed / 7)
    assert [*model(batch(), num_items_in_batch=torch.tensor(7))] == ["logits", "x"]  # nothing to count without labels


def test_gradients_are_those_of_the_loss_outside():
    gradients = []
    for own in (True, False):
        model = VideoWrap(Classifier().train(), "gsf", **CLIP)
        torch.manual_seed(1)  # of the dropout
        if own:
            loss = model(batch(), labels=LABELS)["loss"]
        else:
            loss = cross_entropy(model(batch())["logits"], LABELS, label_smoothing=0.2)
        loss.backward()
        gradients.append([p.grad for p in model.parameters()])
        assert model.backbone.blocks[0][1].num_batches_tracked == 1
        assert not model.backbone.stem._forward_hooks
    assert len(gradients[0]) > 8
    torch.testing.assert_close(*gradients)


def test_scores_of_an_auxiliary_head_are_aggregated_too():
    net = Segmentor().eval()
    model = VideoWrap(net, "none", **CLIP)
    labels = torch.randint(0, 5, (2, 32, 48), generator=torch.Generator().manual_seed(0))
    found = model(batch(), labels=labels)
    torch.testing.assert_close(found["logits"], model(batch())["logits"])
    with model.fusion.frames(3):
        other = net.auxiliary(net.stem(model.to_video(batch()).flatten(0, 1)).relu())
    other = interpolate(model.to_video.unwarped_mean(other, (32, 48)), size=(32, 48), mode="bilinear")
    expected = cross_entropy(found["logits"], labels) + 0.4 * cross_entropy(other, labels)
    torch.testing.assert_close(found["loss"], expected)


def test_a_network_may_return_the_mean_of_two_heads():
    class TwoHeads(Segmentor):
        def forward(self, pixel_values, labels=None):
            x = self.stem(pixel_values).relu().mean((2, 3), keepdim=True)
            logits = (self.head(x) + self.auxiliary(x)).flatten(1) / 2
            return {"logits": logits} if labels is None else {"loss": cross_entropy(logits, labels), "logits": logits}

    class Flat(TwoHeads):
        def __init__(self):
            super().__init__()
            self.head, self.auxiliary = (nn.Sequential(head, nn.Flatten()) for head in (self.head, self.auxiliary))

    model = VideoWrap(Flat().eval(), "none", **CLIP)
    found = model(batch(), labels=LABELS)
    torch.testing.assert_close(found["logits"], model(batch())["logits"])
    torch.testing.assert_close(found["loss"], cross_entropy(found["logits"], LABELS))


def test_what_gives_no_loss_of_images_is_refused():
    frames = VideoWrap(Classifier().eval(), "none", aggregate="none", **CLIP)
    with pytest.raises(UnsupportedError, match="a loss needs one row of scores per image; Classifier"):
        frames(batch(), labels=LABELS)
    model = VideoWrap(Classifier().eval(), "none", **CLIP)
    with pytest.raises(UnsupportedError, match=r"got labels= \(3,\) for 2 images, .*check the labels"):
        model(batch(), labels=torch.tensor([0, 1, 2]))

    class Squared(Classifier):
        def forward(self, pixel_values, labels=None):
            found = Classifier.forward(self, pixel_values, labels)
            return found | {"logits": found["logits"] ** 2}

    with pytest.raises(UnsupportedError, match="is not computed from scores that one of its modules returns"):
        VideoWrap(Squared().eval(), "none", **CLIP)(batch(), labels=LABELS)


class Centred(Classifier):
    """A loss that pulls features to the centre of their class."""

    def forward(self, x, labels=None):
        features = self.stem(x)
        for block in self.blocks:
            features = block(features)
        pooled = features.mean((2, 3))
        scores = self.head(pooled)
        if labels is None:
            return {"logits": scores}
        pulled = (pooled - torch.eye(8)[labels]).pow(2).sum(1).mean()
        return {"loss": cross_entropy(scores, labels) + pulled, "logits": scores}


@pytest.mark.parametrize("count", [1, 2])
def test_a_loss_of_features_is_refused_for_one_image_as_for_two(count):
    model = VideoWrap(Centred().eval(), "none", **CLIP)
    with pytest.raises(UnsupportedError, match="could not compute its loss"):
        model(images(count, size=(3, 32, 48)), labels=LABELS[:count])
    plain = VideoWrap(Classifier().eval(), "none", **CLIP)
    one = plain(images(1, size=(3, 32, 48)), labels=LABELS[:1])
    torch.testing.assert_close(one["loss"], cross_entropy(one["logits"], LABELS[:1], label_smoothing=0.2))


def test_threads_with_labels_do_not_meet():
    model = VideoWrap(Classifier().eval(), "gsf", **CLIP)
    batches = [images(2, size=(3, 32, 48), seed=seed) for seed in range(4)]
    expected = [model(images, labels=LABELS)["loss"] for images in batches]
    found = {}

    def work(index):
        for _ in range(3):
            found[index] = model(batches[index], labels=LABELS)["loss"]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    torch.testing.assert_close([found[index] for index in range(4)], expected)


class _Scaled(torch.nn.Module):
    """A network that scales its scores in place, or whose head computes with the labels."""

    def __init__(self, *, margin: bool = False) -> None:
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.head = _Margin() if margin else torch.nn.Linear(4, 3)
        self.margin = margin

    def forward(self, pixel_values, labels=None):
        features = self.stem(pixel_values).mean((2, 3))
        scores = self.head(features, labels) if self.margin else self.head(features)
        scores *= 0.5
        return (scores,) if labels is None else (torch.nn.functional.cross_entropy(scores, labels), scores)


class _Margin(torch.nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 3)

    def forward(self, features, labels=None):
        scores = super().forward(features)
        return scores if labels is None else scores - 5 * torch.nn.functional.one_hot(labels, 3)


def test_scores_that_are_changed_in_place_are_no_wrong_answer():
    torch.manual_seed(0)
    model = VideoWrap(_Scaled(), "none", genotype="identity | flip_x", input_size=(3, 8, 8)).eval()
    images, labels = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    (scores,) = model(pixel_values=images)
    with pytest.raises(UnsupportedError, match="is not computed from scores that one of its modules returns"):
        model(pixel_values=images, labels=labels)
    assert torch.equal(model(pixel_values=images)[0], scores)


def test_a_head_that_computes_with_labels_is_refused():
    model = VideoWrap(_Scaled(margin=True), "none", genotype="identity | flip_x", input_size=(3, 8, 8)).eval()
    with pytest.raises(UnsupportedError, match="a part of the network computes with them itself"):
        model(pixel_values=torch.randn(2, 3, 8, 8), labels=torch.tensor([0, 1]))
