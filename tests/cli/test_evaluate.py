import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from routedk.data import load_sessions, write_jsonl
from routedk.eval import BASELINES, METRICS
from routedk.similarity import TfidfEncoder, encoders
from routedk.types import Bundle, Item, Session

from .conftest import Run

SESSIONS = [
    Session(
        str(n),
        (Item("a", "lens"), Item("b", "lens cap"), Item("c", "cable"), Item("d", "")),
        (Bundle(("a", "b"), "camera"),) if n % 5 else (),
    )
    for n in range(40)
]


@pytest.fixture(autouse=True)
def _light_encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = TfidfEncoder(["lens", "lens cap", "cable", "camera"])
    monkeypatch.setitem(encoders._SHARED, "minilm", encoder)  # type: ignore[arg-type]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "sessions.jsonl"
    write_jsonl(path, SESSIONS)
    return path


def write_predictions(path: Path, bundles: Sequence[object], ids: Sequence[str]) -> Path:
    lines = [json.dumps({"session_id": name, "bundles": bundles}) for name in ids]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_predictions_need_no_titles(data: Path, tmp_path: Path, run: Run) -> None:
    predictions = write_predictions(
        tmp_path / "p.jsonl",
        [{"items": ["b", "a"], "intent": "camera"}, {"items": ["c"], "intent": ""}],
        [session.id for session in SESSIONS],
    )
    output = tmp_path / "out" / "result.json"
    code, out, err = run(
        "evaluate",
        "--data",
        data,
        "--split",
        "all",
        "--predictions",
        predictions,
        "--output",
        output,
    )
    assert (code, err) == (0, "")
    record = json.loads(output.read_text(encoding="utf-8"))
    assert {p: tuple(m) for p, m in record["results"].items()} == dict(METRICS)
    assert record["results"]["matched"]["f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert record["counts"]["sessions"] == record["counts"]["answered"] == 32
    assert record["counts"]["dropped"] == 32
    assert record["counts"]["without_gold"] == 8
    assert record["intents"]["similarity"]["value"] == pytest.approx(1.0)
    assert record["config"] == {
        "data": str(data),
        "extra_titles": None,
        "gold": "minimal",
        "untitled": "keep",
        "split_file": None,
        "split": "all",
        "seed": 0,
        "baselines": False,
        "intents": True,
        "resamples": 2000,
        "leaks": False,
        "predictions": str(predictions),
    }
    assert "baselines" not in record
    assert "predictions" in out
    assert str(output) in out


def test_sessions_left_out_count_as_unanswered(data: Path, tmp_path: Path, run: Run) -> None:
    bundles = [{"items": ["a", "b"]}]
    predictions = write_predictions(tmp_path / "p.jsonl", bundles, ["1", "2"])
    output = tmp_path / "r.json"
    run(
        "evaluate",
        "--data",
        data,
        "--split",
        "all",
        "--predictions",
        predictions,
        "--output",
        output,
    )
    record = json.loads(output.read_text(encoding="utf-8"))
    assert record["counts"]["answered"] == 2
    assert record["results"]["matched"]["f1"]["value"] == pytest.approx(2 / 32)
    assert record["results"]["aicl"]["precision"]["value"] == 1.0
    assert "intents" not in record


def test_dropping_untitled_items_is_said_to_leak(data: Path, tmp_path: Path, run: Run) -> None:
    output = tmp_path / "r.json"
    code, out, _ = run(
        "evaluate", "--data", data, "--untitled", "drop", "--baselines", "--output", output
    )
    record = json.loads(output.read_text(encoding="utf-8"))
    assert code == 0
    assert record["config"]["leaks"] is True
    assert "results" not in record
    clusters = record["baselines"]["embedding-clusters"]
    assert clusters["results"]["matched"]["f1"]["value"] == 1.0
    assert clusters["config"]["tuned_on"] == "val"
    assert "Leak: untitled items were dropped" in out
    assert "whole-session" in out


def test_baselines_on_the_demo_set(tmp_path: Path, run: Run) -> None:
    output = tmp_path / "r.json"
    code, out, _ = run("evaluate", "--data", "demo", "--baselines", "--output", output)
    record = json.loads(output.read_text(encoding="utf-8"))
    gold = [session for session in load_sessions("demo") if session.gold]
    assert code == 0
    assert 20 < record["baselines"]["all-pairs"]["counts"]["sessions"] < len(gold)
    assert "Leak" not in out
    table = out.split("\n\n")[0].splitlines()
    assert len(table) == 2 + len(BASELINES)
    assert max(map(len, table)) <= 80
    assert "…" not in out


def test_thresholds_fall_back_on_training_sessions(tmp_path: Path, run: Run) -> None:
    titled = [Session(s.id, s.items[:3], s.bundles) for s in SESSIONS[1:4]]
    data = tmp_path / "few.jsonl"
    write_jsonl(data, titled)
    split = {"train": ["1", "2"], "val": [], "test": ["3"]}
    (tmp_path / "split.json").write_text(json.dumps(split), encoding="utf-8")
    options: list[str | Path] = [
        "--split-file",
        tmp_path / "split.json",
        "--output",
        tmp_path / "r.json",
    ]
    code, _, _ = run("evaluate", "--data", data, "--baselines", *options)
    record = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    assert code == 0
    assert record["baselines"]["title-clusters"]["config"]["tuned_on"] == "train"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to score: give --predictions FILE, or --baselines, or both"),
        (["--baselines"], "have no title"),
        (["--predictions", "missing.jsonl"], "missing.jsonl: no such file"),
    ],
)
def test_what_a_user_can_fix_is_one_line(
    arguments: list[str],
    message: str,
    data: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    code, out, err = run("evaluate", "--data", data, "--output", tmp_path / "r.json", *arguments)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (tmp_path / "r.json").exists()


def test_unknown_items_are_named(data: Path, tmp_path: Path, run: Run) -> None:
    bundles = [{"items": ["a", "nope"]}]
    predictions = write_predictions(tmp_path / "p.jsonl", bundles, ["3"])
    code, _, err = run(
        "evaluate", "--data", data, "--predictions", predictions, "--output", tmp_path / "r.json"
    )
    assert code == 2
    assert "p.jsonl:1: session '3' has no item 'nope'" in err
