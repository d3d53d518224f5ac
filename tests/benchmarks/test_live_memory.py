"""Peak and saved memory count what is alive at one time, and nothing from before."""

import torch

from image2video.training.live_memory import peak_bytes


def test_memory_is_what_is_alive_at_one_time(load) -> None:
    memory = load("live_memory")
    x, one = torch.ones(1000, requires_grad=True), 4 * 1000
    cpu = torch.device("cpu")

    def two_at_a_time() -> None:
        y = x.detach() * 2
        for _ in range(5):
            y = y + 1

    def keeps_for_backward() -> torch.Tensor:
        return x.exp().sin().sum()  # exp is saved, and sin's result is gone before the sum is

    assert peak_bytes(two_at_a_time, cpu) == 2 * one
    assert peak_bytes(lambda: x.detach().view(10, 100).t(), cpu) == 0
    forward = peak_bytes(keeps_for_backward, cpu)
    assert 2 * one <= forward <= 2 * one + 16
    assert peak_bytes(lambda: keeps_for_backward().backward(), cpu) > forward
    assert memory.saved_bytes(keeps_for_backward, []) == one, "sin keeps the output that exp keeps too"
    weight = torch.ones(1000, requires_grad=True)
    assert memory.saved_bytes(lambda: (x.detach() * weight).sum().backward(), [x]) == 0
    assert memory.saved_bytes(lambda: [(x * weight).sum().backward() for _ in range(3)], []) == 2 * one
