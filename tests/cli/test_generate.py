import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest

from routedk.data import DataOptions, load_sessions
from routedk.eval import read_predictions

from .conftest import SESSIONS, Messages, Run, Script, name_of, records, write_records


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def expected(count: int = SESSIONS) -> list[dict[str, Any]]:
    return [
        {
            "session_id": f"s{k}",
            "bundles": [{"items": [f"{k}-0", f"{k}-1"], "intent": f"für s{k}"}],
        }
        for k in range(count)
    ]


@pytest.mark.usefixtures("asked")
def test_from_a_file_to_a_file(run: Run, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "bundles.jsonl"
    code, out, _ = run("generate", "--data", data, "--lm", "x", "--output", output)
    assert (code, out) == (0, "")
    assert lines(output.read_text(encoding="utf-8")) == expected()
    assert "für" in output.read_text(encoding="utf-8")
    assert len(read_predictions(output, load_sessions(data))) == SESSIONS


def test_the_same_command_resumes(run: Run, data: Path, tmp_path: Path, script: Script) -> None:
    output = tmp_path / "bundles.jsonl"
    options = ("generate", "--data", data, "--lm", "x", "--output", output, "--threads", "1")

    def fail(messages: Messages) -> str:
        if name_of(messages) == "s6":
            raise RuntimeError("the key is wrong")
        return f"1 2 | für {name_of(messages)}"

    script.answer = fail
    code, _, err = run(*options)
    assert code == 2
    assert "the key is wrong" in err
    # What a kill would leave, too.
    assert not output.exists()
    partial = tmp_path / "bundles.jsonl.partial"
    assert lines(partial.read_text(encoding="utf-8")) == expected(6)
    script.requests.clear()
    script.answer = lambda messages: f"1 2 | für {name_of(messages)}"
    for _ in range(2):
        assert run(*options)[0] == 0
        assert lines(output.read_text(encoding="utf-8")) == expected()
        assert not partial.exists()
    assert {"s6", "s9"} <= set(map(name_of, script.requests)) <= {f"s{k}" for k in range(6, 10)}


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[IO[bytes]]:
    """Standard input, to be written by the test."""
    with tempfile.TemporaryFile(buffering=0) as file:
        monkeypatch.setattr(sys, "stdin", file)
        yield file


def put(file: IO[bytes], content: bytes) -> None:
    file.write(content)
    file.seek(0)


@pytest.mark.usefixtures("asked")
def test_from_stdin_to_stdout(run: Run, stdin: IO[bytes]) -> None:
    text = "\n".join(json.dumps(r, ensure_ascii=False) for r in records(SESSIONS))
    put(stdin, text.encode())
    code, out, _ = run("generate", "--data", "-", "--lm", "x", "--threads", "2")
    assert code == 0
    assert lines(out) == expected()


@pytest.mark.usefixtures("asked")
def test_policies_hold_for_stdin(run: Run, stdin: IO[bytes], tmp_path: Path) -> None:
    titles = tmp_path / "titles.csv"
    titles.write_text("item ID,titles\n0-0,item 0 A\n")
    items = [{"id": "0-0", "title": ""}, {"id": "0-1", "title": "item 0 B"}, {"id": "0-2"}]
    put(stdin, json.dumps({"session_id": "s0", "items": items}).encode())
    options = ("--untitled", "drop", "--extra-titles", titles)
    code, out, _ = run("generate", "--data", "-", "--lm", "x", *options)
    assert code == 0
    assert lines(out) == expected(1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "error: <stdin>: holds no session"),
        (b'{"session_id": 1', "error: <stdin>:1: invalid JSON"),
        (b"\xff", "error: <stdin>: holds no session"),
        (b'{"session_id": "a"}', "error: <stdin>:1: "),
    ],
)
@pytest.mark.usefixtures("asked")
def test_broken_stdin(run: Run, stdin: IO[bytes], content: bytes, message: str) -> None:
    put(stdin, content)
    code, out, err = run("generate", "--data", "-", "--lm", "x", "--strict")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("source", ["-", "file"])
@pytest.mark.usefixtures("asked")
def test_sessions_that_cannot_be_read_are_told_in_their_places(
    run: Run, stdin: IO[bytes], tmp_path: Path, source: str
) -> None:
    good = [json.dumps(record).encode() for record in records(2)]
    content = b"\n".join([good[0], b'{"session_id": "bad"}', b"\xff", good[1], b"{"])
    if source == "-":
        put(stdin, content)
        place = "<stdin>"
    else:
        source = place = str(tmp_path / "f.jsonl")
        Path(source).write_bytes(content)
    code, out, err = run("generate", "--data", source, "--lm", "x")
    first, bad, third, last, broken = lines(out)
    assert code == 0
    assert [first, last] == expected(2)
    assert bad["error"].startswith(f"{place}:2: session 'bad': items: Field required")
    assert third["error"].startswith(f"{place}:3: byte 0xff is not UTF-8")
    assert broken["error"].startswith(f"{place}:5: invalid JSON")
    assert [one["session_id"] for one in (bad, third, broken)] == ["bad", "line 3", "line 5"]
    assert [one["bundles"] for one in (bad, third, broken)] == [[], [], []]
    assert "Sessions without an answer: 3 of 5, first bad: " in err
    code, _, err = run("generate", "--data", source, "--lm", "x", "--strict")
    assert code == 2


