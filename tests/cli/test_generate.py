import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from routedk.cli import main

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="routedk-dspy-"))

SESSIONS = 10
Messages = list[dict[str, str]]
Run = tuple[int, str, str]


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Run:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def records(count: int = SESSIONS) -> list[dict[str, Any]]:
    return [
        {
            "session_id": f"s{k}",
            "items": [{"id": f"{k}-{n}", "title": f"item {k} {n} é"} for n in range(2 + k % 3)],
        }
        for k in range(count)
    ]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.jsonl"
    path.write_text("\n".join(map(json.dumps, records())), encoding="utf-8")
    return path


class Asked:
    """The scripted student: what it was asked, and a hook before each answer."""

    def __init__(self) -> None:
        self.sessions: list[str] = []
        self.before: Callable[[str], None] = lambda session: None

    def __call__(self, messages: Messages) -> str:
        session = "s" + messages[-1]["content"].split(" ")[2]
        self.before(session)
        self.sessions.append(session)
        return f"1 2 | für {session}"


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    from routedk.programs.testing import scripted_lm

    script = Asked()
    model, _ = scripted_lm(script)
    monkeypatch.setattr("routedk.cli.generate.resolve_lm", lambda **options: model)
    return script


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


def test_from_a_file_to_a_file(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, asked: Asked
) -> None:
    output = tmp_path / "deep" / "bundles.jsonl"
    code, out, _ = run(capsys, "generate", "--data", data, "--lm", "x", "--output", output)
    assert (code, out) == (0, "")
    text = output.read_text(encoding="utf-8")
    assert lines(text) == expected()
    assert "für" in text


def test_evaluate_reads_what_generate_writes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, asked: Asked
) -> None:
    from routedk.data import load_sessions
    from routedk.eval.predictions import read_predictions

    data = tmp_path / "sessions.jsonl"
    data.write_text("\n".join(map(json.dumps, records())), encoding="utf-8")
    run(capsys, "generate", "--data", data, "--lm", "x", "--output", tmp_path / "b.jsonl")
    sessions = load_sessions(data)
    assert len(read_predictions(tmp_path / "b.jsonl", sessions)) == SESSIONS


def test_from_a_file_to_stdout(
    capsys: pytest.CaptureFixture[str], data: Path, asked: Asked
) -> None:
    code, out, _ = run(capsys, "generate", "--data", data, "--lm", "x", "--threads", "2")
    assert code == 0
    assert lines(out) == expected()


def stdin_of(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))


def test_from_stdin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: Asked
) -> None:
    content = "\n".join(json.dumps(record, ensure_ascii=False) for record in records())
    stdin_of(monkeypatch, content.encode())
    code, out, _ = run(capsys, "generate", "--data", "-", "--lm", "x")
    assert code == 0
    assert lines(out) == expected()


def test_options_hold_for_stdin(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    asked: Asked,
) -> None:
    titles = tmp_path / "titles.csv"
    titles.write_text("item ID,titles\n0-0,item 0 A\n")
    content = [{"session_id": "s0", "items": [{"id": "0-0", "title": ""}, {"id": "0-1"}]}]
    content[0]["items"][1]["title"] = "item 0 B"  # type: ignore[index]
    stdin_of(monkeypatch, json.dumps(content[0]).encode())
    options = ("--untitled", "drop", "--extra-titles", titles)
    code, out, _ = run(capsys, "generate", "--data", "-", "--lm", "x", *options)
    assert code == 0
    assert lines(out) == expected(1)

    stdin_of(monkeypatch, "\n".join(map(json.dumps, records())).encode())
    code, out, _ = run(capsys, "generate", "--data", "-", "--lm", "x", "--split", "test")
    assert code == 0
    assert len(lines(out)) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "error: <stdin>: holds no session"),
        (b'{"session_id": 1', "error: <stdin>:1: invalid JSON"),
        (b'{"session_id": "a", "items": [{"id": "x", "title": "t"}]}\n\xff', "<stdin>:2: byte"),
        (b'{"session_id": "a"}', "error: <stdin>:1: "),
    ],
)
def test_broken_stdin(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    asked: Asked,
    content: bytes,
    message: str,
) -> None:
    stdin_of(monkeypatch, content)
    code, out, err = run(capsys, "generate", "--data", "-", "--lm", "x")
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("cut", [1, 10, 30, 200, 271, 272, 273, -3, -1])
def test_resuming_neither_repeats_nor_loses(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, asked: Asked, cut: int
) -> None:
    output = tmp_path / "bundles.jsonl"
    options = ("generate", "--data", data, "--lm", "x", "--output", output)
    run(capsys, *options)
    whole = output.read_bytes()
    left = whole[:cut]
    output.write_bytes(left)
    asked.sessions.clear()
    code, _, _ = run(capsys, *options, "--resume")
    assert code == 0
    assert output.read_bytes() == whole
    kept = left.count(b"\n")
    assert sorted(asked.sessions) == [f"s{k}" for k in range(kept, SESSIONS)]
    asked.sessions.clear()
    code, _, err = run(capsys, *options, "--resume")
    assert (code, asked.sessions) == (0, [])
    assert "All 10 sessions are done." in err
    assert output.read_bytes() == whole


