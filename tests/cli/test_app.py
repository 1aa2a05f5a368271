import json
import os
from pathlib import Path

import pytest

from routedk.data import load_sessions

from .conftest import Run, Script, records, write_records

VERBS = ["distill", "train", "compile", "generate", "evaluate", "search"]
COMMANDS = [*VERBS, "serve", "export", "demo", "info"]
GROUPS = {
    "data": ["describe", "convert"],
    "cache": ["list", "prune"],
    "search": ["report", "export"],
}


@pytest.mark.parametrize(
    "command",
    [
        [],
        *([name] for name in COMMANDS),
        *([g, name] for g, names in GROUPS.items() for name in names),
    ],
)
def test_help_ends_with_an_example(run: Run, command: list[str]) -> None:
    code, out, _ = run(*command, "--help")
    assert code == 0
    last = out.strip().split("Example: ")[-1]
    assert last.startswith(" ".join(["routedk", *command]))


def test_describe_the_demo(run: Run) -> None:
    code, out, _ = run("data", "describe", "demo", "--json")
    counts = json.loads(out)
    assert code == 0
    assert (counts["sessions"], counts["items_without_title"]) == (300, 0)
    assert counts["config"] == {
        "data": "demo",
        "extra_titles": None,
        "gold": "minimal",
        "untitled": "keep",
        "split_file": None,
        "split": "all",
        "seed": 0,
    }
    _, out, _ = run("data", "describe", "demo", "--split", "test")
    assert "demo (split test, gold minimal, untitled keep)" in out
    assert "sessions with bundles" in out


def test_describe_published_counts(run: Run, bundlerec: Path) -> None:
    counts = json.loads(run("data", "describe", bundlerec / "clothing", "--json")[1])
    found = (counts["sessions"], counts["sessions_with_bundles"], counts["bundles"])
    assert found == (1181, 968, 1488)
    folder = bundlerec / "electronic"
    options = ("--extra-titles", folder / "item_titles_extra.csv", "--split", "test")
    files = ("--split-file", folder / "split_aicl.json", "--gold", "all")
    counts = json.loads(run("data", "describe", folder, "--json", *options, *files)[1])
    assert (counts["sessions"], counts["items_without_title"]) == (180, 0)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_convert(run: Run, tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"demo.{suffix}"
    code, out, _ = run("data", "convert", "demo", target)
    assert (code, out) == (0, f"wrote 300 sessions to {target}\n")
    assert load_sessions(target) == load_sessions("demo")
    for source in ("demo", target):
        _, _, err = run("data", "convert", source, target)
        assert f"{target}: exists already: name another file, or remove it" in err
    assert load_sessions(target) == load_sessions("demo")


def test_no_file_without_sessions_is_written(run: Run, tmp_path: Path) -> None:
    data = write_records(tmp_path / "one.jsonl", records(1))
    target = tmp_path / "test.jsonl"
    code, out, err = run("data", "convert", data, target, "--split", "test")
    assert (code, out, target.exists()) == (2, "", False)
    assert f"{data}: the split 'test' has no session" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "describe", "none.jsonl"], "none.jsonl: no such file or folder (check"),
        (["data", "convert", "demo", "x.csv"], "x.csv: the name must end in one of .jsonl"),
        (["data", "describe", "broken.jsonl"], "broken.jsonl:2: invalid JSON"),
        (["data", "describe", "a" * 300], ""),
        (["data", "convert", "demo", "a" * 300 + ".jsonl"], ""),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.jsonl").write_text('{"session_id": 1, "items": [{"id": 1}]}\n{"session\n')
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl"]


def test_a_wrong_option_is_exit_code_2(run: Run) -> None:
    code, _, err = run("data", "describe", "demo", "--gold", "some")
    assert code == 2
    assert "--gold" in err


def test_a_model_that_cannot_be_reached_is_one_line(
    run: Run, script: Script, tmp_path: Path
) -> None:
    def fail(messages: object) -> str:
        raise OSError("connection refused")

    script.answer = fail
    code, _, err = run("generate", "--data", "demo", "--lm", "x", "--output", tmp_path / "b.jsonl")
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("error: the language model failed: ")
    assert "connection refused" in err
    assert "(check its name, key and address)" in err
    assert not (tmp_path / "b.jsonl").exists()


def test_info(run: Run) -> None:
    facts = json.loads(run("info", "--json")[1])
    assert facts["license"] == "Apache-2.0"
    assert facts["cache"] == os.environ["ROUTEDK_CACHE"]
    assert "torch" in facts["versions"]
    assert "Apache-2.0" in run("info")[1]
    assert run("--version")[1].startswith("routedk ")
