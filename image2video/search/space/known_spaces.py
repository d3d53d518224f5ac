"""The search spaces that come with the library, as records for `SearchSpace.from_dict`."""

from __future__ import annotations

from typing import Any

AFFINE5: dict[str, Any] = {
    "name": "affine5",
    "candidates": ["translate_x(0.06)", "translate_y(0.06)", "scale(1.1)", "rotate(10)", "identity"],
}
"""The paper's second space (Casarin et al., CVPR 2024): 10 edges, 5^10. The steps' sizes are ours."""

AUTOAUGMENT13: dict[str, Any] = {
    "name": "autoaugment13",
    "candidates": [
        "shear_x(5) > shear_y(5)",
        "translate_x(0.06) > translate_y(0.06)",
        "rotate(10)",
        "autocontrast(1)",
        "invert(1)",
        "equalize(1)",
        "solarize(0.1)",
        "posterize(1)",
        "color(1.2)",
        "brightness(1.1)",
        "sharpness(1.3)",
        "cutout(0.25)",
        "identity",
    ],
    "inputs": 2,
}
"""The paper's first space (Casarin et al., CVPR 2024): the ops of AutoAugment, 14 edges, 13^14. The paper counts each
x/y pair once, so a pair moves along both axes; the steps' sizes are ours."""


def _both_signs(op: str, *magnitudes: str) -> list[str]:
    """Write an op at magnitudes of either sign."""
    return [f"{op}({sign}{magnitude})" for magnitude in magnitudes for sign in ("", "-")]


GENTLE: dict[str, Any] = {
    "name": "gentle",
    "candidates": [
        "identity",
        *_both_signs("translate_x", "0.01", "0.02", "0.03", "0.06"),
        *_both_signs("translate_y", "0.01", "0.02", "0.03", "0.06"),
        *_both_signs("rotate", "1", "2", "5"),
        *(f"scale({factor})" for factor in ("1.02", "0.98", "1.05", "0.95", "1.1", "0.9", "1.2")),
        "flip_x",
        "flip_y",
    ],
    "schedule": "centred",
}
"""Small steps of either sign, and mirror images (ours): a network that is trained already loses accuracy under large
steps. Zooms in go further than zooms out, since trained networks gain from the former alone."""

POSE: dict[str, Any] = {
    "name": "pose",
    "candidates": [
        "identity",
        *_both_signs("translate_x", "0.03", "0.06", "0.12", "0.2"),
        *_both_signs("translate_y", "0.03", "0.06", "0.12", "0.2"),
        *_both_signs("rotate", "5", "10", "15", "20", "30"),
        *(f"scale({factor})" for factor in ("1.1", "0.9", "1.2", "0.8", "1.35", "0.7")),
        "flip_x",
        "flip_y",
    ],
    "nodes": 2,
}
"""Shifts, turns and zooms of either sign at several magnitudes (ours): wide enough for a tilted camera or for objects
that are smaller than those of the training images. Chains have two steps at most."""

KNOWN_SPACES: tuple[dict[str, Any], ...] = (AFFINE5, AUTOAUGMENT13, GENTLE, POSE)
