"""The competitors of Casarin et al., CVPR 2024, Table 4: a network with dilated, or with 5×5, convolutions."""

from __future__ import annotations

from torch import nn

from image2video.errors import InputError

_SMALL, _LARGE = (3, 3), 5


def dilated(model: nn.Module) -> nn.Module:
    """Give the 3×3 convolutions of stride 1 a dilation of 2, in place; maps and parameters keep their sizes and values.

    Strided convolutions stay as they are: one of stride 2 and dilation 2 would read pixels of even rows and columns
    alone, as the strided 1×1 shortcut beside it does, and three quarters of its input would reach nothing. So does the
    first convolution of a network, which leaves no holes in the fields of those behind it. The paper says neither.

    Raises `InputError` for a network without such a convolution.
    """
    found = [(name, conv) for name, conv in _small(model) if conv.stride == (1, 1)]
    for name, conv in _checked(found, model, "a dilation of 2"):
        wider = _changed(conv, kernel=3, dilation=2)
        wider.weight, wider.bias = conv.weight, conv.bias
        model.set_submodule(name, wider)
    return model


def kernel5(model: nn.Module) -> nn.Module:
    """Give all 3×3 convolutions but the first 5×5 kernels, in place; maps keep their sizes, weights start afresh.

    The fresh weights are normal with the variance of He et al., ICCV 2015 (fan-out), as those of timm's ResNets and of
    the networks of this package. The first convolution stays, so that a small-image stem is treated as a 7×7 one is.
    The paper says neither.

    Raises `InputError` for a network without such a convolution.
    """
    for name, conv in _checked(_small(model), model, "a 5×5 kernel"):
        larger = _changed(conv, kernel=_LARGE, dilation=1)
        nn.init.kaiming_normal_(larger.weight, mode="fan_out", nonlinearity="relu")
        if larger.bias is not None:
            nn.init.zeros_(larger.bias)
        model.set_submodule(name, larger)
    return model


def _small(model: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    """The plain 3×3 convolutions without dilation behind the first convolution of a network, with their names."""
    convs = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    return [(name, conv) for name, conv in convs[1:] if conv.kernel_size == _SMALL and conv.dilation == (1, 1)]


def _checked(found: list[tuple[str, nn.Conv2d]], model: nn.Module, what: str) -> list[tuple[str, nn.Conv2d]]:
    if not found:
        convs = sorted({conv.kernel_size for conv in model.modules() if isinstance(conv, nn.Conv2d)})
        kernels = ", ".join("×".join(map(str, size)) for size in convs) or "no convolution at all"
        raise InputError(
            f"{type(model).__name__} has no 3×3 convolution that could get {what} (its kernels: {kernels}); this "
            "variant is one of residual and other convolutional networks"
        )
    return found


def _changed(conv: nn.Conv2d, *, kernel: int, dilation: int) -> nn.Conv2d:
    """A fresh convolution like a 3×3 one; its padding grows by as much as its reach, so that maps keep their size."""
    grown = (dilation * (kernel - 1) - 2) // 2
    padding = conv.padding if isinstance(conv.padding, str) else tuple(side + grown for side in conv.padding)
    return nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        kernel,
        stride=conv.stride,  # type: ignore[arg-type]
        padding=padding,  # type: ignore[arg-type]
        dilation=dilation,
        groups=conv.groups,
        bias=conv.bias is not None,
        padding_mode=conv.padding_mode,
        device=conv.weight.device,
        dtype=conv.weight.dtype,
    )