def test_only_the_same_program_and_lm_go_on(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, asked: Asked
) -> None:
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.knowledge.compiled import CompiledKnowledge

    program, output = tmp_path / "program.json", tmp_path / "bundles.jsonl"
    BundleGenerator().save(program)
    options = ("generate", "--data", data, "--lm", "x", "--program", program, "--output", output)
    run(capsys, *options)
    written = output.read_bytes()
    output.write_bytes(written[:200])
    BundleGenerator(CompiledKnowledge(rules=("Chargers go with phones.",))).save(program)
    code, _, err = run(capsys, *options, "--resume")
    assert code == 2
    assert "begun with another program, see bundles.jsonl.made-by.json" in err
    BundleGenerator().save(program)
    assert run(capsys, *options, "--resume")[0] == 0
    assert output.read_bytes() == written


def test_a_run_that_wrote_nothing_binds_nobody(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, asked: Asked
) -> None:
    output = tmp_path / "bundles.jsonl"
    output.touch()
    Path(f"{output}.made-by.json").write_text('{"lm": "another", "program": null}')
    options = ("generate", "--data", data, "--lm", "x", "--output", output, "--resume")
    assert run(capsys, *options)[0] == 0
    assert lines(output.read_text(encoding="utf-8")) == expected()


def test_dtype_is_of_the_student(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    code, _, err = run(capsys, "generate", "--data", data, "--lm", "x", "--dtype", "bfloat16")
    assert code == 2
    assert "--dtype is of the student: leave it out with --lm" in err


def test_untitled_items_are_said(
    capsys: pytest.CaptureFixture[str], data: Path, asked: Asked
) -> None:
    assert "Warning" not in run(capsys, "generate", "--data", data, "--lm", "x")[2]
    data.write_text('{"session_id": "s0", "items": [{"id": "a", "title": "0 "}, {"id": "b"}]}')
    _, _, err = run(capsys, "generate", "--data", data, "--lm", "x")
    assert "Warning: 1 of 2 items have no title and are shown as untitled" in " ".join(err.split())


def test_a_failing_lm_leaves_what_was_written(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, asked: Asked
) -> None:
    output = tmp_path / "bundles.jsonl"
    options = ("generate", "--data", data, "--lm", "x", "--output", output, "--threads", "1")

    def fail(session: str) -> None:
        if session == "s6":
            raise RuntimeError("the key is wrong")

    asked.before = fail
    code, _, err = run(capsys, *options)
    assert code == 2
    last = err.strip().splitlines()[-1]
    assert last.startswith("error: the language model failed: ")
    assert "the key is wrong" in last
    assert lines(output.read_text(encoding="utf-8")) == expected(4)

    asked.before = lambda session: None
    asked.sessions.clear()
    code, _, _ = run(capsys, *options, "--resume")
    assert code == 0
    assert lines(output.read_text(encoding="utf-8")) == expected()
    assert sorted(asked.sessions) == [f"s{k}" for k in range(4, SESSIONS)]


def test_no_file_is_overwritten(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, asked: Asked
) -> None:
    output = tmp_path / "bundles.jsonl"
    output.write_text("mine")
    code, _, err = run(capsys, "generate", "--data", data, "--lm", "x", "--output", output)
    assert code == 2
    assert "exists already (give --resume, or another --output)" in err
    assert output.read_text() == "mine"
    assert asked.sessions == []


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("mine", 1),
        ('{"session_id": "s0", "items": []}\n', 1),
        ('{"session_id": "s0", "bundles": []}\n{"a": 1}\n', 2),
        ('{"session_id": "s0", "bundles": []}\n# my notes', 2),
        ("[1]\n", 1),
    ],
)
def test_only_its_own_files_are_resumed(
    capsys: pytest.CaptureFixture[str],
    data: Path,
    tmp_path: Path,
    asked: Asked,
    content: str,
    line: int,
) -> None:
    output = tmp_path / "bundles.jsonl"
    output.write_text(content)
    options = ("--data", data, "--lm", "x", "--output", output, "--resume")
    code, _, err = run(capsys, "generate", *options)
    assert code == 2
    assert f"{output}:{line}: " in err
    assert output.read_text() == content


