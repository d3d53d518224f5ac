"""Deployments of one network, told: what a report opens with, and the table of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from image2video.assess.deployments import Deployment
from image2video.report import Opening
from image2video.report.page import Section, table_html
from image2video.search.rank.gain import INTERVAL

TITLE = "One trained network, and where it is used"


def opening(deployments: Sequence[Deployment], about: str) -> Opening:
    """What the report of a demo opens with.

    Args:
        deployments: what was found in each.
        about: network and data in words.

    Returns:
        Title, a sentence for each deployment, and the sections.
    """
    sentences = [f"{text[0].upper()}{text[1:]}" for text in (one.sentence() for one in deployments)]
    sections = [
        Section("What helps where", _table(deployments, about)),
        Section("What was asked in each place", "".join(_place(one) for one in deployments)),
    ]
    return Opening(TITLE, sentences, sections, "The paper's comparison in small")


def columns(deployments: Sequence[Deployment]) -> tuple[str, ...]:
    """The heads of the table: a way, what it costs and needs, and its accuracy in each deployment.

    Args:
        deployments: what was found in each.

    Returns:
        The heads.
    """
    return ("", "cost in use", "labelled images", *(one.pose.title for one in deployments))


def rows(deployments: Sequence[Deployment]) -> list[tuple[str, ...]]:
    """The cells of the table, a row for each way: accuracy in percent, and half of the 95 % interval of its gain.

    Args:
        deployments: what was found in each.

    Returns:
        The cells.
    """
    found = []
    for way in deployments[0].ways:
        alike = [one.way(way.name) for one in deployments]
        costs = sorted({one.cost for one in alike})
        cost = f"{costs[0]:g}" if len(costs) == 1 else f"{costs[0]:.3g} to {costs[-1]:.3g}"
        accuracies = [
            f"{100 * one.accuracy:.1f}" + ("" if way.name == "bare" else f" ({_points(one.gain, one.gain_error)})")
            for one in alike
        ]
        found.append((way.title, cost, str(way.labelled) if way.labelled else "none", *accuracies))
    return found


def _points(gain: float, error: float) -> str:
    return f"{100 * gain:+.1f} ± {100 * INTERVAL * error:.1f}"


def _table(deployments: Sequence[Deployment], about: str) -> str:
    """The table of ways, and how to read it."""
    images = deployments[0].images
    note = (
        f"{about}. Accuracy in percent on {images} test images of each place, which decided nothing; in brackets the "
        "gain over the network as it is, ± half of its 95 % interval, paired over the images. One training stands "
        "behind each network: the intervals are of the images alone. The images of a place are those of the test set, "
        "moved."
    )
    table = table_html(columns(deployments), rows(deployments), numbers=range(1, 3 + len(deployments)))
    return f'{table}<p class="note">{escape(note)}</p>'


def _place(deployment: Deployment) -> str:
    """The three sentences of the assessment in a place, folded."""
    told = "".join(f"<p>{escape(text)}</p>" for text in deployment.assessment.sentences())
    return f"<details><summary>{escape(deployment.pose.title)}</summary>{told}</details>"
