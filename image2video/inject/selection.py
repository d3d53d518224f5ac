"""What `sites=` says: which of the rule's sites are taken, or which modules of the user's own."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from image2video.errors import InputError, InputTypeError
from image2video.fusion.config import FusionConfig
from image2video.inject.hookpoints import Point
from image2video.inject.plan import Site, Skipped, some
from image2video.inject.published import PUBLISHED, published_names
from image2video.inject.rule import Candidate
from image2video.inject.sites import site_of
from image2video.trace.graph import Graph


@dataclass(frozen=True)
class Selector:
    """A checked `sites=` argument; at most one field is given.

    Args:
        pattern: what a site's whole name must match.
        names: of modules that run.
        predicate: on a site.
        published: those of a published network.
    """

    pattern: re.Pattern[str] | None = None
    names: tuple[str, ...] | None = None
    predicate: Callable[[Site], bool] | None = None
    published: bool = False

    def choose(
        self, backbone: nn.Module, graph: Graph, config: FusionConfig, found: list[Site], skipped: list[Skipped]
    ) -> list[Site]:
        """Select among the rule's sites; a list may also name other modules that run.

        Raises:
            InputError: nothing is selected, or a name that cannot be a site.
        """
        if not config.active:
            return []
        names = published_names(backbone, config, found) if self.published else self.names
        if names is not None:
            return _ordered(graph, [_named(backbone, graph, config, found, skipped, name) for name in names])
        if self.pattern is not None:
            chosen = [site for site in found if self.pattern.fullmatch(site.name)]
            if not chosen and found:
                raise _nothing_matches(self.pattern.pattern, graph, found, skipped)
            return chosen
        if self.predicate is not None:
            chosen = [site for site in found if self.predicate(site)]
            if not chosen and found:
                raise InputError(
                    f"the predicate sites= must be true for a site; it is for none of the {len(found)} that the rule "
                    f"found: {some([site.name for site in found])}"
                )
            return chosen
        return found

    @property
    def everything(self) -> bool:
        """Whether nothing was selected, so that the rule alone decides."""
        return self == Selector()


def without_decoder(backbone: nn.Module, found: list[Site]) -> tuple[list[Site], list[Skipped]]:
    """Leave out the sites in the decoder of a network that has children `encoder` and `decoder`, as many for maps have.

    Frames are to mix where features are made, as in the published segmentation networks, and the decoders of one
    encoder would otherwise differ: those of some (MAnet, DPT) have residual branches, those of most have none.

    Returns:
        The sites that stay, all of them where the encoder has none, and those that are left out.
    """
    children = dict(backbone.named_children())
    in_encoder = any(site.name.startswith("encoder.") for site in found)
    if not {"encoder", "decoder"} <= children.keys() or not in_encoder:
        return found, []
    left = [site for site in found if site.name.startswith("decoder.")]
    reason = "in the decoder, where no fusion acts unless sites= selects it"
    return [site for site in found if site not in left], [Skipped(site.name, site.block, reason) for site in left]


def selector(sites: str | Iterable[str] | Callable[[Site], bool] | None, config: FusionConfig) -> Selector:
    """Read a `sites=` argument.

    Raises:
        InputError: a regular expression that does not parse, an empty list, a selection for a fusion without sites.
        InputTypeError: something else than a string, names, or a predicate.
    """
    if sites is None:
        return Selector()
    if not config.active:
        raise InputError(f"sites={sites!r} has no effect: fusion {config.name!r} acts nowhere; leave sites out")
    if sites == PUBLISHED:
        return Selector(published=True)
    if isinstance(sites, str):
        try:
            return Selector(pattern=re.compile(sites))
        except re.error as error:
            raise InputError(f"sites={sites!r} is no regular expression: {error}; escape dots as '\\.'") from error
    if callable(sites):
        return Selector(predicate=sites)
    names = tuple(sites) if isinstance(sites, Iterable) else None
    if names is None or not all(isinstance(name, str) for name in names):
        raise InputTypeError(f"sites must be a regular expression, names or a predicate on a Site, got {sites!r}")
    if not names:
        raise InputError("sites is an empty list; name at least one module, or pass fusion='none'")
    return Selector(names=tuple(dict.fromkeys(names)))


def _named(
    backbone: nn.Module, graph: Graph, config: FusionConfig, found: list[Site], skipped: list[Skipped], name: str
) -> Site:
    """Return the site of a name: one of the rule's, or any module that runs; raise where it can be none."""
    for site in found:
        if site.name == name:
            return site
    for left_out in skipped:
        if left_out.name == name:
            raise InputError(f"site {name!r} cannot be used: {left_out.reason}")
    call = next((c for c in graph.calls if c.name == name and c.parent >= 0), None)
    if call is None:
        raise InputError(
            f"sites names {name!r}, but no module of that name runs in a forward; near: {_near(name, graph)}"
        )
    side = "after" if config.placement == "after" else "before"
    tensors = call.outputs if side == "after" else call.inputs
    index = next((i for i, v in enumerate(tensors) if v >= 0 and graph.values[v].depends), None)
    if index is None:
        raise InputError(f"site {name!r} cannot be used: the module has no tensor of the images there to fuse")
    point = Point(call.index, side, index, tensors[index])
    result = site_of(backbone, graph, config, Candidate("named", graph.calls[call.parent].name, point))
    if isinstance(result, Skipped):
        raise InputError(f"site {name!r} cannot be used: {result.reason}")
    return result


def _ordered(graph: Graph, sites: list[Site]) -> list[Site]:
    """Sort sites by the first call of their module."""
    first = {call.name: call.index for call in reversed(graph.calls)}
    return sorted(sites, key=lambda site: first[site.name])


def _nothing_matches(pattern: str, graph: Graph, found: list[Site], skipped: list[Skipped]) -> InputError:
    """Make the error for a regular expression that matches no site: it names what is near or was left out."""
    left_out = [f"{place.name}: {place.reason}" for place in skipped if re.fullmatch(pattern, place.name)]
    if left_out:
        return InputError(
            f"sites={pattern!r} matches only places that were left out ({some(left_out, 3)}); choose others"
        )
    near = _close(pattern.replace("\\", ""), [site.name for site in found])
    running = [call.name for call in graph.calls if call.parent >= 0 and re.fullmatch(pattern, call.name)]
    hint = ""
    if running:
        hint = f"; it does match other modules that run ({some(running, 3)}): pass a list of names to use those"
    return InputError(
        f"sites={pattern!r} matches none of the {len(found)} sites that the rule found (the whole name must match); "
        f"near: {near}{hint}"
    )


def _near(name: str, graph: Graph) -> str:
    """List the modules that run whose names are closest."""
    return _close(name, list(dict.fromkeys(call.name for call in graph.calls if call.parent >= 0)))


def _close(name: str, names: list[str]) -> str:
    """List the closest names."""
    return ", ".join(difflib.get_close_matches(name, names, n=5, cutoff=0.0))
