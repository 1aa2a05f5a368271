"""What ``routedk generate`` does with its output file, new, cut short or of others."""

from pathlib import Path

import pytest

from .generating import SESSIONS, Asked, expected, lines, run


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


def test_resume_without_a_file(
    capsys: pytest.CaptureFixture[str], data: Path, asked: Asked
) -> None:
    code, _, err = run(capsys, "generate", "--data", data, "--lm", "x", "--resume")
    assert code == 2
    assert "--resume needs --output FILE" in err
