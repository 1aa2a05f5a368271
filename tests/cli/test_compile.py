from pathlib import Path

import pytest

from routedk import load_program

from .conftest import Run, Script


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "program.json"


@pytest.fixture
def arguments(script: Script, knowledge: Path, output: Path) -> tuple[str | Path, ...]:
    """Compile for a student that answers well only with neighbours in its prompt."""
    script.answer = lambda messages: "1 2 3" if len(messages) > 2 else "none"
    data = ("--data", "demo", "--knowledge", knowledge)
    return ("compile", *data, "--lm", "x", "--output", output)


def test_compile_the_demo(
    run: Run, tmp_path: Path, output: Path, arguments: tuple[str | Path, ...]
) -> None:
    instruction = tmp_path / "new.txt"
    instruction.write_text("Guess.\n")
    options = ("--evaluations", "4", "--max-validation", "6", "--level", "0.1")
    code, out, _ = run(*arguments, *options, "--instruction", instruction, "--token-budget", "900")
    assert code == 0
    assert "as given" in out
    assert "at p <= 0.0333" in out
    assert "Grouping: items with the same intent;" in out
    assert "neighbours" in out
    program = load_program(output)
    assert program.knowledge.k >= 1
    *candidates, grouping = program.trials
    assert [trial["sessions"] for trial in candidates] == [6] * 4
    assert candidates[1]["choice"]["instruction"] == "Guess."
    assert all(trial["prompt_tokens"] <= 900 for trial in candidates)
    assert grouping["sessions"] == 30


def test_too_few_sessions_are_said_and_an_earlier_program_is_replaced(
    run: Run, output: Path, arguments: tuple[str | Path, ...]
) -> None:
    options = ("--max-validation", "2", "--evaluations", "2", "--level", "0.01")
    for _ in range(2):
        code, _, err = run(*arguments, *options)
        assert code == 0
        assert "on 2 sessions no candidate can reach it, 7 are needed (raise --max-val" in err
        assert load_program(output)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--utilization", "ICL", "--experts", "e"), "utilization 'ICL' trains no experts"),
        (("--neighbours", "1", "--token-budget", "9"), "--token-budget: not with neighbours"),
        (("--level", "1"), "level=1.0: it must be above 0 and below 1"),
        (("--instruction", "nowhere.txt"), "nowhere.txt: "),
        (("--token-budget", "9"), "--token-budget=9: the student as it was given has prompts of"),
        (("--retriever", "oracle"), "the sentence-transformers model 'oracle' cannot be loaded"),
        (("--output", "notes"), "notes: exists already, and this command did not write it"),
    ],
)
def test_what_is_refused(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    output: Path,
    arguments: tuple[str | Path, ...],
    options: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes").write_text("mine")
    code, _, err = run(*arguments, *options)
    assert code == 2
    assert message in err
    assert err.strip().count("\n") == 0
    assert (Path("notes").read_text(), output.exists()) == ("mine", False)
