"""The report of `image2video search`: what the finished search and its comparison say, as one page in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from image2video.clip.any_clip import options_for
from image2video.clip.deep_clip import DeepClip
from image2video.clip.genotype import Genotype
from image2video.clip.image_to_video import Image2Video
from image2video.data import DataSource
from image2video.report import (
    ComparisonResult,
    CurveRow,
    Decision,
    RankedChain,
    SearchRecord,
    SearchReport,
    film_figure,
    write_search_report,
)
from image2video.report.curves import edge_name
from image2video.report.search_report import COMPARE
from image2video.report.table import count_text
from image2video.runs.folders import add_to_run
from image2video.search import CurvePoint, FrameChoice, Problem, RankedGenotype, SearchResult, get_selection
from image2video.search.cell.topology import found_path
from image2video.search.score.task import get_task
from image2video.search.space.deep_space import AnySpace, DeepSpace

REPORT = "report.html"
_FILM_IMAGES = 3
_DESCRIBED = ("train_images", "holdout_images", "test_images", "classes", "input_size", "task")


def write_search_outputs(
    result: SearchResult,
    data: DataSource | Problem,
    *,
    model: str,
    facts: dict[str, Any],
    comparison: ComparisonResult | None = None,
) -> Path:
    """Write `report.html` into the folder of a finished search, and return its path.

    `facts` are settings and versions, which the report lists as they are.
    """
    assert result.out is not None  # the report goes beside the other files
    report = search_report(result, data, model=model, facts=facts, comparison=comparison)
    film = None
    clip = _clip(result, data)
    if clip is not None and data.input_size[0] in (1, 3):
        images, labels = next(iter(data.train.batches(_FILM_IMAGES).epoch(0)))
        images, labels = images[:_FILM_IMAGES], labels[:_FILM_IMAGES]
        names = [data.classes[int(i)] for i in labels] if labels.ndim == 1 else None
        film = film_figure(images, clip, mean=data.mean, std=data.std, labels=names)
    return write_search_report(add_to_run(result.out, REPORT), report, film=film)


def what_tells(result: SearchResult, data: DataSource | Problem) -> str:
    """How to find out whether the clip is better than a random one, where no comparison was made."""
    if result.frame_choice is not None:
        return "networks trained on these frames and on random clips would tell"
    if isinstance(result.genotype, DeepClip):
        return "networks trained on this clip and on random ones at the same places would tell"
    return data.what_tells if isinstance(data, Problem) else COMPARE


def search_report(
    result: SearchResult,
    data: DataSource | Problem,
    *,
    model: str,
    facts: dict[str, Any],
    comparison: ComparisonResult | None = None,
) -> SearchReport:
    """The outcome of a search as its report reads it."""
    task = data.task if isinstance(data, Problem) else get_task(data.task, data.num_classes)
    metric = task.metric
    summary = result.summary()
    search = None if summary is None else SearchRecord.from_dict({**summary, "metric": metric})
    places = tuple((at, SearchRecord.from_dict({**one, "metric": metric})) for at, one in result.place_summaries())
    entries = () if result.ranking is None else result.ranking.entries
    by_loss = result.config.criterion == "loss"
    described = {f"data: {key.replace('_', ' ')}": value for key, value in data.describe().items() if key in _DESCRIBED}
    facts = {key: value for key, value in facts.items() if value is not None and value != {}}
    return SearchReport(
        title=f"{data.short_name}, {model}: a search by {result.config.selection.replace('_', ' ')}",
        genotype=str(result.genotype),
        selection=result.config.selection,
        sentence=_sentence(result, metric),
        unit="nats" if by_loss else "points",
        metric=metric,
        search=search,
        places=places,
        entropy=tuple(epoch["entropy"] for epoch in result.state.epochs if "entropy" in epoch),
        decisions=tuple(_decisions(result, by_loss)),
        ranking=tuple(map(_ranked, entries)),
        finalists=0 if result.ranking is None else result.ranking.finalists,
        place=None if result.ranking is None else result.ranking.best_entry.place,
        curve=_curve(result),
        cost=_cost(result, comparison),
        facts={"data": data.short_name, "network": model, **described, **facts},
        comparison=comparison,
        what_tells=what_tells(result, data),
    )


def _sentence(result: SearchResult, metric: str) -> str:
    """What the search itself says of its choice."""
    if result.ranking is not None or result.frame_choice is not None:
        return result.decided_sentence() if result.ranking is None else result.ranking.sentence()
    score = result.state.score
    if score is None:
        return f"It was drawn from the space {result.space.name}: nothing was measured."
    return (
        f"The discretised cell has a held-out {metric} of {100 * score['accuracy']:.2f} ± "
        f"{100 * score['accuracy_error']:.2f} % ({score['images']} images, one standard error), with the "
        "weights that the search shared between all chains: it is no trained network's figure."
    )


def _decisions(result: SearchResult, by_loss: bool) -> list[Decision]:
    """The decisions on edges and nodes, in their order."""
    space, labels, found = result.space, result.space.labels, []
    path = set(found_path(result.state.decisions, space)) if result.state.edges else set()
    for entry in result.state.edges:
        found.append(
            _decision(entry, _edge_in_words(space, entry["edge"]), list(labels), entry["edge"] in path, by_loss)
        )
    for entry in result.state.nodes:
        names = [_edge_in_words(space, edge) for edge in entry["edges"]]
        found.append(
            _decision(entry, _node_in_words(space, entry["node"]), names, bool(path & set(entry["edges"])), by_loss)
        )
    return found


def _edge_in_words(space: AnySpace, edge: int) -> str:
    """An edge as the report names it, with its place where there are several."""
    if not isinstance(space, DeepSpace):
        return edge_name(space.edges[edge], space.inputs)
    place, number = space.place_of(edge)
    return f"{space.places[place]}: {edge_name(space.cell.edges[number], space.cell.inputs)}"


def _node_in_words(space: AnySpace, node: int) -> str:
    """A node as the report names it, likewise."""
    if not isinstance(space, DeepSpace):
        return f"into {node - space.inputs + 1}"
    place, number = space.place_of_node(node)
    return f"{space.places[place]}: into {number - space.cell.inputs + 1}"


def _decision(entry: dict[str, Any], where: str, names: list[str], on_path: bool, by_loss: bool) -> Decision:
    """One entry of `scores.json`; gaps of accuracy become points."""
    gap, error, factor = entry["gap"], entry["gap_error"], 100.0
    if by_loss:
        gap, error, factor = entry["loss_gap"], entry["loss_gap_error"], 1.0
    second = _second(entry, by_loss)
    return Decision(
        where,
        names[entry["chosen"]],
        None if second is None else names[second],
        None if gap is None else factor * gap,
        None if error is None else factor * error,
        bool(entry["decided"]),
        entry.get("decided_by", "scores"),
        entry["images"],
        on_path,
    )


def _second(entry: dict[str, Any], by_loss: bool) -> int | None:
    """The candidate whose absence costs most beside the chosen one; None where there is none, or no score.

    Of a node it is the edge that the kept one had the closest lead over.
    """
    if "rival" in entry:
        return int(entry["rival"])
    accuracies, losses = entry["masked_accuracy"], entry["masked_loss"]
    if accuracies is None:
        return None

    def cost(part: int) -> tuple[float, float]:
        """What the absence of a candidate costs, by the criterion; the other figure breaks ties."""
        lost, loss = -accuracies[part], losses[part]
        return (loss, lost) if by_loss else (lost, loss)

    others = [part for part in range(len(accuracies)) if part != entry["chosen"]]
    return max(others, key=cost, default=None)


def _ranked(entry: RankedGenotype) -> RankedChain:
    """A ranked genotype with its accuracies in percent."""
    gains = (100 * entry.gain, 100 * entry.gain_error)
    # The reference of all gains has one name, at however many places nothing moves.
    text = str(Genotype.identity()) if entry.is_still else str(entry.genotype)
    return RankedChain(text, entry.images, 100 * entry.accuracy, *gains, entry.loss, entry.place)


def _cost(result: SearchResult, comparison: ComparisonResult | None) -> dict[str, str]:
    """What the search and the comparison took, in words."""
    trains = get_selection(result.config.selection).trains
    trained = result.frames if trains else 0
    scored = result.state.evaluated_frames if trains else result.frames
    cost = {
        "search: time": f"{result.seconds:.0f} s",
        "search: frames forward and backward": count_text(trained),
        "search: frames forward only, for scores": count_text(scored),
    }
    for entry in result.front:
        if entry["place"] is not None:
            cost[f"clip from {entry['place']} on"] = (
                f"{entry['cost']:.2f} times the image; {100 * entry['gain']:+.2f} ± {100 * entry['gain_error']:.2f} "
                "points above copies, with the search's weights"
            )
    if comparison is not None:
        cost["comparison: time of the final networks"] = f"{comparison.seconds:.0f} s"
        cost["comparison: frames forward and backward"] = count_text(comparison.frames)
    return cost


def _curve(result: SearchResult) -> tuple[CurveRow, ...]:
    """The curve of a greedy search of frames, with accuracies in percent; none of another search."""
    choice = result.frame_choice
    return () if choice is None else tuple(_curve_row(point, choice) for point in choice.curve)


def _curve_row(point: CurvePoint, choice: FrameChoice) -> CurveRow:
    scores = point.scores
    return CurveRow(
        point.T,
        str(point.frames.frames[-1]),
        scores.images,
        point.judging is not None,
        100 * scores.accuracy,
        100 * scores.gain,
        100 * scores.gain_error,
        scores.calibrated_gain,
        scores.calibrated_gain_error,
        point is choice.best_point,
    )


def _clip(result: SearchResult, data: DataSource | Problem) -> Image2Video | None:
    """The clip as the search made it: of several places that at the image; None where none is there."""
    # A ranking may have chosen other options than those of the search.
    default = result.config.clip_options(result.space.schedule, None)
    options = options_for(result.genotype, default, mean=data.mean, std=data.std)
    found = result.genotype
    if isinstance(found, DeepClip):
        return Image2Video(found.clips[0], **options.arguments()) if found.begins_at_image else None
    return Image2Video(found.with_provenance(None), **options.arguments())
