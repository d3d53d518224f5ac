"""The benchmark's harness writes what it promises, and its textbook GSF computes what ours does."""

import json
import sys

import pytest
import torch

from image2video.fusion import GSF


def test_pairs_alternate(load):
    calls = []
    pair = load("harness").measure_pair(lambda: calls.append("a"), lambda: calls.append("b"), 4, warmup=1)
    assert "".join(calls) == "ab" + "abba" * 2
    assert pair.first.repeats == pair.second.repeats == 4
    assert pair.ratio_low <= pair.ratio <= pair.ratio_high
    assert pair.first.least_s <= pair.first.low_s <= pair.first.median_s <= pair.first.high_s <= pair.first.most_s


def test_sides_take_turns(load):
    calls = []
    harness = load("harness")
    sides = {name: lambda name=name: calls.append(name) for name in "abc"}
    times = harness.in_turn(sides, 2, warmup=1, clock=lambda: float(len(calls)))
    assert "".join(calls) == "abcbcacab"
    assert times == {"a": [1.0, 1.0], "b": [1.0, 1.0], "c": [1.0, 1.0]}
    assert harness.ratio_of([2.0, 6.0, 9.0], [2.0, 2.0, 3.0])["ratio"] == 3.0


def test_another_checkout_runs_beside_this_one(load, tmp_path):
    harness, here = load("harness"), sys.modules["image2video"]
    package = tmp_path / "image2video"
    package.mkdir()
    (package / "__init__.py").write_text("PLACE = 'there'\n")
    with harness.earlier(tmp_path):
        import image2video as there

        assert there.PLACE == "there"
    assert sys.modules["image2video"] is here is not there
    assert str(tmp_path) not in sys.path
    with pytest.raises(SystemExit, match="holds no image2video"), harness.earlier(tmp_path / "none"):
        pass


def test_results_are_json_with_a_schema(load, tmp_path, capsys):
    harness = load("harness")
    path = tmp_path / "deep" / "result.json"
    harness.write_result(path, "test", {"settings": {"T": 3}, "results": [{"shape": "2x3", "ratio": 2.5}]})
    document = json.loads(path.read_text())
    assert list(document) == ["schema", "benchmark", "commit", "date", "hardware", "versions", "settings", "results"]
    assert document["schema"] == 1
    assert document["versions"]["torch"] == torch.__version__
    assert document["hardware"]["cores"] >= 1
    assert [found.name for found in path.parent.iterdir()] == ["result.json"]
    assert "2x3" in capsys.readouterr().out


def test_the_textbook_version_equals_ours(load):
    textbook, ours = load("gsf").TextbookGSF(32), GSF(32)
    ours.load_state_dict(textbook.state_dict())
    frames = torch.randn(10, 32, 6, 9)
    torch.testing.assert_close(textbook(frames, 5), ours(frames, 5), rtol=0, atol=1e-5)


def test_a_comparison_runs(load):
    result = load("gsf").compare((6, 16, 5, 7), 3, "cpu", 2, 0)
    assert result["output_error"] <= 1e-5
    assert result["gradient_error_relative"] <= 1e-3
    assert result["ratio"] > 0
