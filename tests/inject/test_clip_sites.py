"""Where a clip may begin: every place that is listed can be expanded, and what is refused says why."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from plan_cases import SIZE, Residual, Transformer, Windows, conv, network
from torch import Tensor, nn

from image2video.errors import Image2VideoError, InputError, InputTypeError
from image2video.fusion import TSMConfig
from image2video.inject import ClipSite, clip_sites, plan
from image2video.trace.layout import Layout

FAMILIES = ["test_resnet", "test_vit", "test_convnext2", "test_efficientnet", "test_mambaout"]
FAMILIES.append(pytest.param("test_byobnet", marks=pytest.mark.slow))  # plain convolutions, as in the ResNet


def residual_net() -> nn.Module:
    return network(Residual(conv(16, 16)), Residual(nn.Sequential(conv(16, 8), nn.ReLU(), conv(8, 16))))


def names(net: nn.Module, size: tuple[int, int, int] = SIZE) -> list[str]:
    return [site.name for site in clip_sites(net, input_size=size)]


def refusal(net: nn.Module, clip_at: Any, size: tuple[int, int, int] = SIZE) -> str:
    """What a plan says that cannot begin its clip there."""
    with pytest.raises(Image2VideoError) as caught:
        plan(net, fusion="none", input_size=size, clip_at=clip_at)
    assert isinstance(caught.value, InputError)
    return str(caught.value)


def expanded(net: nn.Module, site: ClipSite, images: Tensor, T: int) -> Any:
    """Run a network whose clip of copies begins at a site."""

    def expand(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        rows = args[site.index].repeat_interleave(T, 0)
        return (*args[: site.index], rows, *args[site.index + 1 :])

    handle = net.get_submodule(site.name).register_forward_pre_hook(expand)
    try:
        return net(images)
    finally:
        handle.remove()


SIDES = (3, 64, 96)


@functools.cache
def family(name: str) -> tuple[nn.Module, tuple[ClipSite, ...]]:
    """A small network of timm, and its places."""
    net = timm.create_model(name, num_classes=5, **({"img_size": SIDES[1:]} if name == "test_vit" else {})).eval()
    return net, clip_sites(net, input_size=SIDES)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_copies_from_every_place_on_give_the_image_again(name: str) -> None:
    net, sites = family(name)
    images = torch.randn(2, *SIDES)
    bare = net(images).repeat_interleave(3, 0)
    assert len(sites) > 5
    for site in sites:
        out = expanded(net, site, images, 3)
        torch.testing.assert_close(out, bare, rtol=1e-4, atol=1e-5, msg=site.name)


@torch.no_grad()
@pytest.mark.parametrize("name", FAMILIES)
def test_a_place_is_described_as_its_tensor_is(name: str) -> None:
    net, sites = family(name)
    seen: dict[str, Tensor] = {}
    handles = []
    for site in sites:
        for module in (site.name, *site.aliases):
            hook = seeing(seen, module, site.index)
            handles.append(net.get_submodule(module).register_forward_pre_hook(hook))
    net(torch.randn(1, *SIDES))
    for handle in handles:
        handle.remove()
    before = -1
    for site in sites:
        tensor = seen[site.name]
        assert tuple(tensor.shape) == site.shape, site.name
        assert all(seen[alias] is tensor for alias in site.aliases)
        site.layout.check(tensor, site.channels)
        prefix, body = site.layout.split_prefix(tensor)
        assert tuple(site.layout.to_maps(body).shape) == (1, site.channels, *site.map_size)
        assert (prefix is None) == (not site.layout.prefix_tokens)
        assert site.stride == (SIDES[1] / site.map_size[0], SIDES[2] / site.map_size[1])
        assert site.macs_before >= before, "in the order of execution"
        assert site.cost(1) == 1 <= site.cost(2) <= 2
        before = site.macs_before
    assert len({site.macs_before + site.macs_after for site in sites}) == 1
    assert len({site.name for site in sites}) == len(sites)


def seeing(seen: dict[str, Tensor], name: str, index: int) -> Callable[..., None]:
    """A hook that keeps an input."""

    def keep(_: nn.Module, args: tuple[Any, ...]) -> None:
        seen[name] = args[index]

    return keep


def test_maps_of_other_sizes_follow_from_the_trace() -> None:
    net, sites = family("test_resnet")
    found = {SIDES[1:]: sites, (75, 50): clip_sites(net, input_size=(3, 75, 50))}
    at = {size: {site.name: site for site in places} for size, places in found.items()}
    assert len(at[64, 96]) > 5
    for name, site in at[64, 96].items():
        assert at[75, 50][name].map_size in site.grid.candidates((75, 50), 1), name


def test_the_cost_is_that_of_the_frames_behind() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 2, stride=2), nn.Conv2d(4, 2, 1))
    first, second = clip_sites(net, input_size=(3, 6, 10))
    stem, middle, last = 60 * 12, 15 * 4 * 16, 15 * 8
    assert (first.name, first.macs_before, first.macs_after) == ("1", stem, middle + last)
    assert (second.name, second.macs_before, second.macs_after) == ("2", stem + middle, last)
    assert second.cost(5) == pytest.approx((stem + middle + 5 * last) / (stem + middle + last))
    assert (second.map_size, second.stride) == ((3, 5), (2, 2))


def test_a_network_without_products_costs_as_if_all_lay_behind() -> None:
    (site,) = clip_sites(nn.Sequential(nn.ReLU(), nn.Sigmoid()), input_size=SIZE)
    assert site.cost(4) == 4


def test_one_name_per_place_and_the_others_are_understood() -> None:
    net = network(nn.Sequential(conv(16, 16), conv(16, 16)))
    sites = clip_sites(net, input_size=SIZE)
    assert [(site.name, site.aliases) for site in sites] == [("1", ("1.0", "1.0.0")), ("1.0.1", ()), ("2", ())]
    for alias in ("1", "1.0", "1.0.0"):
        assert plan(net, fusion="none", input_size=SIZE, clip_at=alias).clip_site == sites[0]


def test_residual_branches_are_left_out_and_their_sums_are_not() -> None:
    assert names(residual_net()) == ["1", "1.1", "2"]
    for inside in ("1.1.body", "1.1.body.0", "1.1.body.1", "1.1.body.2"):
        said = refusal(residual_net(), inside)
        assert "inside of a residual branch of '1.1'" in said
        assert "choose one of 1.1" in said


class UNet(nn.Module):
    """Down and up again, with a skip; or with the deep map alone as its output."""

    def __init__(self, skip: bool = True) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.down, self.deep = nn.Conv2d(8, 8, 2, stride=2), conv(8, 8)
        self.up, self.head = nn.ConvTranspose2d(8, 8, 2, stride=2), Head(16 if skip else 8)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        fine = self.stem(x)
        up = self.up(self.deep(self.down(fine)))
        return self.head(up, fine if self.skip else None)


class Head(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv(channels, 2)

    def forward(self, up: Tensor, fine: Tensor | None) -> Tensor:
        return self.conv(up if fine is None else torch.cat([up, fine], 1))


def test_what_leads_past_a_place_is_named() -> None:
    said = refusal(UNet(), "deep")
    assert "what 'stem' makes leads past it to 'head'" in said
    assert "choose one of" in said
    assert names(UNet()) == ["head.conv"]
    assert names(UNet(skip=False)) == ["down", "deep", "up", "head"]


def test_the_place_before_a_fork_is_refused_for_one_of_its_arms() -> None:
    # `down` takes the stem's map, and so does the head.
    assert "must be the only module that takes its input; 'head' takes it too" in refusal(UNet(), "down")


class Pyramid(nn.Module):
    """Returns the maps of all stages."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 4), nn.Conv2d(4, 4, 2, stride=2), nn.Conv2d(4, 4, 2, stride=2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        a = self.a(x)
        b = self.b(a)
        return {"a": a, "b": b, "c": self.c(b)}


