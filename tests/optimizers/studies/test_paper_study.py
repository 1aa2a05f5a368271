import json
from dataclasses import replace
from pathlib import Path

import pytest

from routedk.errors import DataError, SettingError
from routedk.optimizers.search.config import ReportConfig
from routedk.optimizers.search.report import report_search
from routedk.optimizers.search.space import TrialSettings
from routedk.optimizers.search.trial import TrialRunner
from routedk.optimizers.studies import PaperConfig, study_paper
from routedk.types import Answer, Session

Parts = dict[str, list[Session]]
TRAINED = TrialSettings(utilization="SFT", experts=("base",))
FORMATS = """
[[questions]]
title = "Formats?"
dimension = "formats"
by = "utilization"
"""
VARIED = f"""
title = "Small"
[settings]
r = 2
learning_rate = 0.02
epochs = 1.0
rules = 2
neighbours = 1
[vary]
formats = ["rule", "rule+thought"]
ratio = [0.5, 1.0]
utilization = ["ICL", "SFT"]
{FORMATS}
[[questions]]
title = "Quantity?"
dimension = "ratio"
by = "strategy"
[budget.small]
test = 3
[budget.full]
"""
NAMED = """
title = "Named"
compare = [["no base", "one"], ["one", "whole-session"], ["one", "teacher"]]
[settings]
r = 2
learning_rate = 0.02
epochs = 1.0
[systems.one]
[systems.AICL]
utilization = "AICL"
[systems."no base"]
utilization = "SFT"
formats = ["rule", "thought"]
experts = ["rule", "thought"]
fusion = "softmax"
[budget.small]
train = 6
test = 2
[budget.full]
"""