def test_a_split_without_sessions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, asked: Asked
) -> None:
    data = tmp_path / "one.jsonl"
    data.write_text('{"session_id": "s", "items": [{"id": "a", "title": "tea"}]}\n')
    options = ("--data", data, "--split", "test", "--lm", "x")
    code, _, err = run(capsys, "generate", *options)
    assert code == 2
    assert f"{data}: the split 'test' has no session" in err


def test_resume_without_a_file(
    capsys: pytest.CaptureFixture[str], data: Path, asked: Asked
) -> None:
    code, _, err = run(capsys, "generate", "--data", data, "--lm", "x", "--resume")
    assert code == 2
    assert "--resume needs --output FILE" in err


def test_no_program(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, asked: Asked
) -> None:
    options = ("--data", data, "--lm", "x", "--program", tmp_path / "none.json")
    code, _, err = run(capsys, "generate", *options)
    assert code == 2
    assert "none.json: no such file" in err


def test_a_model_without_likelihoods_is_refused_before_it_is_asked(
    capsys: pytest.CaptureFixture[str], data: Path, tmp_path: Path, asked: Asked
) -> None:
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.grouping import SimilarIntents

    grouping = SimilarIntents(weight=0.5, threshold=0.5, by_likelihood=True)
    BundleGenerator(grouping=grouping).save(tmp_path / "program.json")
    options = ("--lm", "x", "--program", tmp_path / "program.json", "--output", tmp_path / "b")
    code, out, err = run(capsys, "generate", "--data", data, *options)
    assert (code, out, asked.sessions) == (2, "", [])
    assert err.startswith("error: this program compares intents by their likelihood, which only")
    assert "compile it for this language model" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program.json", "sessions.jsonl"]


def test_unparsable_answers_are_sessions_without_bundles(
    capsys: pytest.CaptureFixture[str], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from routedk.programs.testing import scripted_lm

    model, _ = scripted_lm(lambda messages: "I would rather not")
    monkeypatch.setattr("routedk.cli.generate.resolve_lm", lambda **options: model)
    code, out, _ = run(capsys, "generate", "--data", data, "--lm", "x")
    assert code == 0
    assert [record["bundles"] for record in lines(out)] == [[]] * SESSIONS


def test_which_lm(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    code, _, err = run(capsys, "generate", "--data", data)
    assert code == 2
    assert "which language model?" in err


def test_stdout_is_utf8_whatever_the_terminal(data: Path, tmp_path: Path) -> None:
    code = (
        "from routedk.programs.testing import scripted_lm\n"
        "import routedk.cli.generate as module, routedk.cli\n"
        "model, _ = scripted_lm(lambda messages: '1 2 | f\\xfcr dich')\n"
        "module.resolve_lm = lambda **options: model\n"
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


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "generate", "--help")
    assert code == 0
    assert "Example: routedk generate --data demo" in out


def test_sessions_that_are_answered_are_no_neighbours(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    data: Path,
    tmp_path: Path,
) -> None:
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.knowledge.compiled import CompiledKnowledge
    from routedk.programs.testing import scripted_lm
    from routedk.types import Bundle, Item, Session

    def session(name: str, *titles: str) -> Session:
        items = tuple(Item(f"{name}-{n}", title) for n, title in enumerate(titles))
        return Session(name, items, (Bundle((items[0].id, items[1].id), f"gold of {name}"),))

    known = tuple(session(f"s{k}", f"item {k} 0 é", f"item {k} 1 é") for k in range(SESSIONS))
    knowledge = CompiledKnowledge(
        k=2,
        sessions=(*known, session("other", "item", "thing")),
        thoughts={"s0": "thought of s0", "other": "thought of other"},
        show_thoughts=True,
    )
    BundleGenerator(knowledge).save(tmp_path / "program.json")
    lm, engine = scripted_lm(lambda messages: "1 2")
    monkeypatch.setattr("routedk.cli.generate.resolve_lm", lambda **options: lm)
    options = ("--lm", "x", "--program", tmp_path / "program.json")
    code, _, err = run(capsys, "generate", "--data", data, *options)
    assert code == 0
    assert "10 of the program's 11 training sessions are among those answered" in err
    assert len(engine.requests) == SESSIONS
    for messages in engine.requests:
        prompt = "\n".join(message["content"] for message in messages)
        assert "gold of other" in prompt
        assert "thought of other" in prompt
        assert "gold of s" not in prompt
        assert "thought of s" not in prompt
