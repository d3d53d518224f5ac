"""What of a larger network sees the frames of a clip that begins inside of one of its parts."""

import pytest
import torch
from torch import Tensor, nn

from image2video.inject.clip_reach import Reach, reach_of

EXAMPLE = torch.zeros(1, 3, 16, 24)


class Stages(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = self.first(images)
        second = self.second(first)
        return first, second, self.third(second)


class Heads(nn.Module):
    """Heads of the given features of a backbone, each of their sum."""

    def __init__(self, **taken: tuple[int, ...]) -> None:
        super().__init__()
        self.backbone, self.taken = Stages(), taken
        self.heads = nn.ModuleDict({name: nn.Conv2d(4, 2, 1) for name in taken})

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        features = self.backbone(images)
        return {name: self.heads[name](sum(features[i] for i in which)) for name, which in self.taken.items()}


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        ({"a": (2,), "b": (1,)}, Reach(("['a']",), ("['b']",), None)),
        ({"a": (2,), "b": (0, 1)}, Reach(("['a']",), ("['b']",), None)),
        ({"a": (0, 2), "b": (1,)}, Reach(("['a']",), ("['b']",), ("backbone.first", "(root)"))),
        ({"a": (1, 2)}, Reach(("['a']",), (), ("backbone.second", "(root)"))),
        ({"a": (0,)}, Reach((), ("['a']",), None)),
    ],
)
def test_outputs_before_and_behind_and_what_leads_past(taken: dict[str, tuple[int, ...]], expected: Reach) -> None:
    network = Heads(**taken)
    assert reach_of(network, EXAMPLE, "backbone.third", 0) == expected
    assert not any(module._forward_pre_hooks for module in network.modules())


def test_what_is_added_outside_of_all_modules_is_the_roots() -> None:
    class Around(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.last = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, images: Tensor) -> Tensor:
            doubled = images * 2
            return self.last(self.conv(doubled)) + doubled

    assert reach_of(Around(), EXAMPLE, "last", 0).bypass == ("(root)", "(root)")