def grid(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return path


def test_a_study_that_was_cut_resumes(
    parts: Parts, student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PaperConfig(grid=grid(tmp_path, VARIED), student=str(student_folder))
    built, done = TrialRunner.built, []

    def cut(self: TrialRunner, settings: object) -> object:
        if len(done) == 3:
            raise KeyboardInterrupt
        done.append(settings)
        return built(self, settings)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(TrialRunner, "built", cut)
        with pytest.raises(KeyboardInterrupt):
            study_paper("kd", parts, tmp_path / "out", config, store=tmp_path / "store")
    record = study_paper("kd", parts, tmp_path / "out", config, store=tmp_path / "store")

    systems = [one for one in record["systems"] if "settings" in one]
    assert [one["name"] for one in systems] == [
        f"{use}, {formats}, {sample}"
        for formats in ("rule", "rule+thought")
        for sample in ("random 0.5", "all")
        for use in ("ICL", "SFT")
    ]
    assert record["sessions"] == {"train": 8, "validation": 2, "test": 3}
    assert all(len(one["session_f1"]) == 3 and one["tokens"] > 50 for one in systems)
    assert all(one["seconds"] > 0 and one["memory"] > 100 for one in systems)
    assert [one["values"] for one in record["questions"]] == [
        ["rule", "rule+thought"],
        ["0.5", "1.0"],
    ]
    by_use, by_strategy = (one["series"] for one in record["questions"])
    points = {
        line: [(one["value"], one["minus"], one["systems"]) for one in points]
        for line, points in by_use.items()
    }
    each = [("rule", "rule", 2), ("rule+thought", "rule", 2)]
    assert points == {"ICL": each, "SFT": each}
    assert [one["value"] for one in by_strategy["random"]] == ["0.5", "1.0"]
    rule = [one["session_f1"] for one in systems if one["name"].startswith("ICL, rule,")]
    mean = sum(map(sum, rule)) / sum(map(len, rule))
    assert by_use["ICL"][0]["matched_f1"]["value"] == pytest.approx(mean)
    assert by_use["ICL"][0]["difference"]["value"] == 0
    assert (
        json.loads((tmp_path / "out" / "report.json").read_text())["systems"] == record["systems"]
    )
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Formats?" in page
    assert "embedding-clusters" in page

    other = PaperConfig(grid=config.grid, student=config.student, seed=1)
    with pytest.raises(SettingError, match="made with a different seed: 0, not 1"):
        study_paper("kd", parts, tmp_path / "out", other, store=tmp_path / "store")
    url = f"sqlite:///{tmp_path}/out/study.db"
    with pytest.raises(SettingError, match="'paper' is one of routedk study kd"):
        report_search(tmp_path / "other", ReportConfig(study="paper", storage=url))


def test_named_systems_beside_baselines_and_the_teacher(
    parts: Parts, student_folder: Path, tmp_path: Path
) -> None:
    config = PaperConfig(grid=grid(tmp_path, NAMED), student=str(student_folder))
    gold = [Answer(session.id, session.bundles or ()) for session in parts["test"]]
    record = study_paper(
        "routedk", parts, tmp_path / "out", config, reference=gold, store=tmp_path / "store"
    )
    names = [one["name"] for one in record["systems"]]
    assert names[:4] == ["one", "AICL", "no base", "teacher"]
    assert names[-1] == "pair-clusters"
    found = {one["name"]: one["matched_f1"]["value"] for one in record["systems"]}
    assert found["teacher"] == 1.0
    assert [(one["system"], one["minus"]) for one in record["comparisons"]] == [
        ("no base", "one"),
        ("one", "whole-session"),
        ("one", "teacher"),
    ]
    last = record["comparisons"][-1]["difference"]["value"]
    assert last == pytest.approx(found["one"] - 1.0)
    assert record["failures"] == {}
    (experts,) = (tmp_path / "store").glob("*/experts/*/routing.json")
    assert json.loads(experts.read_text())["experts"] == ["rule", "thought"]


def test_what_is_wrong_is_said_before_anything_is_made(
    parts: Parts, student_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(SettingError, match="paper='rag': it must be kd or routedk"):
        study_paper("rag", parts, tmp_path / "out")  # type: ignore[arg-type]
    text = NAMED.replace('fusion = "softmax"', 'fusion = "loud"')
    config = PaperConfig(grid=grid(tmp_path, text), student=str(student_folder))
    with pytest.raises(SettingError, match="loud"):
        study_paper("routedk", parts, tmp_path / "out", config, store=tmp_path / "store")
    config = PaperConfig(grid=grid(tmp_path, NAMED), student=str(student_folder))
    blind = {**parts, "test": [Session(one.id, one.items) for one in parts["test"]]}
    with pytest.raises(DataError, match="test: no session has gold"):
        study_paper("routedk", blind, tmp_path / "out", config, store=tmp_path / "store")
    failed = [Answer(session.id, error="rate limit") for session in parts["test"]]
    with pytest.raises(SettingError, match="reference: lacks 2 of the 2 test sessions"):
        study_paper("routedk", parts, tmp_path / "out", config, reference=failed)
    few = [Answer(parts["test"][0].id)]
    with pytest.raises(SettingError, match=r"reference: lacks [12] of the 2 test sessions"):
        study_paper("routedk", parts, tmp_path / "out", config, reference=few)
    garbage = tmp_path / "answers.jsonl"
    garbage.write_text("no JSON")
    taught = replace(config, answers=(garbage,))
    with pytest.raises(DataError, match="no line can be used"):
        study_paper("routedk", parts, tmp_path / "out", taught, store=tmp_path / "store")
    leaking = {**parts, "test": [*parts["test"], parts["train"][0]]}
    full = PaperConfig(grid=config.grid, student=config.student, budget="full")
    with pytest.raises(SettingError, match="test sessions are in other splits"):
        study_paper("routedk", leaking, tmp_path / "out", full, store=tmp_path / "store")
    assert not (tmp_path / "out").exists()


def test_failed_and_killed_systems_are_told(
    parts: Parts, student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = PaperConfig(grid=grid(tmp_path, NAMED), student=str(student_folder))
    built = TrialRunner.built

    def failing(self: TrialRunner, settings: TrialSettings) -> object:
        if settings.utilization != "ICL":
            raise MemoryError("too much")
        return built(self, settings)

    monkeypatch.setattr(TrialRunner, "built", failing)
    record = study_paper("routedk", parts, tmp_path / "out", config, store=tmp_path / "store")
    reason = "out of memory: too much"
    assert record["failures"] == {"AICL": reason, "no base": reason}
    assert [one["name"] for one in record["systems"]][:2] == ["one", "whole-session"]
    assert reason in (tmp_path / "out" / "report.html").read_text()

    monkeypatch.setattr(TrialRunner, "built", lambda self, settings: failing(self, TRAINED))
    with pytest.raises(SettingError, match=f"no system could be run: {reason}"):
        study_paper("routedk", parts, tmp_path / "none", config, store=tmp_path / "store")


def test_points_of_a_question_are_of_systems_alike(
    parts: Parts, student_folder: Path, tmp_path: Path
) -> None:
    text = f"""
        title = "t"
        settings = {{rules = 2, neighbours = 1}}
        vary = {{formats = ["rule", "rule+thought"]}}
        [[questions]]
        title = "Quantity?"
        dimension = "ratio"
        by = "strategy"
        {FORMATS}
        [budget.small]
        test = 2
        [[budget.small.vary]]
        [[budget.small.vary]]
        formats = "rule+thought"
        ratio = 0.5
        strategy = ["length", "random"]
    """
    config = PaperConfig(grid=grid(tmp_path, text), student=str(student_folder))
    record = study_paper("kd", parts, tmp_path / "out", config, store=tmp_path / "store")
    quantity, formats = record["questions"]
    assert quantity["values"] == ["1.0", "0.5"]
    of_all = {one["name"]: one.get("session_f1") for one in record["systems"]}
    for strategy in ("random", "length"):
        whole, half = quantity["series"][strategy]
        assert (whole["systems"], half["systems"]) == (1, 1)
        assert whole["session_f1"] == of_all["ICL, rule+thought, all"]
        assert half["session_f1"] == of_all[f"ICL, rule+thought, {strategy} 0.5"]
    assert [one["systems"] for one in formats["series"]["ICL"]] == [1, 1]
    assert formats["series"]["ICL"][1]["session_f1"] == of_all["ICL, rule+thought, all"]

    more = replace(config, grid=grid(tmp_path, text.replace("test = 2", "test = 2\ntrain = 3")))
    with pytest.raises(SettingError, match=r"made with a different budget: .*None.*3"):
        study_paper("kd", parts, tmp_path / "out", more, store=tmp_path / "store")
    config = replace(config, grid=grid(tmp_path, text.replace('"random"]', '"length"]')))
    with pytest.raises(SettingError, match=r"different choice of ICL, rule\+thought, random 0\.5"):
        study_paper("kd", parts, tmp_path / "out", config, store=tmp_path / "store")


def test_a_system_that_failed_leaves_the_others_of_its_line(
    parts: Parts, student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"""
        title = "t"
        settings = {{rules = 2, neighbours = 1}}
        vary = {{formats = ["none", "rule", "rule+thought"], ratio = [0.5, 1.0]}}
        {FORMATS}
        [budget.small]
        test = 2
    """
    built = TrialRunner.built

    def failing(self: TrialRunner, settings: TrialSettings) -> object:
        if "thought" in settings.formats and settings.ratio == 1:
            raise MemoryError("too much")
        return built(self, settings)

    monkeypatch.setattr(TrialRunner, "built", failing)
    config = PaperConfig(grid=grid(tmp_path, text), student=str(student_folder))
    output = tmp_path / "what? 50%20"
    record = study_paper("kd", parts, output, config, store=tmp_path / "store")
    assert (output / "study.db").is_file()
    (question,) = record["questions"]
    points = {one["value"]: one["systems"] for one in question["series"]["ICL"]}
    assert points == {"none": 1, "rule": 1}


def test_a_teachers_rules_may_be_of_any_training_session(
    parts: Parts, student_folder: Path, tmp_path: Path
) -> None:
    """The budget samples what experts are trained on, not what knowledge is made of."""
    answers = tmp_path / "answers.jsonl"
    ids = [session.id for session in parts["train"]]
    rule = {"text": "Bundle what one intent asks for.", "sessions": ids}
    lines = [rule, *({"session_id": name, "bundles": []} for name in ids)]
    answers.write_text("\n".join(map(json.dumps, lines)))
    path = grid(
        tmp_path,
        'title = "t"\n[systems.one]\nformats = "rule"\nrules = 1\n[budget.small]\ntrain = 2',
    )
    config = PaperConfig(grid=path, answers=(answers,), student=str(student_folder))
    record = study_paper("kd", parts, tmp_path / "out", config, store=tmp_path / "store")
    assert record["sessions"]["train"] == 2
    (made,) = (tmp_path / "store").glob("*/knowledge/*/report.json")
    counts = json.loads(made.read_text())
    assert (counts["counts"]["rules"], counts["bad_lines"]) == (1, [])
