"""A whole search: found chains, exact repetition, resuming, and what stands in the result folder."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from search_cases import Arrays, CentreWindow, blobs, planted, tiny_network
from torch import Tensor, nn

from image2video import Genotype, VideoWrap
from image2video.errors import ExistsError, Image2VideoError, InputError
from image2video.report.result import SearchRecord, _build
from image2video.runs.folders import read_json
from image2video.search import SearchConfig, SearchSpace, get_space, random_share, register_space, search
from image2video.search.score.task import SegmentationTask
from image2video.search.select.controls import Argmax, Random
from image2video.search.select.perturbation import Perturbation
from image2video.search.select.selection import get_selection, without_effect
from image2video.search.state.seeds import derived_seed
from image2video.search.state.state import SearchState

# Networks this small, trained this briefly, often find nothing better than the image.
pytestmark = pytest.mark.filterwarnings("ignore:.*selection='one_shot' chose the identity:UserWarning")
SPACE = register_space(SearchSpace("three", ("translate_x(0.1)", "rotate(10)", "scale(1.2)"), nodes=2))
FILES = ("genotype.json", "tau.json", "scores.json", "config.yaml")


def config(**options: object) -> SearchConfig:
    defaults: dict[str, object] = {"space": "three", "T": 3, "epochs": 2, "batch_size": 16, "device": "cpu"}
    return SearchConfig(**{**defaults, **options})


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def run(out: Path, **options: object) -> dict[str, bytes]:
    names = ("resume", "overwrite", "progress")
    extra = {name: options.pop(name) for name in names if name in options}
    search(tiny_network(), blobs(60, 0), config(**options), out=out, provenance={"dataset": "blobs"}, **extra)
    return contents(out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("search") / "run"
    run(out)
    return out


def test_the_folder_holds_the_whole_record(finished: Path) -> None:
    assert {*FILES, "run.json", "tensorboard", "checkpoint"} == {path.name for path in finished.iterdir()}
    genotype = Genotype.load(finished / "genotype.json")
    record = dict(genotype.provenance)
    assert (record["dataset"], record["space"], record["selection"]) == ("blobs", "three", "perturbation")
    scores, tau, marker = (read_json(finished / name) for name in ("scores.json", "tau.json", "run.json"))
    assert scores["genotype"] == str(genotype)
    assert scores["score"]["accuracy"] == record["score"]
    assert sorted(entry["edge"] for entry in scores["edges"]) == [0, 1, 2]
    assert all(len(entry["masked_accuracy"]) == 3 for entry in scores["edges"])
    assert all(len(entry["tuning_loss"]) == 1 for entry in scores["edges"])
    assert [entry["node"] for entry in scores["nodes"]] == [2]
    assert [entry["epoch"] for entry in tau["epochs"]] == [0, 1, 2]
    assert tau["steps"][0]["step"] == 0
    assert tau["steps"][0]["tau"] != tau["steps"][-1]["tau"]
    assert marker["state"] == "done"
    assert marker["versions"]["torch"] == torch.__version__
    text = "".join((finished / name).read_text() for name in FILES)
    assert "seconds" not in text
    assert str(finished) not in text
    assert any(path.name.startswith("events") for path in (finished / "tensorboard").iterdir())


def test_equal_runs_give_equal_bytes(finished: Path, tmp_path: Path) -> None:
    assert run(tmp_path / "again") == contents(finished)
    other = run(tmp_path / "other", seed=1)
    assert other["tau.json"] != contents(finished)["tau.json"]


def test_another_run_is_refused_and_overwritten_on_request(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    with pytest.raises(ExistsError, match="holds a run of 'search'"):
        run(out)
    with pytest.raises(InputError, match=r"other settings \(lr: 0\.025 then, 0\.05 now\)"):
        run(out, resume=True, lr=0.05)
    assert run(out, overwrite=True) == contents(finished)


def test_a_checkpoint_of_another_network_is_refused(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    with pytest.raises(InputError, match=r"cannot be resumed: .* does not fit"):
        search(tiny_network(classes=4), blobs(60, 0), config(), out=out, resume=True)


def test_the_backbone_stays_as_it_is() -> None:
    network = tiny_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    search(network, blobs(60, 0), config(epochs=1, tune_epochs=0))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network._forward_hooks
    assert network.training


@pytest.mark.parametrize("selection", ["perturbation", "frozen", "argmax", "random", "one_shot", "fixed_weights"])
def test_every_selection_goes_through_the_same_entry(selection: str, tmp_path: Path) -> None:
    options = {"selection": selection, "epochs": 1, "tune_epochs": 0, "candidates": 6, "fusion": "none"}
    result = search(tiny_network(), blobs(60, 0), config(**options), out=tmp_path / "run")
    assert Genotype.load(tmp_path / "run" / "genotype.json") == result.genotype
    assert read_json(tmp_path / "run" / "scores.json")["selection"] == selection
    assert (result.genotype.provenance or {})["selection"] == selection
    summary = result.summary()
    assert result.decided_sentence().endswith(".")
    if selection in ("one_shot", "fixed_weights"):
        assert summary is None
        assert result.ranking.images == (40 if selection == "fixed_weights" else 30)
        return
    record = _build(SearchRecord, summary, "search")
    assert record.genotype == str(result.genotype)
    assert " > ".join(record.ops[record.chosen[edge]] for edge in record.path) == str(result.genotype)
    start, end = record.weights[0], record.weights[-1]
    assert (start != end) == (selection in ("perturbation", "argmax"))
    measured = [value is not None for row in record.drops for value in row]
    assert all(measured) if selection in ("perturbation", "frozen") else not any(measured)


def test_validation_images_of_ones_own_and_a_cap_on_them() -> None:
    result = search(tiny_network(), blobs(40, 0), config(validation_images=12, tune_epochs=0), validation=blobs(50, 1))
    assert result.state.score["images"] == 12
    # 3 batches of 40 for the weights, as many of 50 for τ, 2 epochs, 3 frames.
    assert result.frames == 2 * (40 + 3 * 16) * 3


def test_channels_last_searches_alike() -> None:
    options = config(epochs=1, tune_epochs=0, channels_last=True)
    accelerator = Accelerator(cpu=True)
    result = search(tiny_network(), blobs(60, 0), options, accelerator=accelerator)
    plain = search(tiny_network(), blobs(60, 0), config(epochs=1, tune_epochs=0))
    assert torch.allclose(
        torch.tensor(result.state.steps[-1]["tau"]), torch.tensor(plain.state.steps[-1]["tau"]), atol=1e-4
    )


def test_warm_up_leaves_tau_alone() -> None:
    result = search(tiny_network(), blobs(60, 0), config(warmup_epochs=1, tune_epochs=0, selection="argmax"))
    epochs = result.state.epochs
    assert epochs[0]["weights"] == epochs[1]["weights"]
    assert epochs[1]["weights"] != epochs[2]["weights"]
    assert epochs[1]["validation_loss"] is None


def test_only_identities_give_a_warning() -> None:
    space = register_space(SearchSpace("nothing", ("identity",), nodes=2))
    with pytest.warns(UserWarning, match=r"chose the identity on the whole path.*entropy of τ at the end is 0.000"):
        result = search(tiny_network(), blobs(60, 0), config(space=space.name, epochs=1, tune_epochs=0))
    assert result.genotype == Genotype.identity()


@pytest.mark.parametrize(
    ("options", "network", "message"),
    [
        ({"space": "best"}, tiny_network(), "unknown search space 'best'"),
        ({}, nn.Flatten(), "no site was found"),
        ({"selection": "fixed_weights"}, VideoWrap(tiny_network(), "none"), "pass the bare model"),
    ],
)
def test_what_is_refused_leaves_the_run_that_it_would_overwrite(
    options: dict, network: nn.Module, message: str, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    with pytest.raises(Image2VideoError, match=message):
        search(network, blobs(60, 0), config(**options), out=out, overwrite=True)
    assert contents(out) == contents(finished)
    assert (out / "run.json").read_bytes() == (finished / "run.json").read_bytes()


def test_settings_without_effect_are_named() -> None:
    with pytest.warns(UserWarning, match=r"'random' does not use learn_magnitudes=True, orders=3: the search is the"):
        search(tiny_network(), blobs(20, 0), SearchConfig(selection="random", learn_magnitudes=True, orders=3))
    assert without_effect(SearchConfig(selection="frozen", orders=3, relaxation="single_path")) is None
    assert without_effect(SearchConfig(selection="one_shot", criterion="loss")) is None
    assert "criterion='loss'" in (without_effect(SearchConfig(selection="fixed_weights", criterion="loss")) or "")
    every = {"second_order": True, "learn_magnitudes": True, "orders": 2, "stop_early": 2.0, "renormalise": True}
    assert without_effect(SearchConfig(selection="perturbation", **every)) is None


def test_a_space_from_a_file_is_recorded_and_compared_by_its_content(tmp_path: Path) -> None:
    first, moved = tmp_path / "shifts.yaml", tmp_path / "elsewhere.yaml"
    first.write_text("name: shifts_of_a_file\nops:\n  translate_x: [0.1, -0.1]\n  rotate: 10\nnodes: 2\n")
    out = tmp_path / "run"
    whole = run(out, space=str(first))
    assert str(tmp_path) not in "".join((out / name).read_text() for name in (*FILES, "space.yaml"))
    space = SearchSpace.load(out / "space.yaml")
    assert space == get_space(first)
    assert SearchSpace.from_dict(read_json(out / "scores.json")["space"]) == space
    assert dict(Genotype.load(out / "genotype.json").provenance or {})["space"] == "shifts_of_a_file"
    first.rename(moved)
    assert run(out, space=str(moved), resume=True) == whole
    moved.write_text(moved.read_text().replace("-0.1", "-0.2"))
    with pytest.raises(InputError, match=r"other settings \(candidates:"):
        run(out, space=str(moved), resume=True)


def test_learned_magnitudes_stand_in_the_genotype_and_in_the_records(tmp_path: Path) -> None:
    options = {"learn_magnitudes": True, "magnitude_lr": 0.1, "epochs": 3, "selection": "argmax"}
    whole = run(tmp_path / "run", **options)
    genotype, scores = Genotype.load(tmp_path / "run" / "genotype.json"), read_json(tmp_path / "run" / "scores.json")
    assert scores["genotype"] == str(genotype)
    assert not {str(genotype)} & set(SPACE.labels)
    texts = [SPACE.labels[scores["chosen"][str(edge)]] for edge in scores["path"]]
    assert [t.op for t in genotype.chain] == [t.op for text in texts for t in Genotype.parse(text).chain]
    # Edges out of one source share its magnitudes; the one input is row 0.
    rows = [scores["magnitudes"][SPACE.edges[edge][0]] for edge in scores["path"]]
    learned = [m for edge, row in zip(scores["path"], rows, strict=True) for m in row[scores["chosen"][str(edge)]]]
    assert [t.magnitude for t in genotype.chain] == learned
    assert run(tmp_path / "run", resume=True, **options) == whole
    assert read_json(tmp_path / "run" / "scores.json")["magnitudes"] == scores["magnitudes"]


@pytest.mark.parametrize("selection", ["perturbation", "one_shot", "fixed_weights"])
def test_colours_must_be_known_where_ops_change_them(selection: str, tmp_path: Path) -> None:
    space = register_space(SearchSpace("colours_and_moves", ("invert(1)", "translate_x(0.1)", "identity"), nodes=2))
    options = {"space": space.name, "selection": selection, "epochs": 1, "tune_epochs": 0, "candidates": 6}
    data = blobs(60, 0)
    data.images = data.images.sigmoid()
    with pytest.raises(InputError, match=r"say how the images are normalised: mean=…, std=…"):
        search(tiny_network(), data, config(**options), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    result = search(tiny_network(), data, config(**options), mean=0, std=1)
    assert {t.op for t in result.genotype.chain} <= {"invert", "translate_x"}
    known = tiny_network()
    known.pretrained_cfg = {"mean": (0.0,), "std": (1.0,)}  # as timm's models have it
    assert search(known, data, config(**options)).scores_record() == result.scores_record()
    with pytest.raises(InputError, match="mean and std go together"):
        search(tiny_network(), data, config(**options), mean=0)


@pytest.mark.parametrize("selection", ["perturbation", "one_shot", "fixed_weights"])
def test_maps_are_a_task_like_any_other(selection: str) -> None:
    data = blobs(48, 0)
    labels = (data.images[:, 0] > 0.5).long()
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
    options = config(selection=selection, fusion="none", epochs=1, tune_epochs=0, candidates=5)
    result = search(network, Arrays(data.images, labels), options, task=SegmentationTask(2))
    assert result.genotype.provenance["metric"] == "mIoU"
    if result.ranking is None:
        assert 0 < result.state.score["accuracy"] < 1
    else:
        assert result.ranking.metric == "mIoU"
        assert 0 < result.ranking.best_entry.accuracy < 1
    with pytest.raises(InputError, match=r"classification needs logits"):
        search(network, Arrays(data.images, labels), options)


class TauOnly:
    """What argmax sees of a run."""

    def __init__(self, tau: Tensor) -> None:
        self.space, self.config, self.state, self._tau = SPACE, config(), SearchState(), tau

    def tau(self) -> Tensor:
        return self._tau

    def score(self, mixings: list[Tensor], first: int) -> None:
        raise AssertionError("argmax measures nothing")


def test_argmax_reads_the_largest_weights() -> None:
    run = TauOnly(torch.tensor([[0.0, 2, 0], [0, 0, 1], [3, 0, 0]]))
    Argmax().decide(Argmax().units(SPACE, config())[-2], run)
    assert run.state.decisions.ops == {0: 1, 1: 2, 2: 0}
    assert run.state.decisions.sources == {1: 0, 2: 2}
    assert str(run.state.decisions.genotype(SPACE)) == "rotate(10) > translate_x(0.1)"


def test_units_cover_every_edge_once_in_a_seeded_order() -> None:
    space = get_space("affine5")
    orders = set()
    for seed in range(4):
        units = Perturbation().units(space, SearchConfig(seed=seed, epochs=3, tune_epochs=2))
        edges = [unit.index for unit in units if unit.kind == "edge"]
        assert sorted(edges) == list(range(10))
        orders.add(tuple(edges))
        assert [unit.index for unit in units if unit.kind == "tune"] == list(range(26))
        assert sorted(unit.index for unit in units if unit.kind == "node") == [2, 3, 4]
        assert [unit.kind for unit in units[:3]] == ["search"] * 3
        assert units[-1].kind == "score"
    assert len(orders) == 4


def test_random_is_a_draw_of_the_space_and_names_no_network() -> None:
    texts = {
        str(search(tiny_network(), blobs(9, 0), config(selection="random", seed=seed)).genotype)
        for seed in (1, 2, 3, 4, 5)
    }
    assert len(texts) > 2
    assert isinstance(get_selection("random"), Random)


def test_seeds_of_different_purposes_differ() -> None:
    seeds = [derived_seed(seed, purpose) for seed in range(3) for purpose in ("tau", "split", "weights")]
    assert len(set(seeds)) == 9
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("selection", ["perturbation", "one_shot"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3, 4))])
def test_the_planted_need_is_found(seed: int, selection: str) -> None:
    """The backbone has no weights; the search finds the op that brings the cue into its window."""
    share = random_share(get_space("affine5"), "translate_x")
    print(f"share of random genotypes of affine5 that hold translate_x: {share:.4f}")
    assert share**5 < 0.01
    options = {"fusion": "none", "epochs": 1, "tune_epochs": 0, "batch_size": 64, "seed": seed, "device": "cpu"}
    result = search(
        CentreWindow(),
        planted(128 if selection == "perturbation" else 800, seed),
        SearchConfig(selection=selection, space="affine5", **options),  # type: ignore[arg-type]
    )
    assert "translate_x" in {t.op for t in result.genotype.chain}
    assert (result.genotype.provenance or {})["score"] > 0.95
    assert result.ranking is None or result.ranking.decided


def test_tau_and_the_weights_never_see_the_same_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[float]] = {"tau": set(), "weights": set()}
    from image2video.search.optimise.bilevel import Bilevel

    for name, purpose in (("tau_step", "tau"), ("weight_step", "weights")):
        original = getattr(Bilevel, name)

        def spy(self: Bilevel, images: Tensor, *rest: Tensor, _o: object = original, _p: str = purpose) -> Tensor:
            seen[_p] |= set(images[:, 0, 0, 0].tolist())
            return _o(self, images, *rest)

        monkeypatch.setattr(Bilevel, name, spy)
    data = blobs(60, 0)
    search(tiny_network(), data, config(tune_epochs=0))
    assert len(seen["tau"]) == len(seen["weights"]) == 30
    assert not seen["tau"] & seen["weights"]
    assert isinstance(data, Arrays)


def test_scores_json_is_plain(finished: Path) -> None:
    scores = json.loads((finished / "scores.json").read_text())
    space = SearchSpace.from_dict(scores["space"])
    assert space == SPACE
    assert set(scores["chosen"]) == {"0", "1", "2"}
