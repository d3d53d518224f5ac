"""The checkpoint of a running search: written after every unit of work, read to go on."""

from __future__ import annotations

from pathlib import Path

from accelerate.utils import gather_object

from image2video.errors import InputError
from image2video.files import atomic_torch_save, torch_load_last
from image2video.random_state import random_state, set_random_state
from image2video.search.run import SearchRun
from image2video.search.state import CHECKPOINT_FORMAT, SearchState, check_same_search


def save_run(run: SearchRun, path: Path) -> None:
    """Write the checkpoint (the main process does; all take part); the one before stays beside it.

    It holds weights, τ, both optimisers, the global generators of every process, and the records: tensors and plain
    values, no code.
    """
    run.share_buffers()
    generators = gather_object([random_state()]) if run.accelerator.num_processes > 1 else [random_state()]
    if not run.accelerator.is_main_process:
        return
    optimizer, scaler = run.bilevel.optimizer, run.accelerator.scaler
    content = {
        "format": CHECKPOINT_FORMAT,
        "config": run.config.to_dict(),
        "space": run.space.to_dict(),
        "network": run.bilevel.bare.state_dict(),
        "cell": run.cell.state_dict(),
        "optimizer": None if optimizer is None else optimizer.state_dict(),
        "tau_optimizer": run.bilevel.tau_optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "generators": generators,
        "state": run.state.to_dict(),
    }
    atomic_torch_save(path, content, keep_previous=True)


def load_run(run: SearchRun, path: Path) -> None:
    """Go on from a checkpoint, or where it is damaged from the one before, with a warning.

    Raises `InputError` where it is of another search or another network.
    """
    saved = torch_load_last(path)
    if not isinstance(saved, dict) or saved.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"{path} is not a checkpoint of a search that this version of image2video can resume")
    check_same_search(saved["config"], run.config.to_dict(), path)
    check_same_search(saved["space"], run.space.to_dict(), path)
    try:
        run.bilevel.bare.load_state_dict(saved["network"])
    except RuntimeError as error:
        raise InputError(f"{path} is of another network: {str(error).splitlines()[-1].strip()}") from error
    run.cell.load_state_dict(saved["cell"])
    run.bilevel.tau_optimizer.load_state_dict(saved["tau_optimizer"])
    if run.bilevel.optimizer is not None:
        run.bilevel.optimizer.load_state_dict(saved["optimizer"])
    if run.accelerator.scaler is not None and saved["scaler"] is not None:
        run.accelerator.scaler.load_state_dict(saved["scaler"])
    if len(saved["generators"]) == run.accelerator.num_processes:
        set_random_state(saved["generators"][run.accelerator.process_index])
    run.state = SearchState.from_dict(saved["state"])