@torch.no_grad()
def test_outputs_before_the_place_are_those_of_the_image() -> None:
    net, images = Pyramid().eval(), torch.randn(2, *SIZE)
    sites = clip_sites(net, input_size=SIZE)
    assert [(site.name, site.outputs_before) for site in sites] == [("b", ("['a']",)), ("c", ("['a']", "['b']"))]
    for site in sites:
        out = expanded(net, site, images, 3)
        assert {f"['{name}']": len(maps) for name, maps in out.items()} == {
            f"['{name}']": 2 if f"['{name}']" in site.outputs_before else 6 for name in out
        }


class TwoHeads(nn.Module):
    """A head on the last map, and one on the map before it, which runs last."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.stem, self.body, self.neck, self.head, self.aux = (conv(3 if i == 0 else 4, 4) for i in range(5))
        self.at = at

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = [self.stem(x)]
        for stage in (self.body, self.neck):
            maps.append(stage(maps[-1]))
        return {"out": self.head(maps[-1]), "aux": self.aux(maps[self.at])}


@torch.no_grad()
@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (0, {"body": ("aux",), "neck": ("aux",), "head": ("aux",), "aux": ("out",)}),
        (1, {"body": (), "neck": ("aux",), "head": ("aux",), "aux": ("out",)}),
        (2, {"body": (), "neck": (), "head": ("aux",), "aux": ("out",)}),
    ],
)
def test_a_head_that_does_not_pass_the_place_is_left_alone(at: int, expected: dict[str, tuple[str, ...]]) -> None:
    net, images = TwoHeads(at).eval(), torch.randn(2, *SIZE)
    sites = clip_sites(net, input_size=SIZE)
    assert {site.name: site.outputs_before for site in sites} == {
        name: tuple(f"['{path}']" for path in paths) for name, paths in expected.items()
    }
    everything = {site.name: site.macs_before + site.macs_after for site in sites}
    assert len(set(everything.values())) == 1
    for site in sites:
        rows = {path: len(maps) for path, maps in expanded(net, site, images, 3).items()}
        assert rows == {path: 2 if path in expected[site.name] else 6 for path in ("out", "aux")}
        assert plan(net, fusion="none", input_size=SIZE, clip_at=site.name).clip_site == site


class EarlyHead(TwoHeads):
    """One of its heads uses the number of images that was read before the body."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.stem(x)
        B = x.shape[0]
        y = self.body(x)
        early = self.aux(y).reshape(B, *y.shape[1:])
        return {"out": self.head(self.neck(y)), "aux": early}


