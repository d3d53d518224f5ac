"""What `image2video reproduce` says of a table before any of it runs: machines, hours, networks, a rehearsal."""

from __future__ import annotations

import tempfile

from rich.console import Console

from image2video.cli.progress import progress_bars
from image2video.errors import InputError
from image2video.reproduce.check import CheckedArm, check
from image2video.reproduce.rehearsal import Rehearsed, rehearse
from image2video.reproduce.spec import Experiment, Setting


def print_hours(console: Console, experiment: Experiment, scale: str) -> None:
    """A line for each row that states what it is expected to take, and their sum; nothing where none does."""
    settings = {row.name: row.settings[scale] for row in experiment.rows if scale in row.settings}
    stated = {name: setting for name, setting in settings.items() if setting.hours is not None}
    for name, setting in stated.items():
        _say(console, f"{name}: {_hours(setting)}")
    _total(console, experiment, scale, list(stated.values()))


def print_check(console: Console, experiment: Experiment, scale: str) -> None:
    """Hours and networks of every row, a line per arm; raises `InputError` after them where an arm cannot be built."""
    lines = check(experiment, scale)
    if not lines:
        _say(console, f"{experiment.name} trains nothing: it is drawn in seconds")
        return
    for row in dict.fromkeys(line.row for line in lines):
        mine = [line for line in lines if line.row == row]
        _say(console, f"{row}: {_hours(mine[0].setting)}, {_count(mine[0].setting.seeds, 'seed')}")
        width = max(len(line.arm.name) for line in mine)
        for line in mine:
            _say(console, f"  {line.arm.name:<{width}}  {_network(line)}")
    settings = {line.row: line.setting for line in lines}
    _total(console, experiment, scale, [setting for setting in settings.values() if setting.hours is not None])
    broken = sum(line.problem is not None for line in lines)
    if broken:
        raise InputError(
            f"{broken} of {len(lines)} arms of {experiment.name} cannot be built at scale {scale!r}; their lines say "
            "why"
        )
    _say(console, f"all {len(lines)} arms of {experiment.name} can be built at scale {scale!r}")


def rehearse_arms(console: Console, experiment: Experiment, scale: str, device: str) -> None:
    """Rehearse every arm in a temporary folder, a line each; raises `InputError` after them where one failed."""
    rows = [row for row in experiment.rows if scale in row.settings]
    if not rows:
        _say(console, f"{experiment.name} trains nothing: there is nothing to rehearse")
        return
    _say(
        console,
        f"{experiment.name} at scale {scale!r}, {_count(len(rows), 'row')}: every arm trains for two steps of a few "
        "images (T times the epochs: T times the steps) and is tested, on generated miniatures of the data. Networks "
        "have their full size: they need their memory, and on a CPU minutes for a row. Nothing is kept.",
    )
    failed, arms = 0, 0
    with tempfile.TemporaryDirectory(prefix="image2video-rehearsal-") as folder, progress_bars(show=True) as progress:
        for lines in rehearse(experiment, scale, folder, device=device, progress=progress):
            _say(console, f"{lines[0].row}:")
            width = max(len(line.arm.name) for line in lines)
            for line in lines:
                _say(console, f"  {line.arm.name:<{width}}  {_rehearsal(line)}")
            failed, arms = failed + sum(line.problem is not None for line in lines), arms + len(lines)
    if failed:
        raise InputError(
            f"{failed} of {arms} arms of {experiment.name} failed their rehearsal at scale {scale!r}; their lines say "
            "why"
        )
    _say(console, f"all {arms} arms of {experiment.name} ran at scale {scale!r}")


def _rehearsal(line: Rehearsed) -> str:
    if line.problem is not None:
        return f"failed: {line.problem}"
    return f"{_count(line.steps, 'step')}, tested, {line.seconds:.1f} s"


def _network(line: CheckedArm) -> str:
    network = line.network
    if network is None:
        return f"failed: {line.problem}"
    size = "×".join(map(str, network.input_size))
    model = line.setting.config or line.setting.model
    model = f"{model}, {line.arm.variant}" if line.arm.variant else model
    training = _count(line.epochs, "epoch") if network.steps is None else _count(network.steps, "step")
    fusion = f"{line.arm.fusion} at {network.sites} sites, " if network.sites else ""
    return (
        f"{model}, {fusion}{_count(line.frames, 'frame')} of {size}, {network.classes} classes, "
        f"{training}: {network.parameters:,} parameters, {network.macs / 1e6:,.1f} M MACs per image"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _hours(setting: Setting) -> str:
    if setting.hours is None:
        return "hours not stated"
    return f"about {setting.hours:,g} hours on {setting.machine or 'one machine'}"


def _total(console: Console, experiment: Experiment, scale: str, stated: list[Setting]) -> None:
    if len(stated) > 1:
        hours = sum(setting.hours or 0 for setting in stated)
        _say(console, f"{experiment.name} at scale {scale!r}: about {hours:,g} hours in all")


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)
