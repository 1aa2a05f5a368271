import json
import os
import re
import sys
from pathlib import Path

import dspy
import pytest

from routedk.data import load_sessions

from .conftest import Run, Script, records, write_records

# In the order of the work.
VERBS = ["distill", "train", "compile", "generate", "review", "evaluate", "search", "study"]
COMMANDS = ["data", *VERBS, "export", "serve", "mcp", "demo", "info", "cache"]
GROUPS = {
    "data": ["describe", "convert"],
    "cache": ["list", "prune"],
    "search": ["report", "export"],
}
EVERY = [
    [],
    *([name] for name in COMMANDS),
    *([group, name] for group, names in GROUPS.items() for name in names),
]


@pytest.mark.parametrize("command", EVERY)
def test_help_ends_with_an_example_and_cuts_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = run(*command, "--help")
    assert code == 0
    assert "…" not in out
    assert not re.search(r"\w\.\.\.$", out, flags=re.MULTILINE)
    assert max(map(len, out.splitlines())) <= 80
    last = out.strip().split("Example: ")[-1]
    assert last.startswith(" ".join(["routedk", *command]))


def test_commands_are_listed_in_the_order_of_the_work(run: Run) -> None:
    listed = run("--help")[1].partition("Commands:")[2]
    assert re.findall(r"^  (\w+)", listed, flags=re.MULTILINE)[: len(COMMANDS)] == COMMANDS


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
        "strict": False,
        "columns": None,
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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "describe", "demo", "--gold", "some"], "Invalid value for '--gold': "),
        (["data", "describe"], "Missing argument 'PATH' (see --help)"),
        (["generate"], "Missing option '--data' (see --help)"),
        (["generate", "--nothing"], "No such option: --nothing"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_a_mistake_in_use_is_one_line_and_exit_code_2(
    run: Run, arguments: list[str], message: str
) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["data"], ["cache"]])
def test_a_group_alone_shows_its_help(run: Run, arguments: list[str]) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith("Usage: " + " ".join(["routedk", *arguments]))


_HINT = "(check its name, key and address)"


def test_a_model_that_cannot_be_reached_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = dspy.LM("openai/x", api_base="http://127.0.0.1:9", api_key="k", num_retries=0, cache=False)
    monkeypatch.setattr("routedk.adapters.lm.resolve_lm", lambda *names: lm)
    code, _, err = run("generate", "--data", "demo", "--lm", "x", "--output", tmp_path / "b.jsonl")
    assert code == 2
    assert err.count("\n") == 1
    assert err.startswith("error: the language model failed: [openai/x] ")
    assert err.endswith(f"{_HINT}\n")
    assert not (tmp_path / "b.jsonl").exists()


@pytest.mark.parametrize(
    "error", [AttributeError("no attribute 'model'"), ValueError("System role not supported")]
)
def test_what_fails_in_this_process_is_not_the_fault_of_a_name_or_key(
    run: Run, script: Script, error: Exception
) -> None:
    def fail(messages: object) -> str:
        raise error

    script.answer = fail
    code, _, err = run("generate", "--data", "demo", "--lm", "x")
    assert code == 2
    assert str(error) in err
    assert _HINT not in err


def test_there_are_no_bars_where_nobody_looks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    run("cache", "list")
    assert os.environ.pop("TQDM_DISABLE") == "1"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    run("cache", "list")
    assert "TQDM_DISABLE" not in os.environ


def test_info(run: Run) -> None:
    facts = json.loads(run("info", "--json")[1])
    assert facts["license"] == "Apache-2.0"
    assert facts["cache"] == os.environ["ROUTEDK_CACHE"]
    assert Path(facts["dspy_cache"]).is_dir()
    assert "torch" in facts["versions"]
    assert "Apache-2.0" in run("info")[1]
    assert run("--version")[1].startswith("routedk ")


def test_values_that_count_as_missing_are_said(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text('{"session_id": 1, "items": [{"id": 1, "title": "A", "price": "ask us"}]}')
    code, out, err = run("data", "describe", path, "--json")
    assert code == 0
    assert json.loads(out)["items"] == 1
    assert "1 values that are no price count as missing, the first is 'ask us'" in " ".join(
        err.split()
    )
    code, _, err = run("data", "describe", path, "--strict")
    assert code == 2
    assert "items.1.price: not a price, found 'ask us' (fix or remove this session)" in err


@pytest.mark.parametrize(
    "text",
    [
        "[" * 9999,
        '{"train": [' + "9" * 5000 + "]}",
        '{"' + "x" * 5000 + '": []}',
        r'["\ud800"]',
        "\x00",
    ],
)
def test_an_error_is_one_short_line(run: Run, tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    code, _, err = run("data", "describe", "demo", "--split-file", path)
    assert code == 2
    (line,) = err.splitlines()
    assert line.startswith(f"error: {path}: ") or line.startswith(f"error: {path}:1: ")
    assert len(line) <= len("error: ") + 300
