"""Schedules: the power of every frame of a clip."""

from __future__ import annotations

from image2video.clip.checks import check_choice, check_frames

SCHEDULES: tuple[str, ...] = ("from_zero", "ramp", "centred", "mirror")


def schedule_steps(schedule: str, T: int) -> tuple[float, ...]:
    """Return the power s(t) of every frame t = 0 … T−1.

    `from_zero`: 0 … T−1 (ours, the default; frame 0 is the image itself). `ramp`: 1 … T (Casarin et al., CVPR 2024,
    Eq. 7). `centred`: −⌊T/2⌋ … T−1−⌊T/2⌋ (ours). `mirror`: |t − ⌊T/2⌋| (the authors' research code).
    Raises `InputError` for another schedule or T below 1, `InputTypeError` where T is no integer.

    >>> schedule_steps("centred", 4)
    (-2.0, -1.0, 0.0, 1.0)
    """
    check_choice("schedule", schedule, SCHEDULES)
    T = check_frames(T)
    offset = {"from_zero": 0, "ramp": -1, "centred": T // 2, "mirror": T // 2}[schedule]
    steps = tuple(float(t - offset) for t in range(T))
    return tuple(abs(s) for s in steps) if schedule == "mirror" else steps
