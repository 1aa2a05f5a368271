from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from routedk.artifacts.recipe import Recipe
from routedk.artifacts.store import ArtifactStore
from routedk.errors import ArtifactError, SettingError
from routedk.optimizers.search.identity import IDENTITY
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.trial_export import export_trial

ICL = TrialSettings(neighbours=1)
SFT = TrialSettings(
    utilization="SFT",
    experts=("base",),
    fusion="single:base",
    r=2,
    learning_rate=0.01,
    epochs=1.0,
    enhancement="consensus",
)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(tmp_path / "store")


def keep(store: ArtifactStore, stage: str, name: str, **settings: Any) -> dict[str, Any]:
    """A part with one file that holds its name."""

    def make(out: Path, work: Path) -> None:
        path = {"program": out / "program.json", "predictions": out / "predictions.jsonl"}
        target = path.get(stage, out / "experts" / "routing.json")
        target.parent.mkdir(exist_ok=True)
        target.write_text(name)

    recipe = Recipe(stage=stage, version="1", inputs={"name": name}, settings=settings)
    part = store.obtain(recipe, make)
    return {"stage": stage, "key": part.key, "reused": False, "seconds": 1.0}


def complete(settings: TrialSettings, parts: list[dict[str, Any]]) -> FrozenTrial:
    attrs = {"settings": settings.to_dict(), "f1": 0.625, "tokens": 80.5, "parts": parts}
    return create_trial(values=[0.625, 80.5], user_attrs=attrs)


def study_of(*trials: FrozenTrial, **made_with: Any) -> optuna.Study:
    study = optuna.create_study(study_name="mine", directions=["maximize", "minimize"])
    study.set_user_attr(IDENTITY, {"sessions": ["a", "b", "c"], "student": "default", **made_with})
    for one in trials:
        study.add_trial(one)
    return study


def test_a_trial_that_trained_nothing(store: ArtifactStore, tmp_path: Path) -> None:
    study = study_of(complete(ICL, [keep(store, "program", "mine")]))
    export_trial(study, 0, store, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"program.json", "README.md"}
    assert (tmp_path / "out" / "program.json").read_text() == "mine"
    text = (tmp_path / "out" / "README.md").read_text()
    assert (
        "routedk generate --data SESSIONS --student default --program program.json "
        "--output bundles.jsonl"
    ) in text
    assert "Matched F1 0.625, 80.5 tokens per session, on 3 validation sessions" in text
    assert "| neighbours | 1 |" in text
    assert "holds the training sessions" in text
    assert "consensus" not in text


def test_the_experts_are_the_last_ones(store: ArtifactStore, tmp_path: Path) -> None:
    parts = [
        keep(store, "fused", "uniform"),
        keep(store, "router", "router"),
        keep(store, "fused", "merged"),
        keep(store, "program", "mine"),
        keep(store, "predictions", "answers", draws=3, seed=7),
    ]
    study = study_of(complete(SFT, parts), student="/models/one", dtype="bfloat16")
    export_trial(study, 0, store, tmp_path / "deep" / "out")
    out = tmp_path / "deep" / "out"
    assert (out / "experts" / "routing.json").read_text() == "merged"
    text = (out / "README.md").read_text()
    command = "--experts experts --student /models/one --dtype bfloat16 --program program.json"
    assert command in text
    # generate does not draw: it is said, with what does.
    assert "chosen by **consensus** of 3 draws" in text
    assert "student_lm('experts', '/models/one', dtype='bfloat16').copy(seed=7)" in text
    assert "program = Consensus(generator, n=3)" in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "README.md", "exec")


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (1, r"trial 1 of study 'mine': it failed: the loss is nan; complete are 0, 3-5$"),
        (2, "it was pruned; complete are"),
        (6, "it failed; complete are"),
        (7, "there is none; complete are"),
        (-1, "there is none; complete are"),
    ],
)
def test_a_trial_that_cannot_be(
    number: int, message: str, store: ArtifactStore, tmp_path: Path
) -> None:
    done = complete(ICL, [])
    study = study_of(
        done,
        create_trial(state=TrialState.FAIL, user_attrs={"failure": "the loss is nan"}),
        create_trial(state=TrialState.PRUNED),
        *[done] * 3,
        create_trial(state=TrialState.FAIL),
    )
    with pytest.raises(SettingError, match=message):
        export_trial(study, number, store, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_else_can_be_missing(store: ArtifactStore, tmp_path: Path) -> None:
    gone = {"stage": "program", "key": "f" * 64, "reused": False, "seconds": 1.0}
    study = study_of(complete(ICL, [gone]), complete(ICL, []))
    with pytest.raises(ArtifactError, match="part program ffffffffffff of trial 0 is not there"):
        export_trial(study, 0, store, tmp_path / "out")
    with pytest.raises(ArtifactError, match="trial 1 has no part program"):
        export_trial(study, 1, store, tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ArtifactError, match="exists already: name another folder"):
        export_trial(study, 0, store, tmp_path / "full")
    with pytest.raises(SettingError, match=r"trial 0 .*there is none; no trial is complete yet"):
        export_trial(study_of(), 0, store, tmp_path / "out")
