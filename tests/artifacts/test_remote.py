import tarfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from routedk.artifacts import ArtifactStore
from routedk.artifacts.remote import fetch
from routedk.errors import ArtifactError, SettingError

from .test_store import never, recipe, write


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    yield {"memory": "memory://shared/store", "file": f"file://{tmp_path}/shared"}[request.param]
    if request.param == "memory":
        fsspec.filesystem("memory").rm("/shared", recursive=True)


def machine(name: str, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ArtifactStore:
    """The store at a URL, on a machine with a cache of its own."""
    monkeypatch.setenv("ROUTEDK_CACHE", str(tmp_path / name))
    return ArtifactStore(url)


def files(url: str) -> list[str]:
    system, root = fsspec.core.url_to_fs(url)
    return sorted(path.removeprefix(root).lstrip("/") for path in system.find(root))


def test_what_one_machine_made_another_one_has(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = machine("first", url, monkeypatch, tmp_path)
    assert first.find(recipe()) is None
    made = first.obtain(recipe(), write)
    assert files(url) == [f"toy/{recipe().key}.tar"]
    second = machine("second", url, monkeypatch, tmp_path)
    assert second.root != first.root
    found = second.obtain(recipe(), never)
    assert (found.reused, found.seconds, found.key) == (True, made.seconds, made.key)
    assert (found.folder / "deep" / "text.txt").read_text() == "four"
    # From then on it is on this machine.
    fsspec.core.url_to_fs(url)[0].rm(f"{fsspec.core.url_to_fs(url)[1]}/toy", recursive=True)
    assert second.obtain(recipe(), never).folder == found.folder


def test_of_two_that_make_it_at_once_both_have_the_first_ones(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fast = machine("fast", url, monkeypatch, tmp_path)
    slow = machine("slow", url, monkeypatch, tmp_path)

    def slowly(out: Path, work: Path) -> None:
        fast.obtain(recipe(), write)
        (out / "other.txt").write_text("five")

    made = slow.obtain(recipe(), slowly)
    assert made.reused
    assert (made.folder / "deep" / "text.txt").read_text() == "four"
    assert not (made.folder / "other.txt").exists()
    assert not any((slow.root / "work").iterdir())


def test_a_failed_upload_leaves_nothing_there(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store = machine("one", url, monkeypatch, tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tarfile.TarFile, "add", full)
        with pytest.raises(OSError, match="No space left"):
            store.obtain(recipe(), write)
    assert files(url) == []
    assert store.find(recipe()) is None
    assert not store.obtain(recipe(), write).reused
    assert len(files(url)) == 1


def test_a_damaged_archive_is_named(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine("first", url, monkeypatch, tmp_path).obtain(recipe(), write)
    system, root = fsspec.core.url_to_fs(url)
    place = f"{root}/toy/{recipe().key}.tar"
    system.pipe_file(place, system.cat_file(place)[:700])
    store = machine("second", url, monkeypatch, tmp_path)
    with pytest.raises(ArtifactError, match=rf"{recipe().key}\.tar: .*: remove it"):
        store.find(recipe())
    assert not store.folder("toy", recipe().key).exists()


def test_an_archive_reaches_no_file_outside(tmp_path: Path) -> None:
    where = tmp_path / "shared" / "toy"
    where.mkdir(parents=True)
    (tmp_path / "evil").write_text("evil")
    with tarfile.open(where / "key.tar", "w") as archive:
        archive.add(tmp_path / "evil", arcname="../../evil")
    folder = tmp_path / "store" / "artifacts" / "toy" / "key"
    with pytest.raises(ArtifactError, match="remove it"):
        fetch(f"file://{tmp_path}/shared", "toy", "key", folder)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nowhere://x/y", "store nowhere://x/y: Protocol not known: nowhere"),
        ("gs://x/y", "store gs://x/y: .*gcsfs"),
    ],
)
def test_a_url_that_cannot_be_opened(url: str, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        ArtifactStore(url).obtain(recipe(), never)
