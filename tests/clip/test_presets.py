"""`image2video presets` and `image2video spaces`: what comes with the library, and one's own spaces."""

import pytest

from image2video.cli import main
from image2video.cli.listings import candidates_text, describe_space, size_text
from image2video.cli.presets import scale_text, score_text
from image2video.clip.genotype import Genotype
from image2video.clip.ops.registry import op_names
from image2video.search import SearchSpace, get_space, space_names


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


def output(capsys, *argv: str) -> str:
    assert main(list(argv)) == 0
    return capsys.readouterr().out


def test_every_preset_is_listed_with_what_it_is_worth(capsys) -> None:
    text = output(capsys, "presets")
    assert Genotype.presets()
    for name in Genotype.presets():
        genotype = Genotype.preset(name)
        (line,) = [line for line in text.splitlines() if line.strip().startswith(f"{name} ")]
        for piece in (str(genotype), score_text(genotype.provenance), str(genotype.provenance["dataset"])):
            assert piece in line
    assert "not a recommendation" in text


def test_one_preset_is_printed_as_its_file(capsys) -> None:
    for spelled in ("cifar10", "preset:cifar10"):
        found = Genotype.from_json(output(capsys, "presets", spelled))
        assert found == Genotype.preset("cifar10")
        assert found.provenance == Genotype.preset("cifar10").provenance
        assert output(capsys, "presets", spelled) == Genotype.preset("cifar10").to_json()
    assert main(["presets", "nothing"]) == 2
    assert "known presets: cifar10" in capsys.readouterr().err


def test_every_preset_says_how_it_was_found() -> None:
    for name in Genotype.presets():
        found = Genotype.preset(name).provenance
        assert {"dataset", "backbone", "selection", "space", "T", "schedule", "seed", "score", "images"} <= set(found)
        assert 0 < found["score"] <= 1
        assert not any("/" in str(value) for value in found.values())


def test_scores_and_scales_in_words() -> None:
    assert score_text({"score": 0.448, "score_error": 0.0157}) == "44.8 ± 1.6 %"
    assert score_text({"score": 0.3, "metric": "mIoU"}) == "30.0 % mIoU"
    assert score_text({}) == scale_text({}) == "–"
    found = {"train_images": 5000, "epochs": 6, "images": 1000, "T": 3, "selection": "argmax", "space": "affine5"}
    assert scale_text(found) == "5000 images, 6 epochs, scored on 1000 held-out images, T = 3, argmax, space affine5"


def test_every_space_is_listed_with_its_size(capsys) -> None:
    text = output(capsys, "spaces")
    for name in space_names():
        space = get_space(name)
        assert size_text(space) in text
        assert space.size == len(space.candidates) ** len(space.edges)
    assert "5^10 = 9 765 625" in text
    assert "13^14 = 3 937 376 385 699 289" in text
    assert "translate_x 0.06, translate_y 0.06, scale 1.1, rotate 10, identity" in text


def test_both_signs_of_a_magnitude_are_one_entry() -> None:
    space = SearchSpace("signs", ("rotate(2)", "rotate(-2)", "rotate(5)", "rotate(-7)", "identity"))
    assert candidates_text(space) == "rotate ±2 5 −7, identity"
    assert candidates_text(SearchSpace("pair", ("shear_x(5) > shear_y(-4)",))) == "shear_x > shear_y 5/−4"


def test_all_ops_are_listed_with_their_gradient(capsys) -> None:
    lines = output(capsys, "spaces", "--ops").splitlines()
    rows = {line.split()[0]: line for line in lines if line.split() and line.split()[0] in op_names()}
    assert set(rows) == set(op_names())
    assert rows["rotate"].split()[1:] == ["10", "−180", "…", "180", "degrees", "geometric", "exact"]
    assert rows["posterize"].split()[-2:] == ["photometric", "straight_through"]
    assert rows["brightness"].split()[-2:] == ["photometric", "exact"]
    assert "takes none" in rows["identity"]


def test_ones_own_space_is_checked_and_printed(capsys, tmp_path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nops: {rotate: [5, -5], scale: null}\nnodes: 2\n")
    text = output(capsys, "spaces", str(path))
    assert "mine: 3 candidates on each of 3 edges, 3^3 = 27 cells" in text
    assert "  rotate(-5)" in text
    path.write_text("name: mine\nops: {rotat: 5}\n")
    assert main(["spaces", str(path)]) == 2
    assert "rotat" in capsys.readouterr().err
    assert main(["spaces", str(tmp_path / "missing.yaml")]) == 2
    assert "missing.yaml" in capsys.readouterr().err
    assert main(["spaces", "nowhere"]) == 2
    assert "affine5" in capsys.readouterr().err


def test_a_space_in_words() -> None:
    text = describe_space(get_space("autoaugment13"))
    assert "2 inputs (the same image), 4 nodes, each the mean of its incoming edges; schedule from_zero" in text
    assert len(text.splitlines()) == 3 + 13
