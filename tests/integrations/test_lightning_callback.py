"""Lightning trains a wrapped model; its checkpoints and loggers know the clip."""

import importlib

import pytest
import timm
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from wrap_helpers import images

from image2video import ClipWarning, VideoWrap
from image2video.errors import InputError, InputTypeError, StateError

pytestmark = [  # Lightning's advice: workers, folders that are there already
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore::lightning_fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning"),
]
lightning = pytest.importorskip("lightning.pytorch")


def module(pl=lightning, wrapped=True, **options):
    """A LightningModule as people write them."""

    class Classifier(pl.LightningModule):
        def __init__(self, lr=0.05):
            super().__init__()
            self.save_hyperparameters()
            torch.manual_seed(0)
            net = timm.create_model("test_resnet", num_classes=4)
            self.model = VideoWrap(net, **({"genotype": "rotate(5)", "T": 2} | options)) if wrapped else net

        def training_step(self, batch, index):
            loss = cross_entropy(self.model(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def predict_step(self, batch, index):
            return self.model(batch[0])

        def test_step(self, batch, index):
            self.log("loss", cross_entropy(self.model(batch[0]), batch[1]))

        validation_step = test_step

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr, momentum=0.9)

    return Classifier


def loader():
    return DataLoader(TensorDataset(images(4, (3, 48, 64)), torch.arange(4)), batch_size=2)


def trainer(folder, epochs=2, pl=lightning, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "log_every_n_steps": 1}
    quiet |= options
    return pl.Trainer(default_root_dir=folder, accelerator="cpu", devices=1, max_epochs=epochs, **quiet)


def callback(**options):
    from image2video.integrations.lightning_callback import ClipCallback

    return ClipCallback(**options)


def test_a_resumed_training_is_the_uninterrupted_one(tmp_path):
    kind = module()
    whole, half, rest = kind(), kind(), kind()
    trainer(tmp_path, 3, callbacks=[callback()], enable_checkpointing=False).fit(whole, loader())
    first = trainer(tmp_path, 1, callbacks=[callback()])
    first.fit(half, loader())
    path = first.checkpoint_callback.best_model_path
    trainer(tmp_path, 3, callbacks=[callback()]).fit(rest, loader(), ckpt_path=path)
    torch.testing.assert_close(rest.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert not torch.equal(half.model.backbone.fc.weight, whole.model.backbone.fc.weight)

    loaded = kind.load_from_checkpoint(path)
    torch.testing.assert_close(loaded.state_dict(), half.state_dict(), rtol=0, atol=0)
    scores = torch.cat(trainer(tmp_path).predict(loaded, loader()))
    with torch.no_grad():
        torch.testing.assert_close(scores, half.model.eval()(images(4, (3, 48, 64))), rtol=1e-5, atol=1e-5)


def checkpoint(folder, **options):
    made = trainer(folder, 1, callbacks=[callback()])
    made.fit(module(**options)(), loader())
    return made.checkpoint_callback.best_model_path


def test_the_clip_stands_in_checkpoints_in_plain_values(tmp_path):
    saved = torch.load(checkpoint(tmp_path), weights_only=True)
    record = saved["image2video"]["model"]
    assert (record["genotype"], record["T"], record["fusion"]["name"]) == ("rotate(5)", 2, "gsf")
    assert saved["hyper_parameters"] == {"lr": 0.05}  # what a module takes again when it is loaded


def test_the_clip_is_a_hyperparameter_of_every_logger(tmp_path):
    loggers = [lightning.loggers.CSVLogger(tmp_path, name="csv"), lightning.loggers.TensorBoardLogger(tmp_path)]
    trainer(tmp_path, 1, logger=loggers, callbacks=[callback()], enable_checkpointing=False).fit(module()(), loader())
    for logger in loggers:
        text = (tmp_path / logger.name / "version_0" / "hparams.yaml").read_text()
        assert "image2video/genotype: rotate(5)" in text
        assert "image2video/T: 2" in text
        assert "image2video/fusion: gsf" in text
        assert "lr: 0.05" in text


def test_resuming_with_another_clip_is_refused_or_warned_of(tmp_path):
    path = checkpoint(tmp_path)
    other = module(genotype="scale(1.1)", T=3)
    message = r"begun with another clip: genotype='scale\(1\.1\)', the checkpoint has 'rotate\(5\)'"
    with pytest.raises(StateError, match=message):
        trainer(tmp_path, callbacks=[callback()]).fit(other(), loader(), ckpt_path=path)
    new = other()
    with pytest.warns(ClipWarning):
        trainer(tmp_path, callbacks=[callback(other_clip="warn")]).fit(new, loader(), ckpt_path=path)
    assert new.model.T == 3
    with pytest.warns(ClipWarning, match=r"T=3, the checkpoint has 2"):
        other.load_from_checkpoint(path)


@pytest.mark.parametrize("stage", ["validate", "test", "predict"])
def test_an_evaluation_with_another_clip_warns_alone(tmp_path, stage):
    """It was refused as if the training went on."""
    path = checkpoint(tmp_path)
    net, made = module(T=3)(), trainer(tmp_path, callbacks=[callback()])
    with pytest.warns(ClipWarning, match=r"T=3, the checkpoint has 2"):
        result = getattr(made, stage)(net, loader(), ckpt_path=path)
    assert len(result) == (2 if stage == "predict" else 1)
    assert net.model.T == 3


def test_resuming_with_another_fusion_is_refused_with_both_sides(tmp_path):
    """Lightning loads weights before it asks callbacks: torch's error of unexpected keys came first."""
    path, other = checkpoint(tmp_path), module(fusion="tsm")()
    with pytest.raises(StateError, match=r"begun with another clip: fusion=.*tsm.*, the checkpoint has .*gsf"):
        trainer(tmp_path, callbacks=[callback()]).fit(other, loader(), ckpt_path=path)
    assert not other._load_state_dict_pre_hooks

    same = module()()
    trainer(tmp_path, callbacks=[callback()]).fit(same, loader(), ckpt_path=path)
    assert not same._load_state_dict_pre_hooks


def test_a_model_that_follows_its_checkpoint_is_not_refused(tmp_path):
    path, other = checkpoint(tmp_path), module(genotype="scale(1.1)", T=3)()
    other.model.follow_clip(["genotype", "T"])
    trainer(tmp_path, 2, callbacks=[callback()]).fit(other, loader(), ckpt_path=path)
    assert (str(other.model.genotype), other.model.T) == ("rotate(5)", 2)


def test_a_module_may_take_the_clip_of_its_checkpoint(tmp_path):
    path = checkpoint(tmp_path)

    class Following(module(genotype="scale(1.1)", T=3)):
        def on_load_checkpoint(self, checkpoint):
            self.model.load_clip(checkpoint)

    assert str(Following.load_from_checkpoint(path).model.genotype) == "rotate(5)"
    resumed = Following()
    trainer(tmp_path, 2, callbacks=[callback()]).fit(resumed, loader(), ckpt_path=path)
    assert (str(resumed.model.genotype), resumed.model.T) == ("rotate(5)", 2)


def test_a_module_without_a_wrapper_and_another_word_are_refused(tmp_path):
    with pytest.raises(InputTypeError, match=r"needs a VideoWrap in the LightningModule, got a Classifier"):
        trainer(tmp_path, callbacks=[callback()]).fit(module(wrapped=False)(), loader())
    with pytest.raises(InputError, match=r'must be "refuse" or "warn", got \'take\''):
        callback(other_clip="take")


def test_it_works_under_the_librarys_earlier_name(tmp_path):
    pl = importlib.import_module("pytorch_lightning")
    made = trainer(tmp_path, 1, pl=pl, callbacks=[callback()])
    made.fit(module(pl)(), loader())
    assert "image2video" in torch.load(made.checkpoint_callback.best_model_path, weights_only=True)
