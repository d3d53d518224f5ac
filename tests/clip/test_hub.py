"""Genotypes on the Hub: what is sent, what comes back, local folders, and how errors read. No network is used."""

import shutil
import types
from pathlib import Path

import pytest
from huggingface_hub.errors import HfHubHTTPError

from image2video.clip.genotype import Genotype
from image2video.errors import InputError, MissingError, StateError

GENOTYPE = Genotype.parse("rotate(10) > scale(1.1)").with_provenance({"dataset": "digits", "score": 0.5})


class FakeHub:
    """A folder in place of the Hub: `upload_file` writes into it, the download gives its paths."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls, self.token = folder, [], None

    def __call__(self, token=None):
        self.token = token
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        self.calls.append(("create_repo", repo_id, private, exist_ok))
        (self.folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)

    def create_branch(self, repo_id, *, branch, exist_ok):
        self.calls.append(("create_branch", repo_id, branch, exist_ok))

    def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id, revision, commit_message):
        self.calls.append(("upload_file", path_in_repo, revision, commit_message))
        (self.folder / repo_id / path_in_repo).write_bytes(path_or_fileobj)
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def download(self, repo_id, filename, *, revision, token):
        self.calls.append(("download", repo_id, filename, revision, token))
        return str(shutil.copy(self.folder / repo_id / filename, self.folder / "cached.json"))


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    found = FakeHub(tmp_path / "hub")
    found.folder.mkdir()
    monkeypatch.setattr("huggingface_hub.HfApi", found)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", found.download)
    return found


def http_error(status: int = 401) -> HfHubHTTPError:
    response = types.SimpleNamespace(headers={}, request=None, status_code=status)
    return HfHubHTTPError(f"{status} Client Error: Unauthorized for url: https://hub", response=response)


def test_what_is_pushed_comes_back_with_its_provenance(fake: FakeHub) -> None:
    url = GENOTYPE.push_to_hub("someone/clips", private=True, token="t")
    assert url == "https://hub/someone/clips/commit/1"
    assert fake.token == "t"
    assert fake.calls == [
        ("create_repo", "someone/clips", True, True),
        ("upload_file", "genotype.json", None, "Genotype rotate(10) > scale(1.1)"),
    ]
    found = Genotype.from_hub("someone/clips", token="t")
    assert found == GENOTYPE
    assert found.provenance == GENOTYPE.provenance
    assert fake.calls[-1] == ("download", "someone/clips", "genotype.json", None, "t")


def test_file_branch_and_message_are_the_callers(fake: FakeHub) -> None:
    GENOTYPE.push_to_hub("clips", filename="cifar.json", revision="v2", commit_message="Found again")
    assert ("create_branch", "clips", "v2", True) in fake.calls
    assert fake.calls[-1] == ("upload_file", "cifar.json", "v2", "Found again")
    assert Genotype.from_hub("clips", filename="cifar.json", revision="v2") == GENOTYPE
    assert fake.calls[-1][1:4] == ("clips", "cifar.json", "v2")


def test_a_local_folder_stands_for_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda *a, **k: pytest.fail("the Hub was asked"))
    GENOTYPE.save(tmp_path / "genotype.json")
    for where in (tmp_path, str(tmp_path)):
        assert Genotype.from_hub(where) == GENOTYPE
        assert Genotype.from_hub(where).provenance["score"] == 0.5
    with pytest.raises(MissingError, match=r"holds no other\.json"):
        Genotype.from_hub(tmp_path, filename="other.json")
    with pytest.raises(InputError, match="no revision='v1'"):
        Genotype.from_hub(tmp_path, revision="v1")
    with pytest.raises(MissingError, match="no folder"):
        Genotype.from_hub(tmp_path / "missing")


@pytest.mark.parametrize("repo_id", ["a/b/c", "", "a b/c", "https://huggingface.co/a/b", 3])
def test_what_is_no_repository_is_refused_before_the_network(repo_id, fake: FakeHub) -> None:
    with pytest.raises(InputError, match="OWNER/NAME"):
        GENOTYPE.push_to_hub(repo_id)
    if isinstance(repo_id, str) and repo_id:
        with pytest.raises(InputError, match="OWNER/NAME"):
            Genotype.from_hub(repo_id)
    assert not fake.calls


@pytest.mark.parametrize("error", [http_error(), OSError("no route to host"), HfHubHTTPError.__bases__[0]("refused")])
def test_errors_of_the_hub_are_ours_and_say_what_to_do(error, fake: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args, **options):
        raise error

    monkeypatch.setattr(fake, "create_repo", fail)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(StateError, match=r"not uploaded to 'a/b': .*hf auth login") as pushed:
        GENOTYPE.push_to_hub("a/b")
    assert str(error) in str(pushed.value)
    with pytest.raises(MissingError, match=r"no folder 'a/b' here.*genotype\.json of 'a/b'.*hf auth login"):
        Genotype.from_hub("a/b")


def test_what_comes_back_is_read_as_any_genotype_file(fake: FakeHub) -> None:
    fake.create_repo("a/b", private=None, exist_ok=True)
    (fake.folder / "a/b" / "genotype.json").write_text('{"schema_version": 1, "chain": [{"op": "rotat"}]}')
    with pytest.raises(InputError, match=r"cached\.json"):
        Genotype.from_hub("a/b")
