"""Single files on the Hugging Face Hub: sent to a repository, or fetched from one or from a local folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

from image2video.errors import Image2VideoError, InputError, MissingError, StateError

GENOTYPE_FILE = "genotype.json"
_REPOSITORY = re.compile(r"(?:[\w.-]+/)?[\w.-]+")


class Upload(TypedDict, total=False):
    """The options of an upload, as huggingface_hub knows them."""

    revision: str | None
    private: bool | None
    commit_message: str | None
    token: str | None


def push(
    content: bytes,
    repo_id: str,
    *,
    filename: str,
    title: str,
    revision: str | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    token: str | None = None,
) -> str:
    """Upload `content` as a file of a repository and return the commit's address; make the repository if needed.

    `title` is the commit message where the caller gives none. Raises as `Genotype.push_to_hub` does.
    """
    _check_repository(repo_id)
    from huggingface_hub import HfApi

    with _hub_errors(
        StateError, f"the genotype was not uploaded to {repo_id!r}", "log in with `hf auth login`, or give token=…"
    ):
        api = HfApi(token=token)
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_file(
            path_or_fileobj=content,
            path_in_repo=filename,
            repo_id=repo_id,
            revision=revision,
            commit_message=commit_message or title,
        )
    return str(commit.commit_url)


def fetch(
    repo_id: str | os.PathLike[str], *, filename: str, revision: str | None = None, token: str | None = None
) -> Path:
    """Return the path of a file of a local folder or of a repository on the Hub; see `Genotype.from_hub`."""
    folder = Path(repo_id)
    if folder.is_dir():
        if revision is not None:
            raise InputError(f"{str(folder)!r} is a local folder, which has no revision={revision!r}; leave it out")
        if not (folder / filename).is_file():
            raise MissingError(f"the folder {str(folder)!r} holds no {filename}; name the file with filename=…")
        return folder / filename
    if isinstance(repo_id, os.PathLike) or folder.is_absolute():
        raise MissingError(f"there is no folder {str(folder)!r}; give a folder, or OWNER/NAME of a repository")
    _check_repository(repo_id)
    return download(repo_id, filename, revision=revision, token=token)


def download(repo_id: str, filename: str, *, revision: str | None = None, token: str | None = None) -> Path:
    """Download a file of a repository on the Hub and return its path; raise `MissingError` where that fails."""
    from huggingface_hub import hf_hub_download

    what = f"there is no folder {repo_id!r} here, and the Hugging Face Hub gave no {filename} of {repo_id!r}"
    with _hub_errors(MissingError, what, "check the names, and log in with `hf auth login` for a private one"):
        return Path(hf_hub_download(repo_id, filename, revision=revision, token=token))


def _check_repository(repo_id: str) -> None:
    """Raise `InputError` for what cannot be the id of a repository."""
    if not isinstance(repo_id, str) or not _REPOSITORY.fullmatch(repo_id):
        raise InputError(f"the id of a repository on the Hugging Face Hub must read OWNER/NAME, got {repo_id!r}")


@contextmanager
def _hub_errors(kind: type[Image2VideoError], what: str, remedy: str) -> Iterator[None]:
    """Turn errors of the Hub and of the network into ours, and say what to do."""
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    # A connection that fails raises an error of the HTTP library, which is a base class of the Hub's own error.
    known: tuple[Any, ...] = (*HfHubHTTPError.__bases__, EntryNotFoundError, HFValidationError, OSError)
    try:
        yield
    except known as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise kind(f"{what}: {reason:.300}; {remedy}") from error