@pytest.mark.usefixtures("asked")
def test_untitled_items_are_said(run: Run, data: Path) -> None:
    assert "Warning" not in run("generate", "--data", data, "--lm", "x")[2]
    with data.open("a") as file:
        file.write('\n{"session_id": "z", "items": [{"id": "a"}, {"id": "b"}]}')
    _, _, err = run("generate", "--data", data, "--lm", "x")
    assert "items have no title and are shown as untitled" in err
    (split := data.with_name("s.json")).write_text('{"train": ["s0"], "val": [], "test": ["s1"]}')
    options = ("--data", data, "--lm", "x", "--split-file", split, "--split", "test")
    assert "Warning" not in run("generate", *options)[2]


def test_unreadable_answers_are_lines_with_an_error(run: Run, data: Path, script: Script) -> None:
    script.answer = lambda messages: (
        "I would rather not" if name_of(messages) in ("s2", "s5") else "1 2"
    )
    options = ("generate", "--data", data, "--lm", "x")
    code, out, err = run(*options)
    assert code == 0
    assert {r["session_id"] for r in lines(out) if r.get("error")} == {"s2", "s5"}
    assert [len(record["bundles"]) for record in lines(out)] == [1, 1, 0, 1, 1, 0, 1, 1, 1, 1]
    assert f"Sessions without an answer: 2 of {SESSIONS}, first s2: no bundle in" in err
    assert run(*options, "--fail-on-error") == (1, out, err)


@pytest.mark.usefixtures("asked")
def test_an_error_is_what_fails(run: Run, data: Path) -> None:
    assert run("generate", "--data", data, "--lm", "x", "--fail-on-error")[0] == 0


UNTITLED = [
    {"session_id": "bare", "items": [{"id": "b", "title": "B"}, {"id": "c", "title": " "}]},
    *records(2),
]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("source", ["file", "stdin"])
def test_dropped_sessions_are_lines(
    source: str, run: Run, stdin: IO[bytes], tmp_path: Path
) -> None:
    data = write_records(tmp_path / "sessions.jsonl", UNTITLED)
    put(stdin, data.read_bytes())
    place = data if source == "file" else "-"
    _, out, err = run("generate", "--data", place, "--lm", "x", "--untitled", "drop")
    bare, *others = lines(out)
    assert bare["session_id"] == "bare"
    assert bare["bundles"] == []
    assert bare["error"].startswith("fewer than two items have a title")
    assert others == expected(2)
    assert "Sessions without an answer: 1 of 3, first bare" in err


@pytest.mark.usefixtures("asked")
def test_dropped_sessions_of_a_split(run: Run, tmp_path: Path) -> None:
    data = write_records(tmp_path / "sessions.jsonl", UNTITLED)
    parts = tmp_path / "split.json"
    parts.write_text('{"train": ["s1"], "val": [], "test": ["s0", "bare"]}')
    options = ("generate", "--data", data, "--lm", "x", "--untitled", "drop", "--split", "test")
    found = lines(run(*options, "--split-file", parts)[1])
    assert [record["session_id"] for record in found] == ["s0", "bare"]
    output = tmp_path / "bundles.jsonl"
    run(*options, "--split-file", parts, "--output", output)
    # Scoring under the same policy does not know the session that was dropped.
    kept = load_sessions(data, DataOptions(untitled="drop"))
    assert [answer.session_id for answer in read_predictions(output, kept)] == ["s0"]


def test_lines_of_a_pipe_are_answered_as_they_come(tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[2])!r})\n"
        "from tests.scripted import scripted_lm\n"
        "import routedk.adapters.lm as module, routedk.cli\n"
        "def script(messages):\n"
        "    if 'item 1' in str(messages): raise RuntimeError('no key')\n"
        "    return '1 2'\n"
        "module.resolve_lm = lambda *names: scripted_lm(script)[0]\n"
        "routedk.cli.main(['generate', '--data', '-', '--lm', 'x'])\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "ROUTEDK_CACHE": str(tmp_path)},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        first, second = (json.dumps(record).encode() + b"\n" for record in records(2))
        process.stdin.write(first)
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["session_id"] == "s0"
        # The pipe stays open, and still an error ends the command with one line.
        process.stdin.write(second)
        process.stdin.flush()
        assert process.wait() == 2
        assert b"no key" in process.stderr.read()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--lm", "x", "--dtype", "bfloat16"), "--dtype is for the student, leave it out"),
        (("--lm", "hosted_vllm/x", "--program", "none.json"), "none.json: no such file"),
        (("--lm", "x", "--threads", "0"), "threads=0: it must be at least 1"),
        (("--lm", "x", "--output", "sessions.jsonl"), "sessions.jsonl: exists already, and this"),
        (("--lm", "x", "--output", "notes"), "notes: exists already, and this command did not"),
    ],
)
def test_what_is_refused(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    data: Path,
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(data.parent)
    (data.parent / "notes").write_text("mine")
    content = data.read_bytes()
    code, _, err = run("generate", "--data", data, *options)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1
    assert (data.read_bytes(), (data.parent / "notes").read_text()) == (content, "mine")


@pytest.mark.usefixtures("asked")
def test_an_earlier_output_is_replaced(run: Run, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "bundles.jsonl"
    for earlier in ("", '{"session_id": "old", "bundles": []}\n'):
        output.write_text(earlier)
        assert run("generate", "--data", data, "--lm", "x", "--output", output)[0] == 0
        assert lines(output.read_text(encoding="utf-8")) == expected()


def test_stdout_is_utf8_whatever_the_terminal(data: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[2])!r})\n"
        "from tests.scripted import scripted_lm\n"
        "import routedk.adapters.lm as module, routedk.cli\n"
        "model, _ = scripted_lm(lambda messages: '1 2 | f\\xfcr dich')\n"
        "module.resolve_lm = lambda *names: model\n"
        f"routedk.cli.main(['generate', '--data', {str(data)!r}, '--lm', 'x'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert "für dich" in done.stdout.decode("utf-8")
