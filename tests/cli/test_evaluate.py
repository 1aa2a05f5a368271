import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from routedk.data import write_jsonl
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
    write_jsonl(tmp_path / "sessions.jsonl", SESSIONS)
    return tmp_path / "sessions.jsonl"


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out" / "result.json"


def predict(path: Path, bundles: Sequence[object], ids: Sequence[str]) -> Path:
    lines = [json.dumps({"session_id": name, "bundles": bundles}) for name in ids]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_predictions_need_no_titles(run: Run, data: Path, tmp_path: Path, output: Path) -> None:
    bundles = [{"items": ["b", "a"], "intent": "camera"}, {"items": ["c"], "intent": ""}]
    predictions = predict(tmp_path / "p.jsonl", bundles, [session.id for session in SESSIONS])
    options = ("--split", "all", "--predictions", predictions, "--output", output)
    code, out, err = run("evaluate", "--data", data, *options)
    assert (code, err) == (0, "")
    assert "Leak: untitled items were shown (32)" in out
    record = read(output)
    assert {p: tuple(m) for p, m in record["results"].items()} == dict(METRICS)
    assert record["results"]["matched"]["f1"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert record["counts"]["sessions"] == record["counts"]["answered"] == 32
    assert record["intents"]["similarity"]["value"] == pytest.approx(1.0)
    config = record["config"]
    assert (config["data"], config["split"], config["untitled"]) == (str(data), "all", "keep")
    assert (config["predictions"], config["leaks"]) == (str(predictions), True)
    assert config["items_without_title"] == {"gold": 32, "empty": 8}
    assert record["counts"]["empty_sessions"] == 8
    assert record["empties"]["left_empty"]["value"] == 0.0
    assert "8 sessions without a gold bundle. Leak: 8 of their items have no title." in out
    assert "baselines" not in record
    assert "predictions" in out
    assert str(output) in out


def test_sessions_left_out_count_as_unanswered(
    run: Run, data: Path, tmp_path: Path, output: Path
) -> None:
    predictions = predict(tmp_path / "p.jsonl", [{"items": ["a", "b"]}], ["1", "2"])
    options = ("--split", "all", "--predictions", predictions, "--output", output)
    assert run("evaluate", "--data", data, *options)[0] == 0
    record = read(output)
    assert record["counts"]["answered"] == 2
    assert record["results"]["matched"]["f1"]["value"] == pytest.approx(2 / 32)


def test_dropping_untitled_items_is_said_to_leak(run: Run, data: Path, output: Path) -> None:
    options = ("--untitled", "drop", "--baselines", "--output", output)
    code, out, _ = run("evaluate", "--data", data, *options)
    assert code == 0
    record = read(output)
    assert record["config"]["leaks"] is True
    assert "results" not in record
    clusters = record["baselines"]["embedding-clusters"]
    assert clusters["results"]["matched"]["f1"]["value"] == 1.0
    assert clusters["config"]["tuned_on"] == "val"
    assert "Leak: untitled items were dropped" in out


def test_a_reference_and_more_empty_sessions(
    run: Run, data: Path, tmp_path: Path, output: Path
) -> None:
    ids = [session.id for session in SESSIONS]
    bundles = [{"items": ["b", "a"], "kind": "complements", "confidence": 0.4}]
    predictions = predict(tmp_path / "p.jsonl", bundles, ids)
    teacher = [{"items": ["a", "b"], "kind": "complements", "why": "a cap fits a lens"}]
    reference = predict(tmp_path / "r.jsonl", teacher, ids)
    empties = [replace(one, id=f"more {one.id}") for one in SESSIONS[:6]]
    write_jsonl(tmp_path / "more.jsonl", empties)
    files = ("--predictions", predictions, "--reference", reference)
    more = ("--empties", tmp_path / "more.jsonl", "--curves", "--split", "all")
    code, out, err = run("evaluate", "--data", data, *files, *more, "--output", output)
    assert (code, err) == (0, "")
    record = read(output)
    # Sessions 0 and 5 of the six hold no bundle, nor do 8 of the others.
    assert record["counts"]["empty_sessions"] == 10
    assert record["agreement"]["kinds"]["agreeing"]["value"] == 1.0
    assert record["reliability"]["bins"][0]["bundles"] == 40
    assert record["cascade"][-1]["teacher_calls"] == 1.0
    assert record["baselines"]["reference"]["counts"]["answered"] == 32
    assert record["empties_curve"][-1] == {"threshold": 1.0, "left_empty": 0.8, "f1": 0.0}
    assert (record["config"]["reference"], record["config"]["empties"]) == (
        str(reference),
        str(tmp_path / "more.jsonl"),
    )
    for part in ("Kinds agree on 1.00", "Cascade:", "F1 where left empty is"):
        assert part in out


def test_baselines_on_the_demo_set(run: Run, output: Path) -> None:
    code, out, _ = run("evaluate", "--data", "demo", "--baselines", "--output", output)
    assert code == 0
    assert "Leak" not in out
    table = out.split("\n\n")[0].splitlines()
    assert len(table) == 2 + len(BASELINES)
    assert max(map(len, table)) <= 80
    assert "…" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to score: give --predictions FILE, or --baselines, or both"),
        (("--baselines", "--empties", "gold.jsonl"), "gold.jsonl: no session is annotated as empt"),
        (("--baselines", "--empties", "s.jsonl"), "s.jsonl: session '0' is one of --data, too"),
        (("--baselines", "--output", "p.jsonl"), "p.jsonl: exists already, and this command did"),
        (("--predictions", "missing.jsonl"), "missing.jsonl: no such file"),
        (("--predictions", "p.jsonl"), "p.jsonl:1: session '3' has no item 'nope'"),
    ],
)
def test_what_a_user_can_fix_is_one_line(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    data: Path,
    output: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(data.parent)
    predict(Path("p.jsonl"), [{"items": ["a", "nope"]}], ["3"])
    write_jsonl(Path("s.jsonl"), SESSIONS)
    write_jsonl(Path("gold.jsonl"), SESSIONS[1:2])
    code, out, err = run("evaluate", "--data", data, "--output", output, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not output.exists()