def test_a_number_that_one_head_reads_early_counts_for_its_own_places_alone() -> None:
    assert names(EarlyHead(1)) == ["neck", "head"]
    for name in ("body", "aux"):
        assert "uses the number of images that it read before it" in refusal(EarlyHead(1), name)


def test_fusions_of_a_head_that_does_not_pass_the_place_are_left_out() -> None:
    made = plan(TwoHeads(0), fusion=TSMConfig(fold_div=2), input_size=SIZE, clip_at="neck")
    assert (made.names, [place.name for place in made.skipped]) == (("neck", "head"), ["body", "aux"])


@torch.no_grad()
def test_features_of_timm_before_the_place() -> None:
    net = timm.create_model("test_resnet", features_only=True).eval()
    sites = {site.name: site for site in clip_sites(net, input_size=(3, 64, 96))}
    assert sites["layer3"].outputs_before == ("[0]", "[1]", "[2]")
    assert sites["layer1"].outputs_before == ("[0]",)
    out = expanded(net, sites["layer3"], torch.randn(2, 3, 64, 96), 5)
    assert [len(maps) for maps in out] == [2, 2, 2, 10, 10]


class Early(nn.Module):
    """Reads the number of images at its beginning, and uses it at its end as `how` says."""

    def __init__(self, how: Callable[[Tensor, int], Tensor]) -> None:
        super().__init__()
        self.stem, self.body, self.head = conv(3, 4), conv(4, 4), conv(4, 4)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        B = x.shape[0]
        return self.how(self.head(self.body(self.stem(x))), B)


def flat(x: Tensor, B: int) -> Tensor:
    return x.view(B, -1)


def tokens(x: Tensor, B: int) -> Tensor:
    # With T times the rows this is T times the tokens: no error, another result.
    x = x.permute(0, 2, 3, 1).reshape(B, -1, 4)
    return (x @ x.transpose(1, 2)).softmax(-1) @ x


def scaled(x: Tensor, B: int) -> Tensor:
    return x / B


def masked(x: Tensor, B: int) -> Tensor:
    return x * torch.ones(B, 1, 1, 1)


@pytest.mark.parametrize("how", [flat, tokens, scaled, masked])
def test_a_number_of_images_that_was_read_before_is_refused(how: Callable[[Tensor, int], Tensor]) -> None:
    net = Early(how)
    assert names(net) == []
    assert "uses the number of images that it read before it" in refusal(net, "head")


