"""Every error on the page of questions is raised here, with the words that its heading has."""

import re
import warnings
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from image2video import ClipWarning, FreshFusionWarning, Genotype, Image2VideoError, VideoWrap
from image2video.data import load_data
from image2video.runs.folders import OutputDirectory

PAGE = Path(__file__).parent.parent / "docs" / "faq.md"
HEADINGS = re.findall(r"^### `(.+)`$", PAGE.read_text(), flags=re.M)
SIZE = (3, 32, 48)
IMAGES = torch.zeros(2, *SIZE)


def bare():
    return timm.create_model("test_resnet", num_classes=5)


def wrap(genotype="translate_x(0.03)", **options):
    return VideoWrap(bare(), genotype=genotype, **{"input_size": SIZE} | options)


class WithLoss(nn.Module):
    """Returns a scalar beside its scores."""

    def __init__(self):
        super().__init__()
        self.net = bare()

    def forward(self, x):
        scores = self.net(x)
        return scores, scores.sum()


def read(folder, text):
    (folder / "new.json").write_text(text)
    return Genotype.coerce(folder / "new.json")


def from_a_folder_without_builder(folder):
    VideoWrap(nn.Sequential(bare()), input_size=SIZE).save_pretrained(folder / "saved")
    VideoWrap.from_pretrained(folder / "saved")


def wrap_again():
    model = wrap()
    return model, VideoWrap(model.backbone, input_size=SIZE)


def into_a_full_folder(folder):
    (folder / "notes.txt").write_text("mine")
    OutputDirectory(folder, "train")


PROVOKED = {
    "no input size is known": lambda _: VideoWrap(nn.Sequential(nn.Conv2d(3, 4, 3))),
    "the backbone is compiled": lambda _: VideoWrap(torch.compile(bare()), input_size=SIZE),
    "holds injected fusions": lambda _: wrap_again(),
    "the backbone is wrapped in": lambda _: VideoWrap(nn.DataParallel(bare()), input_size=SIZE),
    "matches none": lambda _: wrap(sites="layer5"),
    "fusion 'gfs'": lambda _: wrap(fusion="gfs"),
    "clip_at='layer33'": lambda _: wrap(clip_at="layer33"),
    "must be on every path": lambda _: wrap(clip_at="layer1.0.conv2"),
    "cannot change colours": lambda _: wrap("brightness(1.1)", clip_at="layer3"),
    "expected '('": lambda _: Genotype.parse("translate_x 0.06"),
    "unknown op": lambda _: Genotype.parse("translatex(0.06)"),
    "the magnitude of": lambda _: Genotype.parse("translate_x(6)"),
    "the frame set has": lambda _: wrap("identity | flip_x", T=3),
    "schema_version": lambda folder: read(folder, '{"schema_version": 99}'),
    "images are torch.float16": lambda _: wrap()(IMAGES.half()),
    "images must have": lambda _: wrap()(IMAGES[0]),
    "is a scalar": lambda _: VideoWrap(WithLoss(), input_size=SIZE)(IMAGES),
    "got labels=": lambda _: wrap()(IMAGES, labels=torch.zeros(2, dtype=torch.long)),
    "the checkpoint holds none": lambda _: wrap().load_state_dict(bare().state_dict()),
    "the checkpoint was trained": lambda _: wrap().load_state_dict(wrap("rotate(5)").state_dict()),
    "names no builder": from_a_folder_without_builder,
    "torch.jit.script": lambda _: torch.jit.script(wrap()),
    "unknown data source": lambda _: load_data("imagenet"),
    "holds other files": into_a_full_folder,
}
"""How a heading begins, and what brings its error or warning about."""


def test_the_page_has_the_errors_that_are_tried_here():
    assert len(HEADINGS) == len(PROVOKED) > 20
    assert all(heading.startswith(begin) for heading, begin in zip(HEADINGS, PROVOKED, strict=True))


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize(("heading", "begin"), list(zip(HEADINGS, PROVOKED, strict=False)))
def test_the_words_are_those_of_this_version(heading, begin, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClipWarning)
        warnings.simplefilter("error", FreshFusionWarning)
        with pytest.raises((Image2VideoError, ClipWarning, FreshFusionWarning)) as raised:
            PROVOKED[begin](tmp_path)
    assert heading in str(raised.value)


def test_nothing_advises_to_install_the_package_of_that_name_on_the_index():
    """It is another project's; the page of questions says so."""
    advice = re.compile(r"""pip install[\s"'f]*image2video(?![\w.])(?!` installs something else)""")
    root = PAGE.parent.parent
    folders = ("docs", "image2video", "integrations", "examples", "benchmarks")
    files = [root / "README.md", *(path for name in folders for path in (root / name).rglob("*.*"))]
    read = [path for path in files if path.suffix in {".md", ".py", ".yaml", ".ipynb"}]
    assert len(read) > 300
    assert not [str(path) for path in read if advice.search(path.read_text())]
    assert advice.search("pip install \"\n    f\"'image2video[{name}]'")
