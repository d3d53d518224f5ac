"""What `image2video reproduce` says of a table before any of it runs: machines, hours, networks."""

from __future__ import annotations

from rich.console import Console

from image2video.errors import InputError
from image2video.reproduce.check import CheckedArm, check
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


def _network(line: CheckedArm) -> str:
    network = line.network
    if network is None:
        return f"failed: {line.problem}"
    size = "×".join(map(str, network.input_size))
    model = f"{line.setting.model}, {line.arm.variant}" if line.arm.variant else line.setting.model
    fusion = f"{line.arm.fusion} at {network.sites} sites, " if network.sites else ""
    return (
        f"{model}, {fusion}{_count(line.frames, 'frame')} of {size}, {network.classes} classes, "
        f"{_count(line.epochs, 'epoch')}: "
        f"{network.parameters:,} parameters, {network.macs / 1e6:,.1f} M MACs per image"
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