def test_only_the_places_between_reading_and_use_are_refused() -> None:
    class Long(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(conv(3, 3), Inner(), conv(3, 3), Inner(), conv(3, 3))

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = nn.ModuleList(conv(3, 3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            shape = x.shape
            for step in self.steps:
                x = step(x)
            return x.reshape(shape)

    assert names(Long()) == ["1", "2", "3", "4"]
    assert "(its forward fails: shape '[2, 3, 24, 40]' is invalid" in refusal(Long(), "3.steps.1")


class Captures(nn.Module):
    """Layers in a row; of each pair (i, j), the number of rows read before layer i shapes what layer j returns."""

    def __init__(self, count: int, pairs: list[tuple[int, int]], last: bool) -> None:
        super().__init__()
        self.last = last
        self.steps = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(count))
        self.pairs = pairs

    def forward(self, x: Tensor) -> Tensor:
        read: dict[tuple[int, int], int] = {}
        for number, step in enumerate(self.steps):
            read |= {pair: x.shape[0] for pair in self.pairs if pair[0] == number}
            x = step(x)
            for pair in self.pairs:
                if pair[1] != number:
                    continue
                if self.last:  # With other rows, they would end up in the channels.
                    x = x.permute(0, 2, 3, 1).reshape(read[pair], *x.shape[2:], -1).permute(0, 3, 1, 2)
                else:
                    x = x.reshape(read[pair], 3, -1, x.shape[3])
        return x


@given(st.integers(2, 7), st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=3), st.booleans())
@settings(deadline=None, max_examples=12)
# Six rows fit into the two that were read, as channels; the hook of the next place must not hide that.
@example(7, [(0, 4)], True)
def test_of_many_places_those_between_a_reading_and_its_use_are_left_out(
    count: int, ends: list[tuple[int, int]], last: bool
) -> None:
    pairs = [(min(pair), max(pair)) for pair in ends if max(pair) < count]
    refused = {number for first, last in pairs for number in range(first, last + 1)}
    expected = [f"steps.{number}" for number in range(1, count) if number not in refused]
    assert names(Captures(count, pairs, last), (3, 4, 6)) == expected


class InPlace(nn.Module):
    """A module that writes into its input, which is used again behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.act, self.head = conv(3, 4), nn.ReLU(inplace=True), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        self.act(x)
        return self.head(x)


def test_a_module_that_writes_into_its_input_for_others_is_refused() -> None:
    assert names(InPlace()) == ["head"]
    assert "clip_at='act'" in refusal(InPlace(), "act")


class Casting(nn.Module):
    """A module that casts its input to the type that it has; the shortcut goes around it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = conv(3, 4), Cast(), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(x + self.branch(x))


class Cast(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.to(torch.float32).sigmoid()


def test_a_cast_that_changes_nothing_does_not_hide_the_shortcut() -> None:
    assert names(Casting()) == ["head"]
    assert "takes it too" in refusal(Casting(), "branch")


class Passing(nn.Module):
    """A module that also returns what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.both = conv(3, 4), Both()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.both(self.stem(x))


class Both(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, self.conv(x)


def test_a_module_that_returns_its_input_is_no_place_but_one_inside_is() -> None:
    # At `both` the first output would get the frames too; the trace takes it for the stem's.
    assert "an output has rows of neither" in refusal(Passing(), "both")


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared, self.head = conv(3, 4), conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.shared(self.shared(self.stem(x))))


def test_a_module_that_runs_several_times_is_refused() -> None:
    assert names(Twice()) == ["head"]
    assert "it runs 2 times in a forward" in refusal(Twice(), "shared")


class Odd(nn.Module):
    """Inputs by keyword, in a list, and the same one twice; and a module that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.keyword, self.listed, self.twice = conv(3, 4), Sum(), Sum(), Sum()
        self.idle, self.head = conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.keyword(a=self.stem(x))
        x = self.listed([x])
        return self.head(self.twice(x, x))


class Sum(nn.Module):
    def forward(self, a: Any, b: Tensor | None = None) -> Tensor:
        first = a[0] if isinstance(a, list) else a
        return first.sigmoid() if b is None else first + b


def test_inputs_that_no_hook_can_replace_are_refused() -> None:
    assert names(Odd()) == ["head"]
    for name in ("keyword", "listed"):
        assert "takes a map of the images as a positional input; Sum there takes none" in refusal(Odd(), name)
    assert "takes it several times" in refusal(Odd(), "twice")
    assert "it does not run under this name in a forward" in refusal(Odd(), "idle")


def test_names_that_are_no_place() -> None:
    net = residual_net()
    said = refusal(net, "1.7")
    assert "it is not there in Sequential" in said
    assert "choose one of 1.1, 1" in said
    assert "is where the images come in; a clip there begins with the image: 'image'" in refusal(net, "0")
    assert "is the network itself" in refusal(net, "")
    with pytest.raises(
        InputTypeError, match="clip_at must be the path of a module, 'image', None, or a list of such places, got 3"
    ):
        plan(net, input_size=SIZE, clip_at=3)  # type: ignore[arg-type]


def test_vectors_and_single_places_are_refused() -> None:
    net = residual_net()
    assert "the trace does not tell its rows and columns" in refusal(net, "4")
    assert "a map of a single place" in refusal(net, "3")


def test_windows_are_refused() -> None:
    for frames_first in (True, False):
        net = nn.Sequential(Windows(frames_first=frames_first), nn.Linear(16, 4))
        assert "1" in names(net)
        said = refusal(net, "0.fc1")
        assert "residual branch" in said


def test_windows_without_a_shortcut_are_refused() -> None:
    class Cut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.head = conv(3, 4), conv(4, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            windows = x.unflatten(2, (4, 6)).permute(0, 2, 1, 3, 4).flatten(0, 1)
            windows = self.inner(windows)
            return self.head(windows.unflatten(0, (-1, 4)).permute(0, 2, 1, 3, 4).flatten(2, 3))

    assert names(Cut()) == ["head"]
    assert "windows or patches, whose places are not the map's" in refusal(Cut(), "inner")


def test_transposed_maps_are_refused() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner, self.head = conv(3, 4), conv(4, 4), conv(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(self.stem(x).transpose(2, 3)).transpose(2, 3))

    assert names(Turned()) == ["head"]
    assert "the trace does not tell its rows and columns" in refusal(Turned(), "inner")


def test_tokens_with_a_prefix() -> None:
    net = nn.Sequential(Transformer(prefix=2), nn.LayerNorm(16))
    site = clip_sites(net, input_size=SIZE)[-1]
    assert (site.name, site.layout) == ("1", Layout(-1, "tokens", 2, (6, 10)))
    assert (site.map_size, site.channels, site.shape) == ((6, 10), 16, (1, 62, 16))


def test_tokens_behind_the_others_are_refused() -> None:
    class Suffix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.token = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.zeros(1, 1, 8))
            self.norm, self.last = nn.LayerNorm(8), nn.LayerNorm(8)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x).flatten(2).transpose(1, 2))
            return self.last(torch.cat([x, self.token.expand(x.shape[0], -1, -1)], 1))

    assert names(Suffix()) == ["norm"]
    assert "the trace does not tell its rows and columns" in refusal(Suffix(), "last")


