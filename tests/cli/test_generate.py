import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .generating import SESSIONS, Asked, expected, lines, records, run


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


def test_a_split_without_sessions(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, asked: Asked
) -> None:
    data = tmp_path / "one.jsonl"
    data.write_text('{"session_id": "s", "items": [{"id": "a", "title": "tea"}]}\n')
    options = ("--data", data, "--split", "test", "--lm", "x")
    code, _, err = run(capsys, "generate", *options)
    assert code == 2
    assert f"{data}: the split 'test' has no session" in err


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
    from tests.scripted import scripted_lm

    model, _ = scripted_lm(lambda messages: "I would rather not")
    monkeypatch.setattr("routedk.cli.generate.resolve_lm", lambda **options: model)
    code, out, err = run(capsys, "generate", "--data", data, "--lm", "x")
    assert code == 0
    assert [record["bundles"] for record in lines(out)] == [[]] * SESSIONS
    assert f"Sessions without an answer: {SESSIONS}, first s0: " in err


def test_which_lm(capsys: pytest.CaptureFixture[str], data: Path) -> None:
    code, _, err = run(capsys, "generate", "--data", data)
    assert code == 2
    assert "which language model?" in err


def test_stdout_is_utf8_whatever_the_terminal(data: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[2])!r})\n"
        "from tests.scripted import scripted_lm\n"
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
    from routedk.types import Bundle, Item, Session
    from tests.scripted import scripted_lm

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
