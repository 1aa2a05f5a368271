import json
from pathlib import Path

import pytest
from optuna.trial import TrialState

from routedk.data import DataOptions, load_sessions
from routedk.errors import ArtifactError, SettingError, StudentError
from routedk.optimizers.search.config import ReportConfig, SearchConfig, StudyConfig
from routedk.optimizers.search.export import export_trial
from routedk.optimizers.search.report import best_trials, report_search
from routedk.optimizers.search.space import SearchSpace
from routedk.optimizers.search.study import read_study
from routedk.optimizers.search.verb import search
from routedk.programs.generator import load_program
from routedk.types import Session
from tests.optimizers.search.answers import run

SPACE = SearchSpace(
    utilization=["ICL", "SFT+ICL"],
    formats="rule+thought",
    ratio=0.5,
    strategy="difficulty",
    experts=["base", "base+rule"],
    fusion="uniform",
    r=2,
    learning_rate=0.02,
    epochs=1.0,
    neighbours=1,
    rules=2,
)


@pytest.fixture(scope="module")
def parts() -> dict[str, list[Session]]:
    """Ten short sessions of the demo set."""
    every = load_sessions("demo", DataOptions(seed=0))
    short = sorted((s for s in every if s.bundles), key=lambda s: len(s.items))[:10]
    return {"train": short[:6], "val": short[6:8], "test": short[8:]}


