"""Accuracy against the depth of a family of networks, bare and wrapped."""

from __future__ import annotations

import re
from collections.abc import Sequence

from matplotlib.figure import Figure

from image2video.errors import InputError
from image2video.report.result import ArmRuns, ComparisonResult
from image2video.report.stats import Interval, mean_interval
from image2video.report.style import colours, dashes, drawing, new_figure
from image2video.report.table import metric_name

_MARKERS = "osD^vP*X"
_LEGEND = 0.95  # of the figure's width: there is a margin on both sides


def depth_figure(
    results: Sequence[ComparisonResult], arms: Sequence[str] | None = None, *, width: float = 5.2
) -> Figure:
    """A line per arm over the depth of the results' models: mean over seeds with its 95 % interval.

    (Casarin et al., CVPR 2024, Fig. 5.)

    Args:
        results: one per depth, from files by `ComparisonResult.load(path)`: the `result.json` of `image2video demo
            --model …`.
        arms: names of arms, by default those that every result has.
        width: of the figure, in inches.

    Returns:
        The figure.

    Raises:
        InputError: fewer than two depths, two results of one depth, different data, or an arm that a result lacks.
    """
    by_depth = _by_depth(results)
    names = _shared(results) if arms is None else list(arms)
    for result in results:
        for name in names:
            if result.arm(name) is None:
                raise InputError(f"the result of {result.model} has no finished arm {name!r}; it has {_listed(result)}")
    if not names:
        raise InputError("the results share no arm with finished runs; give results of the same arms")
    depths = sorted(by_depth)
    with drawing():
        figure = new_figure(width, 0.66 * width)
        axis = figure.add_subplot()
        looks = zip(colours(len(names)), dashes(len(names)), strict=True)
        for index, (name, (colour, dash)) in enumerate(zip(names, looks, strict=True)):
            found = [_accuracy(by_depth[depth], name) for depth in depths]
            shift = 0.006 * (depths[-1] - depths[0]) * (index - (len(names) - 1) / 2)  # intervals side by side
            axis.errorbar(
                [depth + shift for depth in depths],
                [interval.mean for interval in found],
                yerr=[0.0 if interval.n == 1 else interval.half_width for interval in found],
                color=colour,
                linestyle=dash,
                marker=_MARKERS[index % len(_MARKERS)],
                markersize=4.5,
                capsize=3,
                linewidth=1.5,
                label=_arm(results[0], name).title,
            )
        axis.set_xticks(depths)
        axis.set_xlabel("depth (layers)")
        axis.set_ylabel(f"{metric_name(results[0])} on the test set (%)")
        axis.grid(axis="y", color="#e5e5e5", linewidth=0.6)
        _legend(figure, len(names))
        figure.supxlabel(f"{results[0].data['name']}, {_seeds(results, names)}", fontsize=8)
    return figure


def _seeds(results: Sequence[ComparisonResult], names: Sequence[str]) -> str:
    """What stands behind a point, in words."""
    seeds = {_accuracy(result, name).n for result in results for name in names}
    if seeds == {1}:
        return "one seed each"
    count = " to ".join(str(n) for n in sorted({min(seeds), max(seeds)}))
    return f"mean and 95 % interval of {count} seeds"


def _legend(figure: Figure, names: int) -> None:
    """The arms above the axes, in as many columns as fit into the figure."""
    for columns in range(min(3, names), 0, -1):
        legend = figure.legend(loc="outside upper left", ncols=columns)
        if columns == 1 or legend.get_window_extent().width < _LEGEND * figure.bbox.width:
            return
        legend.remove()


def depth_of(model: str) -> int:
    """The first number in a model's name: 18 of `timm:cifar_resnet18`.

    Raises `InputError` where there is none.
    """
    number = re.search(r"\d+", model.rpartition(":")[2].partition(".")[0])
    if number is None:
        raise InputError(f"the name {model!r} holds no depth; it must hold a number, as resnet18 does")
    return int(number[0])


def _by_depth(results: Sequence[ComparisonResult]) -> dict[int, ComparisonResult]:
    """The results by the depth of their models, checked to be comparable."""
    found: dict[int, ComparisonResult] = {}
    for result in results:
        depth = depth_of(result.model)
        if depth in found:
            raise InputError(f"{found[depth].model} and {result.model} both have depth {depth}; give one result each")
        found[depth] = result
    if len(found) < 2:
        raise InputError(f"accuracy against depth needs results of two depths or more; got {sorted(found)}")
    names = sorted({str(result.data.get("name")) for result in results})
    if len(names) > 1:
        raise InputError(f"the results are of different data ({', '.join(names)}); their accuracies do not compare")
    return found


def _shared(results: Sequence[ComparisonResult]) -> list[str]:
    """The names of the arms that every result has."""
    return [arm.name for arm in results[0].arms if all(result.arm(arm.name) for result in results)]


def _listed(result: ComparisonResult) -> str:
    """The names of the finished arms, for errors."""
    return ", ".join(arm.name for arm in result.arms if arm.runs) or "none"


def _arm(result: ComparisonResult, name: str) -> ArmRuns:
    """An arm that is known to be there."""
    arm = result.arm(name)
    assert arm is not None, "depth_figure checks that every result has the arms"
    return arm


def _accuracy(result: ComparisonResult, name: str) -> Interval:
    """The mean over the seeds of an arm."""
    return mean_interval([run.accuracy for run in _arm(result, name).runs])
