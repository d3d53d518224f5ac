"""The checkpoint of a running search: written after every unit of work, read to go on."""

from __future__ import annotations

import warnings
from pathlib import Path

from accelerate.utils import gather_object

from image2video.errors import InputError, InputTypeError
from image2video.runs.checkpoints import load_checkpoint
from image2video.runs.folders import atomic_torch_save
from image2video.runs.random_state import random_state, set_random_state
from image2video.runs.settings import same
from image2video.runs.weights import check_entries, load_state
from image2video.search.optimise.tensors import on_cpu
from image2video.search.run import SearchRun
from image2video.search.state.state import CHECKPOINT_FORMAT, READ_FORMATS, SearchState, check_same_search

_ENTRIES = {
    **dict.fromkeys(("config", "space", "network", "cell", "tau_optimizer", "state"), dict),
    "generators": list,
    "snapshot": object,
}
"""What a checkpoint holds, and of which type."""


def save_run(run: SearchRun, path: Path) -> None:
    """Write the checkpoint; the one before stays beside it. All processes must call this, the main one writes.

    It holds weights, τ, both optimisers, the snapshot where there is one, the global generators of every process, and
    the records: tensors and plain values, no code.
    """
    run.share_buffers()
    generators = gather_object([random_state()]) if run.accelerator.num_processes > 1 else [random_state()]
    if not run.accelerator.is_main_process:
        return
    content = {
        "format": CHECKPOINT_FORMAT,
        "config": run.config.to_dict(),
        "space": run.space.to_dict(),
        **run.bilevel.weights_state(),
        "cell": on_cpu(run.cell.state_dict()),
        "tau_optimizer": on_cpu(run.bilevel.tau_optimizer.state_dict()),
        "snapshot": run.kept,
        "generators": generators,
        "state": run.state.to_dict(),
    }
    atomic_torch_save(path, content, keep_previous=True)


def load_run(run: SearchRun, path: Path) -> None:
    """Go on from the checkpoint at `path`, or the one before it (see `load_checkpoint`), where there is one.

    Raises `InputError` where it is of another search or another network. With another number of processes than before,
    the run goes on from here, with a warning: it is no longer the run that it would have been.
    """
    accelerator = run.accelerator
    saved = load_checkpoint(path)
    if saved is None:
        return
    if not isinstance(saved, dict) or not any(same(saved.get("format"), known) for known in READ_FORMATS):
        raise InputError(
            f"{path} is no checkpoint of a search that this version of image2video can resume; begin anew with "
            "overwrite=True"
        )
    check_entries(saved, _ENTRIES, str(path))
    check_same_search(saved["config"], run.config.to_dict(), path)
    check_same_search(saved["space"], run.space.to_dict(), path)
    try:
        run.bilevel.load_weights_state(saved)
        load_state(run.cell, saved["cell"], f"the cell in {path}")
        run.bilevel.tau_optimizer.load_state_dict(saved["tau_optimizer"])
    except (InputError, InputTypeError) as error:
        raise type(error)(f"{path} cannot be resumed: {error}") from error
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:  # an optimiser's state
        raise InputError(f"{path} is of another network: {(str(error).splitlines() or ['?'])[-1].strip()}") from error
    run.kept = saved["snapshot"]
    if len(saved["generators"]) == accelerator.num_processes:
        set_random_state(saved["generators"][accelerator.process_index])
    elif accelerator.is_main_process:
        before, now = len(saved["generators"]), accelerator.num_processes
        warnings.warn(
            f"{path} was written with {before} processes and is resumed with {now}: the search goes on, but does not "
            "end as it would have",
            stacklevel=2,
        )
    try:
        run.state = SearchState.from_dict(saved["state"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} holds records of another form ({error}); begin anew with overwrite=True") from error
