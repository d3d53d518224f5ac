"""The frozen plan: where in a backbone the fusions act, in which layout, and by which rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from image2video.fusion.config import FusionConfig
from image2video.inject.clip_site import ClipSite
from image2video.trace.layout import Layout
from image2video.trace.places import IMAGE
from image2video.trace.token_grid import TokenGrid


@dataclass(frozen=True)
class Site:
    """A place in a backbone where one fusion acts, on the input or on the output of one module.

    Args:
        name: path of the module that is hooked (of the first path, where a module has several).
        placement: `"before"` (on an input of the module), `"after"` (on its output), `"beside"` (a convolution's
            input goes in, what comes out is added to the convolution's output).
        channels: size of the tensor along `layout.channel_dim`.
        layout: where the tensor's channels and positions are.
        rule: `"residual"`, `"fallback"`, `"every-conv"` or `"named"`: why it was chosen.
        block: path of the module that adds the branch to the shortcut; the module's own parent for the other rules.
        shape: the tensor's shape for one image.
        parts: rows per frame; the leading dimension is B·T·parts, batch-major, then frame, then part.
        index: which positional input (`"before"`, `"beside"`) or, where the module returns a tuple or a list, which of
            its items (`"after"`).
        calls: how often the module runs in one forward; the fusion acts in each call.
        order: which residual of its block this is, from 0: `sites=lambda site: site.order == 0` is one per block.
        grids: of tokens, how their grid follows from the size of the image, for each call that has another one.
    """

    name: str
    placement: str
    channels: int
    layout: Layout
    rule: str
    block: str
    shape: tuple[int, ...]
    parts: int = 1
    index: int = 0
    calls: int = 1
    order: int = 0
    grids: tuple[TokenGrid, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """A place that the rule found and the plan leaves out, with the reason."""

    name: str
    block: str
    reason: str


@dataclass(frozen=True)
class OutputLayout:
    """The layout of one tensor that the backbone returns, read from the trace.

    Args:
        path: where it is in what the forward returns: `""` (the output itself), `"[1]"`, `"['aux']"`.
        shape: its shape for one image.
        layout: its layout; None where the trace does not tell.
        grid: of tokens, how their grid follows from the size of the image.
    """

    path: str
    shape: tuple[int, ...]
    layout: Layout | None
    grid: TokenGrid | None = None


@dataclass(frozen=True)
class Plan:
    """All sites of one fusion in one backbone; `str(plan)` is a table of them.

    Args:
        fusion: the config of the fusion.
        sites: where it acts, in the order of execution.
        input_size: `(C, H, W)` of the traced forward.
        skipped: what the rule found and the plan leaves out.
        model: class name of the backbone.
        outputs: layouts of what the backbone returns.
        clip_site: where the clip begins; None for the image.
        later_sites: where its frames are moved once more, in the order of execution.
        shared: behind how many of the places, from the first, frames that are the same up to there may be one row until
            the next place: no fusion acts between the two, nothing is returned, and no number of rows is kept.
    """

    fusion: FusionConfig
    sites: tuple[Site, ...]
    input_size: tuple[int, int, int]
    skipped: tuple[Skipped, ...] = ()
    model: str = ""
    outputs: tuple[OutputLayout, ...] = ()
    clip_site: ClipSite | None = None
    later_sites: tuple[ClipSite, ...] = ()
    shared: int = 0

    @property
    def clip_sites(self) -> tuple[ClipSite, ...]:
        """All places inside of the backbone where maps are moved, in the order of execution."""
        return (() if self.clip_site is None else (self.clip_site,)) + self.later_sites

    @property
    def places(self) -> tuple[str, ...]:
        """The names of all places where the image or maps are moved; the first is where the clip begins."""
        begin = IMAGE if self.clip_site is None else self.clip_site.name
        return (begin, *(site.name for site in self.later_sites))

    def cost(self, T: int, rows: Sequence[int] | None = None) -> float:
        """Return the multiply-accumulates of T frames as a multiple of those of the image alone.

        Args:
            T: how many frames.
            rows: rows per image before the first of `clip_sites` and behind each of them; by default T from where the
                clip begins.

        Returns:
            Such as 2.11; T where the clip begins at the image.
        """
        sites = self.clip_sites
        if not sites or sites[0].macs_before + sites[0].macs_after == 0:
            return float(T)
        counts = [T if self.clip_site is None else 1, *[T] * len(sites)] if rows is None else rows
        ends = [0, *(site.macs_before for site in sites), sites[0].macs_before + sites[0].macs_after]
        parts = (count * (end - begin) for count, (begin, end) in zip(counts, pairwise(ends), strict=True))
        return sum(parts) / ends[-1]

    @property
    def names(self) -> tuple[str, ...]:
        """The modules that are hooked, in the order of execution."""
        return tuple(site.name for site in self.sites)

    def __str__(self) -> str:
        size = "×".join(map(str, self.input_size))
        text = [f"{self.model}: {len(self.sites)} {self.fusion.name} sites at input {size}"]
        if self.later_sites:
            text += ["", *_places_table(self), ""]
        elif self.clip_site is not None:
            text += ["", *plain_table(_clip_rows(self.clip_site)), ""]
        if self.sites:
            head = ("site", "placement", "channels", "layout", "shape", "parts", "rule", "block")
            text += plain_table([head, *(_row(site) for site in self.sites)])
        # Sites with several positions but no map and no tokens.
        unordered = sum(site.layout.spatial == "none" and prod(site.shape[1:]) > site.channels for site in self.sites)
        if unordered:
            text += [
                "",
                f"{unordered} sites with layout (N, …): their positions are no row-major grid of the image, and",
                "the spatial part of a fusion takes them as one row.",
            ]
        if self.skipped:
            rows = [(skipped.name, skipped.block or "(root)", skipped.reason) for skipped in self.skipped]
            text += ["", f"{len(self.skipped)} left out:", *plain_table([("place", "block", "reason"), *rows])]
        return "\n".join(text)


def some(names: Sequence[str], limit: int = 8) -> str:
    """List the first names for a message, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def layout_words(layout: Layout) -> str:
    """Say a layout with its grid and its prefix tokens."""
    words = layout.describe()
    if layout.grid is not None:
        words += f" {layout.grid[0]}×{layout.grid[1]}"
    if layout.prefix_tokens:
        words += f" after {layout.prefix_tokens}"
    return words


def _clip_rows(site: ClipSite) -> list[tuple[str, ...]]:
    """Say where the clip begins and what it costs."""
    rows, columns = site.map_size
    down, across = site.stride
    behind, ahead = _grouped(site.macs_after), _grouped(site.macs_before)
    return [
        ("clip begins at", site.name),
        ("map", f"{rows}×{columns}, stride {down:g}×{across:g}, {site.channels} channels, {layout_words(site.layout)}"),
        ("MACs per image", f"{ahead} before it, {behind} behind it"),
        ("cost", f"{site.cost(3):.2f} times the image for T = 3, {site.cost(5):.2f} for T = 5"),
    ]


def _places_table(plan: Plan) -> list[str]:
    """Say at which places maps are moved, what lies behind each, and what that costs."""
    rows: list[tuple[str, ...]] = [("place", "map", "stride", "channels", "layout", "MACs behind it", "there")]
    if plan.clip_site is None:
        channels, height, width = plan.input_size
        whole = _grouped(plan.later_sites[0].macs_before + plan.later_sites[0].macs_after)
        rows.append((IMAGE, f"{height}×{width}", "1×1", str(channels), "(N, C, H, W)", whole, "the clip begins"))
    for site in plan.clip_sites:
        sides = ("×".join(f"{side:g}" for side in pair) for pair in (site.map_size, site.stride))
        what = "the clip begins" if site is plan.clip_site else "its frames move"
        rows.append((site.name, *sides, str(site.channels), layout_words(site.layout), _grouped(site.macs_after), what))
    words = f"cost: {plan.cost(3):.2f} times the image for T = 3, {plan.cost(5):.2f} for T = 5"
    if plan.shared:
        words += "; less where frames are the same up to a place"
    return [*plain_table(rows), words]


def _grouped(number: int) -> str:
    """Write a number in groups of three digits."""
    return f"{number:,}".replace(",", " ")


def _row(site: Site) -> tuple[str, ...]:
    """The cells of one site."""
    layout = layout_words(site.layout)
    shape = "×".join(map(str, site.shape))
    rule = site.rule if site.calls == 1 else f"{site.rule}, {site.calls} calls"
    block = site.block or "(root)"
    return (site.name, site.placement, str(site.channels), layout, shape, str(site.parts), rule, block)


def plain_table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The lines of a table, each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join(cells).rstrip())
    return lines
