"""The journal on disk: whole lines stay, half ones go, one process at a time."""

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from routedk.errors import DataError
from routedk.programs.journal.journal import AnswerJournal, JournaledAnswer, Tally


def answer(key: str, text: str = "1 2 | tea", cost: float | None = 0.5) -> JournaledAnswer:
    return JournaledAnswer(
        key=key,
        text=text,
        finish_reason="stop",
        input_tokens=10,
        output_tokens=3,
        cost=cost,
        seconds=0.25,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "journal.jsonl"


def fill(path: Path, *keys: str) -> None:
    with AnswerJournal(path) as journal:
        for key in keys:
            journal.append(answer(key))


def test_an_answer_is_on_disk_when_append_returns(path: Path) -> None:
    with AnswerJournal(path) as journal:
        journal.append(answer("a"))
        assert json.loads(path.read_text()) == {
            "key": "a",
            "text": "1 2 | tea",
            "finish_reason": "stop",
            "input_tokens": 10,
            "output_tokens": 3,
            "cost": 0.5,
            "seconds": 0.25,
        }


def test_what_was_written_is_read_again(path: Path) -> None:
    given = [
        answer("a", 'two\nlines, "quotes", ü, \u2028'),
        # Half a surrogate pair, as a server's JSON may hold it.
        answer("b", "\ud83d", cost=None),
        replace(answer("c", ""), whole={"message": {"parts": [1]}}),
    ]
    with AnswerJournal(path) as journal:
        for one in given:
            journal.append(one)
    with AnswerJournal(path) as journal:
        assert [journal.get(one.key) for one in given] == given
        assert journal.get("d") is None
        assert len(journal) == 3
        assert journal.total == Tally(
            calls=3, input_tokens=30, output_tokens=9, cost=1.0, unpriced=1
        )
        assert journal.total.tokens == 39


@pytest.mark.parametrize("half", [b'{"key": "c", "te', b'{"key": "c"}', b"\xc3", b"{"])
def test_a_half_last_line_is_cut_off(path: Path, half: bytes) -> None:
    fill(path, "a", "b")
    whole = path.read_bytes()
    path.write_bytes(whole + half)
    fill(path, "d")
    assert path.read_bytes().startswith(whole)
    with AnswerJournal(path) as journal:
        assert [key for key in "abcd" if journal.get(key)] == ["a", "b", "d"]


def test_every_cut_of_a_file_leaves_its_whole_lines(path: Path) -> None:
    fill(path, "a", "b")
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        with AnswerJournal(path) as journal:
            assert len(journal) == (length >= first) + (length == len(whole))
            kept = path.read_bytes()
        assert kept == (
            whole if length == len(whole) else whole[:first] if length >= first else b""
        )


def broken(name: str, value: object) -> Callable[[dict[str, object]], object]:
    return lambda record: {**record, name: value}


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda record: {}, r"its fields are \[\]"),
        (broken("extra", 1), r"its fields are \['cost', 'extra', 'finish_reason'"),
        (broken("key", 7), "key is 7, not a text"),
        (broken("text", None), "text is None, not a text"),
        (broken("input_tokens", -1), "input_tokens is -1, not a number of at least 0"),
        (broken("output_tokens", 1.5), "output_tokens is 1.5, not a number"),
        (broken("cost", "1"), "cost is '1', not a number"),
        (broken("seconds", None), "seconds is None, not a number"),
        (broken("seconds", True), "seconds is True, not a number"),
        (broken("whole", [1]), r"whole is \[1\], not a response"),
    ],
)
def test_a_broken_line_is_named(
    path: Path, spoil: Callable[[dict[str, object]], object], problem: str
) -> None:
    fill(path, "a", "b")
    lines = path.read_text().splitlines()
    lines[1] = json.dumps(spoil(json.loads(lines[1])))
    path.write_text("\n".join([*lines, lines[0], ""]))
    with pytest.raises(DataError, match=rf"journal.jsonl:2: not a journaled answer: {problem}"):
        AnswerJournal(path)


def test_a_broken_line_does_not_leave_the_journal_locked(path: Path) -> None:
    fill(path, "a")
    good = path.read_bytes()
    path.write_bytes(b"oops\n" + good)
    with pytest.raises(DataError, match=r"journal.jsonl:1: invalid JSON: .*mend or remove it"):
        AnswerJournal(path)
    path.write_bytes(good)
    fill(path, "b")


def test_a_second_process_is_refused(path: Path) -> None:
    script = (
        "import sys\nfrom routedk.programs.journal.journal import AnswerJournal\n"
        "journal = AnswerJournal(sys.argv[1])\nprint('open', flush=True)\nsys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(DataError, match=r"another process is writing to it \(wait for it or"):
            AnswerJournal(path)
        other.kill()
    # A killed process holds nothing.
    fill(path, "a")


def test_the_same_process_is_refused_a_second_time(path: Path) -> None:
    with AnswerJournal(path) as journal:
        with pytest.raises(DataError, match="another process is writing to it"):
            AnswerJournal(path)
        journal.append(answer("a"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/journal.jsonl: cannot write: .*mend it and run"):
        AnswerJournal(tmp_path / "file" / "journal.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="cannot read: Is a directory"):
        AnswerJournal(tmp_path / "folder")


class _FullDisk:
    """A file that takes a part of a line, then no more."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("ab", buffering=0)

    def write(self, data: bytes) -> int:
        if len(data) <= 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return self.file.write(data[:20])

    def __getattr__(self, name: str) -> object:
        return getattr(self.file, name)


def test_a_full_disk_is_an_error_and_leaves_no_half_line(path: Path) -> None:
    fill(path, "a")
    before = path.read_bytes()
    with AnswerJournal(path) as journal:
        file = journal._file
        journal._file = _FullDisk(path)  # type: ignore[assignment]
        with pytest.raises(DataError, match="cannot write: No space left on device"):
            journal.append(answer("b"))
        journal._file.close()
        assert path.read_bytes() == before
        assert journal.get("b") is None
        journal._file = file
        journal.append(answer("b"))
    with AnswerJournal(path) as journal:
        assert len(journal) == 2
