import os
import tempfile
from pathlib import Path
from typing import Any

import pytest

from routedk.cli import main
from routedk.cli.lm import resolve_lm

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="routedk-dspy-"))


def run(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


@pytest.fixture(scope="module")
def knowledge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("knowledge")
    with pytest.raises(SystemExit):
        main(["distill", "--data", "demo", "--output", str(folder)])
    return folder / "knowledge.jsonl"


@pytest.fixture
def lm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A student that answers well only with neighbours in its prompt."""
    from tests.scripted import scripted_lm

    model, _ = scripted_lm(lambda messages: "1 2 3" if len(messages) > 2 else "none")

    def resolve(**options: Any) -> Any:
        return model

    monkeypatch.setattr("routedk.cli.compile.resolve_lm", resolve)


@pytest.mark.usefixtures("lm")
def test_compile_the_demo(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    from routedk.programs.program_file import load_program

    output = tmp_path / "program.json"
    (tmp_path / "new.txt").write_text("Guess.\n")
    options = (
        *("--evaluations", "4", "--max-validation", "6", "--threads", "2", "--level", "0.1"),
        *("--instruction", tmp_path / "new.txt", "--token-budget", "900"),
    )
    code, out, _ = run(
        capsys,
        "compile",
        "--data",
        "demo",
        "--knowledge",
        knowledge,
        "--lm",
        "x",
        "--output",
        output,
        *options,
    )
    assert code == 0
    assert "as given" in out
    assert "instruction" in out
    assert "3 of 20" in out
    assert "at p <= 0.0333" in out
    program = load_program(output)
    assert program.knowledge.k >= 1
    *candidates, grouping = program.trials
    assert [trial["sessions"] for trial in candidates] == [6] * 4
    assert candidates[1]["choice"]["instruction"] == "Guess."
    assert all(trial["prompt_tokens"] <= 900 for trial in candidates)
    assert grouping["sessions"] == 30


@pytest.mark.usefixtures("lm")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "test"], "compile takes neighbours from train and scores on val"),
        (["--seed", "5"], "test sessions, e.g. 'demo-"),
        (["--utilization", "RAG"], "utilization 'RAG': allowed are ICL, SFT, SFT+ICL"),
        (["--utilization", "ICL", "--experts", "e"], "utilization 'ICL' trains no experts"),
        (["--level", "1"], "level=1.0: it must be above 0 and below 1"),
        (["--instruction", "nowhere.txt"], "nowhere.txt: "),
        (["--token-budget", "9"], "token_budget=9: the student as it was given has prompts of"),
    ],
)
def test_test_sessions_are_never_seen(
    options: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    knowledge: Path,
    tmp_path: Path,
) -> None:
    output = tmp_path / "program.json"
    code, _, err = run(
        capsys, "compile", "--data", "demo", "--knowledge", knowledge, "--output", output, *options
    )
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0
    assert not output.exists()


@pytest.mark.usefixtures("lm")
def test_sft_compiles_no_knowledge_into_the_prompt(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    from routedk.programs.program_file import load_program

    output = tmp_path / "program.json"
    arguments = ("compile", "--data", "demo", "--lm", "x", "--output", output)
    options = ("--knowledge", knowledge, "--utilization", "SFT", "--max-validation", "2")
    code, _, err = run(capsys, *arguments, *options)
    assert code == 0
    assert "on 2 sessions no candidate can reach it, 7 are needed (raise --max-validation" in err
    program = load_program(output)
    assert (program.utilization, program.knowledge.k, program.knowledge.rules) == ("SFT", 0, ())


def test_a_language_model_is_needed(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    arguments: list[str | Path]
    arguments = ["compile", "--data", "demo", "--knowledge", knowledge, "--output", tmp_path / "p"]
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "which language model? give --lm NAME, or --experts DIR or --student" in err
    code, _, err = run(capsys, *arguments, "--lm", "x", "--student", "default")
    assert code == 2
    assert "which language model?" in err


def test_an_lm_that_cannot_be_reached_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    knowledge: Path,
    tmp_path: Path,
) -> None:
    from tests.scripted import scripted_lm

    def fail(messages: object) -> str:
        raise OSError("connection refused")

    monkeypatch.setattr("routedk.cli.compile.resolve_lm", lambda **_: scripted_lm(fail)[0])
    code, _, err = run(
        capsys,
        "compile",
        "--data",
        "demo",
        "--knowledge",
        knowledge,
        "--output",
        tmp_path / "p",
    )
    assert code == 2
    assert err.strip().count("\n") == 0
    assert "error: the language model failed:" in err
    assert "connection refused" in err


def test_litellm_name() -> None:
    lm = resolve_lm(lm="openai/gpt-4o-mini")
    assert lm.model == "openai/gpt-4o-mini"
    assert lm.kwargs["temperature"] == 0.0


def test_the_student_comes_from_the_adapters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from routedk.adapters.engine import engine

    asked: list[tuple[Any, ...]] = []
    monkeypatch.setattr(engine, "student_lm", lambda *names, dtype: asked.append((*names, dtype)))
    resolve_lm(experts=tmp_path, student="default")
    resolve_lm(student="some/model", dtype="bfloat16")
    assert asked == [(tmp_path, None, None), (None, "some/model", "bfloat16")]


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "compile", "--help")
    assert code == 0
    assert "Example: routedk compile --data demo --knowledge" in out


@pytest.mark.usefixtures("lm")
def test_the_retriever_is_checked_first_and_kept(
    capsys: pytest.CaptureFixture[str], knowledge: Path, tmp_path: Path
) -> None:
    from routedk.programs.program_file import load_program

    output = tmp_path / "program.json"
    arguments = ("compile", "--data", "demo", "--lm", "x", "--output", output, "--retriever")
    code, _, err = run(capsys, *arguments, "oracle", "--knowledge", tmp_path / "none")
    assert code == 2
    assert "error: retriever 'oracle' is no sentence-transformers model that is here" in err
    options = ("--knowledge", knowledge, "--evaluations", "2", "--max-validation", "6")
    assert run(capsys, *arguments, "minilm", *options)[0] == 0
    assert load_program(output).knowledge.retriever == "minilm"