def test_from_a_search_to_its_report_and_a_program(
    parts: dict[str, list[Session]], student_folder: Path, url: str, tmp_path: Path
) -> None:
    store = tmp_path / "store"

    def go(trials: int, seed: int = 0) -> list[int]:
        config = SearchConfig(
            study="mine", storage=url, trials=trials, student=str(student_folder), seed=seed
        )
        study = search(parts["train"], parts["val"], config, space=SPACE, store=store)
        assert {trial.state for trial in study.trials} == {TrialState.COMPLETE}
        assert all(trial.user_attrs["tokens"] > 50 for trial in study.trials)
        return [len(list(store.glob(f"*/{stage}*/*"))) for stage in ("expert", "knowledge")]

    go(3)
    go(4)  # resumes
    with pytest.raises(SettingError, match="made with a different seed: 0, not 1"):
        go(4, seed=1)

    study = read_study(StudyConfig(study="mine", storage=url))
    chosen = best_trials(study)[0]
    config = ReportConfig(study="mine", storage=url)
    record = report_search(tmp_path / "report", config, parts=parts, store=store)
    assert json.loads((tmp_path / "report" / "report.json").read_text())["best"] == record["best"]
    assert record["best"][0]["trial"] == chosen.number
    names = [one["name"] for one in record["test"]]
    assert "default configuration" not in names
    assert names[0] == f"trial {chosen.number}"
    assert {"embedding-clusters", "pair-clusters"} <= {*names}
    assert record["test"][0]["chosen_minus_this"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    first, *_, other = record["test"]
    ahead = first["results"]["matched"]["f1"]["value"] - other["results"]["matched"]["f1"]["value"]
    assert other["chosen_minus_this"]["value"] == pytest.approx(ahead)
    page = (tmp_path / "report" / "report.html").read_text()
    assert "embedding-clusters" in page
    assert "Pareto front" in page

    examples = first["examples"]
    assert [one["session_id"] for one in examples] == [session.id for session in parts["test"]]
    for one, session in zip(examples, parts["test"], strict=True):
        assert one["titles"] == [item.title for item in session.items]
        assert len(one["gold"]) == len(session.gold)
        assert {title for b in one["answer"] for title in b["titles"]} <= {*one["titles"]}
    assert "Three of these sessions" in page
    # Without sessions it is not measured again, and not lost.
    assert report_search(tmp_path / "report", config)["test"] == record["test"]
    assert "embedding-clusters" in (tmp_path / "report" / "report.html").read_text()

    moved = {**parts, "test": [*parts["test"], parts["train"][0]]}
    with pytest.raises(SettingError, match=r"test sessions are in other splits, too, e.g."):
        report_search(tmp_path / "report", config, parts=moved, store=store)
    with pytest.raises(
        SettingError, match=r"made with a different train: 6 sessions, .* not 5 sess"
    ):
        export_trial(parts["train"][1:], parts["val"], 0, tmp_path / "p", config, store=store)

    trained = next(t for t in study.trials if t.user_attrs["settings"]["experts"])
    target = export_trial(
        parts["train"], parts["val"], trained.number, tmp_path / "p", config, store=store
    )
    assert (target / "experts" / "routing.json").is_file()
    program = load_program(target / "program.json")
    assert program.knowledge.k == 1
    # Half of the sessions have a thought, and only these are shown.
    assert program.knowledge.show_thoughts
    shown = {session.id for session in program.knowledge.sessions}
    assert shown == set(program.knowledge.thoughts)
    assert len(shown) == 3
    readme = (target / "README.md").read_text()
    assert "--program program.json --experts experts --student" in readme
    with pytest.raises(SettingError, match="'mine' has no complete trial 9: complete are 0, 1, 2"):
        export_trial(parts["train"], parts["val"], 9, tmp_path / "q", config, store=store)
    with pytest.raises(ArtifactError, match="exists already"):
        export_trial(parts["train"], parts["val"], 0, store, config, store=store)


def test_what_is_wrong_for_every_trial_makes_no_study(
    parts: dict[str, list[Session]], student_folder: Path, url: str, tmp_path: Path
) -> None:
    config = SearchConfig(study="mine", storage=url, student=str(student_folder))
    blind = [Session(session.id, session.items) for session in parts["val"]]
    for train, validation, message in (
        (parts["train"], blind, "validation: no session has gold bundles"),
        (blind, parts["val"], "train: no session has gold bundles"),
        (parts["train"], parts["train"], "6 validation sessions are training sessions"),
    ):
        with pytest.raises(SettingError, match=message):
            search(train, validation, config, store=tmp_path / "store")
    missing = SearchConfig(study="mine", storage=url, student=str(tmp_path / "none"))
    with pytest.raises(StudentError):
        search(parts["train"], parts["val"], missing, store=tmp_path / "store")
    assert not (tmp_path / "study.db").exists()


def test_a_report_of_validation_alone(url: str, tmp_path: Path) -> None:
    run(url, 12, sampler="random")
    record = report_search(tmp_path, ReportConfig(study="mine", storage=url))
    assert record["trials"] == {"complete": 12}
    assert record["test"] == []
    assert len(record["best"]) == 3
    assert record["best"][0]["f1"] >= record["best"][1]["f1"]
    page = (tmp_path / "report.html").read_text()
    for title in ("History", "Pareto front", "Importances", "Slices"):
        assert f"<h2>{title}" in page
    assert page.count("plotly.js v") == 1  # the library once
    assert "src=" not in page.split("<style>")[0]


def test_a_test_of_another_trial_is_not_replaced(url: str, tmp_path: Path) -> None:
    run(url, 3)
    config = ReportConfig(study="mine", storage=url)
    record = report_search(tmp_path, config)
    best = record["best"][0]["trial"]
    record["test"] = [{"name": f"trial {best + 1}"}]
    (tmp_path / "report.json").write_text(text := json.dumps(record))
    with pytest.raises(
        SettingError, match=f"has figures of the test split for trial {best + 1} of mine, which is"
    ):
        report_search(tmp_path, config)
    assert (tmp_path / "report.json").read_text() == text


def test_a_report_of_no_trial_and_of_failed_ones(url: str, tmp_path: Path) -> None:
    def fail(settings: object, place: int) -> None:
        raise SettingError("<b>this</b> does not work")

    run(url, 2, fail)
    record = report_search(tmp_path, ReportConfig(study="mine", storage=url))
    assert record["failures"] == {0: "<b>this</b> does not work", 1: "<b>this</b> does not work"}
    page = (tmp_path / "report.html").read_text()
    assert "No trial is complete" in page
    assert "&lt;b&gt;this&lt;/b&gt; does not work" in page


def test_the_best_trials_have_settings_of_their_own(url: str) -> None:
    study = run(url, 15)
    best = best_trials(study)
    assert len({str(t.user_attrs["settings"]) for t in best}) == len(best)
    order = [(-t.user_attrs["f1"], t.user_attrs["tokens"]) for t in best]
    assert order == sorted(order)
