"""``routedk generate --engine ray``."""

from pathlib import Path

import pytest

from routedk.data import load_sessions
from routedk.eval import read_predictions

from ..adapters.conftest import student_folder  # noqa: TID252
from .conftest import SESSIONS, Run, records, write_records

__all__ = ["student_folder"]


def test_on_ray(run: Run, data: Path, tmp_path: Path, student_folder: Path) -> None:
    """A folder with the rows that a file has as lines, which the same command completes."""
    pytest.importorskip("ray", reason="Ray is not here: pip install 'routedk[ray]'")
    broken = b'{"session_id": "bad"}\n'
    data.write_bytes(broken + data.read_bytes())
    options = ("generate", "--data", data, "--student", student_folder, "--threads", "2")
    code, out, here = run(*options)
    assert code == 0
    folder = tmp_path / "bundles"
    on_ray = (*options, "--engine", "ray", "--actors", "1", "--batch-size", "8", "--output", folder)
    code, _, err = run(*on_ray, "--fail-on-error")
    assert code == 1
    assert err.splitlines()[-1].startswith("Sessions without an answer: ")
    assert (
        err.splitlines()[-1].partition(", first")[0]
        == here.splitlines()[-1].partition(", first")[0]
    )
    known = load_sessions(write_records(tmp_path / "known.jsonl", records(SESSIONS)))
    lined = tmp_path / "lines.jsonl"
    lined.write_text(out)
    by_line, by_row = (
        {answer.session_id: answer for answer in read_predictions(path, known)}
        for path in (lined, folder)
    )
    assert by_row == by_line
    assert len(by_row) == SESSIONS
    parts = {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")}
    assert len(parts) == 2
    # What could not be read is read again; what is there stays as it is.
    data.write_bytes(data.read_bytes().removeprefix(broken))
    assert run(*on_ray)[0] == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.glob("part-*")} == parts
    assert len(read_predictions(folder, known)) == SESSIONS
    code, _, err = run(*on_ray, "--untitled", "drop")
    assert code == 2
    assert "bundles: was made with a different untitled: keep, not drop; give the same" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--actors", "2"), "the options of Ray's actors and batches need --engine ray"),
        (("--engine", "ray"), "--engine=ray: name a folder with --output"),
        (("--engine", "ray", "--output", "."), "exists already: name another folder, or remove it"),
        (("--engine", "ray", "--num-cpus", "0", "--output", "x"), "--num-cpus=0: it must be at"),
    ],
)
def test_options_of_ray(
    run: Run, data: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(data.parent)
    code, _, err = run("generate", "--data", data, "--lm", "x", *options)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