def test_maps_with_channels_last() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm, self.linear = nn.Conv2d(3, 4, 4, stride=4), nn.LayerNorm(4), nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.norm(self.stem(x).permute(0, 2, 3, 1)))

    found = clip_sites(Last(), input_size=SIZE)
    assert [(site.name, site.layout, site.map_size) for site in found] == [
        ("norm", Layout(-1, "map"), (6, 10)),
        ("linear", Layout(-1, "map"), (6, 10)),
    ]


def test_a_view_of_turned_memory_stays_one() -> None:
    class Turning(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner = conv(3, 4), Viewing()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(self.stem(x).permute(0, 2, 3, 1))

    class Viewing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.permute(0, 3, 1, 2).view(x.shape[0], 4, -1)

    assert names(Turning()) == ["inner"]


class LooksAtData(nn.Module):
    """Branches on a value: fake tensors cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body, self.head = conv(3, 4), conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        B = x.shape[0]
        x = self.stem(x)
        if x.abs().sum().item() < 0:
            return x
        return self.head(self.body(x).view(B, 4, *x.shape[2:]))


def test_a_network_that_looks_at_its_data() -> None:
    assert names(LooksAtData()) == ["head"]
    assert "uses the number of images that it read before it" in refusal(LooksAtData(), "body")


def test_looking_for_places_leaves_the_network_as_it_is() -> None:
    net = timm.create_model("test_resnet").train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.get_rng_state()
    assert clip_sites(net)
    plan(net, clip_at="layer2")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(not module._forward_pre_hooks and not module._forward_hooks for module in net.modules())
    assert all(module.training for module in net.modules())


def test_backbones_that_no_plan_takes_are_refused_here_too() -> None:
    with pytest.raises(InputTypeError, match="the backbone must be"):
        clip_sites("resnet18")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no input size is known"):
        clip_sites(residual_net())
