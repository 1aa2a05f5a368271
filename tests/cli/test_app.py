import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from routedk.cli import main
from routedk.data import load_sessions


def run(
    capsys: pytest.CaptureFixture[str], arguments: Sequence[str | Path]
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command line."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def test_describe_demo(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, ["data", "describe", "demo", "--json"])
    counts = json.loads(out)
    assert code == 0
    assert counts["sessions"] == 300
    assert counts["items_without_title"] == 0
    assert counts["config"] == {
        "data": "demo",
        "extra_titles": None,
        "gold": "minimal",
        "untitled": "keep",
        "split_file": None,
        "split": "all",
        "seed": 0,
    }


def test_describe_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, ["data", "describe", "demo", "--split", "test"])
    assert code == 0
    assert "demo (split test, gold minimal, untitled keep)" in out
    assert "sessions with bundles" in out


def test_describe_published_counts(capsys: pytest.CaptureFixture[str], bundlerec: Path) -> None:
    _, out, _ = run(capsys, ["data", "describe", bundlerec / "clothing", "--json"])
    counts = json.loads(out)
    assert (counts["sessions"], counts["sessions_with_bundles"], counts["bundles"]) == (
        1181,
        968,
        1488,
    )
    folder = bundlerec / "electronic"
    options: list[str | Path] = [
        "--extra-titles",
        folder / "item_titles_extra.csv",
        "--split",
        "test",
    ]
    options += ["--split-file", folder / "split_aicl.json", "--gold", "all", "--untitled", "keep"]
    _, out, _ = run(capsys, ["data", "describe", folder, "--json", *options])
    counts = json.loads(out)
    assert (counts["sessions"], counts["items_without_title"]) == (180, 0)


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_convert(capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"demo.{suffix}"
    code, out, _ = run(capsys, ["data", "convert", "demo", target])
    assert (code, out) == (0, f"wrote 300 sessions to {target}\n")
    assert load_sessions(target) == load_sessions("demo")


def test_no_file_without_sessions_is_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    data = tmp_path / "one.jsonl"
    data.write_text('{"session_id": "s", "items": [{"id": "a", "title": "tea"}]}\n')
    target = tmp_path / "test.jsonl"
    code, out = run(capsys, ["data", "convert", data, target, "--split", "test"])[:2]
    assert (code, out, target.exists()) == (2, "", False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "describe", "none.jsonl"], "error: none.jsonl: no such file or folder (check"),
        (["data", "convert", "demo", "x.csv"], "error: x.csv: the name must end in one of .jsonl"),
        (["data", "describe", "broken.jsonl"], "error: broken.jsonl:2: invalid JSON"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.jsonl").write_text('{"session_id": 1, "items": [{"id": 1}]}\n{"session\n')
    code, out, err = run(capsys, arguments)
    assert (code, out) == (2, "")
    assert err.startswith(message)
    assert err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jsonl"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "describe", "a" * 300],
        ["data", "convert", "demo", "a" * 300 + ".jsonl"],
        ["generate", "--data", "demo", "--lm", "x", "--output", "file/bundles.jsonl"],
        # Sessions have the keys of predictions, too: they are not to be appended to.
        ["generate", "--data", "mine.jsonl", "--lm", "x", "--output", "mine.jsonl", "--resume"],
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    Path("mine.jsonl").write_text('{"session_id": 1, "items": [{"id": 1}], "bundles": []}\n')
    code, out, err = run(capsys, arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_wrong_option_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, ["data", "describe", "demo", "--gold", "some"])
    assert code == 2
    assert "--gold" in err


@pytest.mark.parametrize(
    "command", [[], ["data"], ["data", "describe"], ["data", "convert"], ["info"]]
)
def test_help_ends_with_an_example(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    code, out, _ = run(capsys, [*command, "--help"])
    assert code == 0
    assert "Example: routedk" in out.strip().splitlines()[-1]


def test_info(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROUTEDK_CACHE", "/somewhere")
    _, out, _ = run(capsys, ["info", "--json"])
    facts = json.loads(out)
    assert facts["license"] == "Apache-2.0"
    assert facts["cache"] == "/somewhere"
    assert "torch" in facts["versions"]
    assert "Apache-2.0" in run(capsys, ["info"])[1]
    assert run(capsys, ["--version"])[1].startswith("routedk ")


@pytest.mark.parametrize("module", ["routedk", "routedk.data", "routedk.cli"])
def test_import_pulls_nothing_heavy(module: str) -> None:
    heavy = ["torch", "dspy", "transformers", "pandas", "pyarrow", "datasets", "numpy", "sklearn"]
    code = f"import sys, {module}; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
