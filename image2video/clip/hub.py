"""Genotypes on the Hugging Face Hub: one JSON file in a repository, or in a local folder that stands for one."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from image2video.errors import Image2VideoError, InputError, MissingError, StateError

if TYPE_CHECKING:
    from image2video.clip.genotype import Genotype

GENOTYPE_FILE = "genotype.json"
_REPOSITORY = re.compile(r"(?:[\w.-]+/)?[\w.-]+")


class Upload(TypedDict, total=False):
    """The options of an upload, as huggingface_hub knows them."""

    revision: str | None
    private: bool | None
    commit_message: str | None
    token: str | None


def push(
    genotype: Genotype,
    repo_id: str,
    *,
    filename: str = GENOTYPE_FILE,
    revision: str | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload the genotype as a file of a repository, made where there is none; see `Genotype.push_to_hub`."""
    _check_repository(repo_id)
    content = genotype.to_json().encode()
    from huggingface_hub import HfApi

    with _hub_errors(StateError, f"the genotype was not uploaded to {repo_id!r}", "log in with `hf auth login`, or"):
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_file(
            path_or_fileobj=content,
            path_in_repo=filename,
            repo_id=repo_id,
            revision=revision,
            commit_message=commit_message or f"Genotype {genotype}"[:72],
        )
    return str(commit.commit_url)


def fetch(
    repo_id: str | os.PathLike[str],
    *,
    filename: str = GENOTYPE_FILE,
    revision: str | None = None,
    token: str | None = None,
) -> Path:
    """The genotype file of a local folder or of a repository on the Hub, downloaded; see `Genotype.from_hub`."""
    folder = Path(repo_id)
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"{str(folder)!r} is a local folder, which has no revision={revision!r}; leave it out")
        if not (folder / filename).is_file():
            raise MissingError(f"the folder {str(folder)!r} holds no {filename}; name the file with filename=…")
        return folder / filename
    if isinstance(repo_id, os.PathLike) or folder.is_absolute():
        raise MissingError(f"there is no folder {str(folder)!r}")
    _check_repository(repo_id)
    from huggingface_hub import hf_hub_download

    what = f"there is no folder {repo_id!r} here, and the Hugging Face Hub gave no {filename} of {repo_id!r}"
    with _hub_errors(MissingError, what, "check the names; for a private repository"):
        return Path(hf_hub_download(repo_id, filename, revision=revision, token=token))


def _check_repository(repo_id: str) -> None:
    if not isinstance(repo_id, str) or not _REPOSITORY.fullmatch(repo_id):
        raise InputError(f"{repo_id!r} is no id of a repository on the Hugging Face Hub; it reads OWNER/NAME")


@contextmanager
def _hub_errors(kind: type[Image2VideoError], what: str, first: str) -> Iterator[None]:
    """Errors of the Hub and of the network on the way to it, as ours, with what to do."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    # A connection that fails raises the HTTP library's own error: that of which the Hub's is made.
    known: tuple[Any, ...] = (*HfHubHTTPError.__bases__, EntryNotFoundError, HFValidationError, OSError)
    try:
        yield
    except known as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{what}: {reason:.300}; {first} give token=…") from error
