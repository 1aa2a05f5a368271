"""The pipeline of trials, end to end on the tiny student."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.training.plan import TrainingPlan
from routedk.adapters.training.stages import RoutedTrainer
from routedk.artifacts.store import ArtifactStore
from routedk.artifacts.upkeep import broken
from routedk.data import DataOptions, load_sessions
from routedk.errors import SettingError
from routedk.eval.predictions import read_predictions
from routedk.optimizers.search.pipeline import Pipeline, Prepared
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.stages import predictions
from routedk.optimizers.search.stages.predictions import PREDICTIONS
from routedk.programs.program_file import load_program
from routedk.types import Session

PLAN = TrainingPlan(knowledge_share=1.0, router_share=0.5, router_epochs=1.0)
SHAPE = ExpertSettings(layers=2, lora_alpha=8)

ICL = TrialSettings(formats=("rule", "thought"), ratio=0.5, neighbours=1, rules=2)
SFT = TrialSettings(
    formats=("rule", "thought"),
    ratio=0.5,
    utilization="SFT",
    experts=("base", "rule", "thought"),
    fusion="softmax",
    r=2,
    learning_rate=0.02,
    epochs=1.0,
)
TRAINED = ["expert"] * 3 + ["fused", "router"]


def changed(settings: TrialSettings, **values: Any) -> TrialSettings:
    return TrialSettings(**{**settings.model_dump(), **values})


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    """Ten short sessions of the demo set."""
    every = load_sessions("demo", DataOptions(seed=0))
    return sorted((s for s in every if s.bundles), key=lambda s: len(s.items))[:10]


@pytest.fixture
def open_pipeline(
    sessions: list[Session], student_folder: Path, tmp_path: Path
) -> Iterator[Callable[..., Pipeline]]:
    """Pipelines over one store, as several workers, or one after the other, would have them."""
    opened: list[Pipeline] = []

    def make(**values: Any) -> Pipeline:
        usual: dict[str, Any] = {
            "train": sessions[:6],
            "validation": sessions[6:8],
            "store": tmp_path / "store",
            "student": student_folder,
            "plan": PLAN,
            "shape": SHAPE,
            "draws": 2,
            "threads": 2,
        }
        opened.append(Pipeline(**{**usual, **values}))
        return opened[-1]

    yield make
    for pipeline in opened:
        pipeline.close()


def run(pipeline: Pipeline, settings: TrialSettings, sessions: Sequence[Session]) -> list[Any]:
    prepared = pipeline.prepare(settings)
    found = list(pipeline.answers(prepared, sessions))
    assert [session.id for session, _, _ in found] == [session.id for session in sessions]
    assert all(record["session_id"] == session.id for session, record, _ in found)
    assert all(record.keys() == {"session_id", "bundles"} for _, record, _ in found)
    assert all(tokens > 0 for _, _, tokens in found)
    return [[[record, tokens] for _, record, tokens in found], prepared]


def made(prepared: Prepared) -> list[str]:
    return [part.stage for part in prepared.parts if not part.reused]


def stages(prepared: Prepared) -> list[str]:
    return [part.stage for part in prepared.parts]


def test_a_trial_that_trains_nothing(
    open_pipeline: Callable[..., Pipeline], sessions: list[Session]
) -> None:
    validation = sessions[6:8]
    answers, first = run(open_pipeline(), ICL, validation)
    assert made(first) == stages(first) == ["order", "knowledge", "program", "predictions"]
    assert first.experts is None
    again, second = run(open_pipeline(), ICL, validation)
    assert again == answers
    assert made(second) == []
    assert [part.key for part in second.parts] == [part.key for part in first.parts]
    # What making took is known when it is not made, too.
    assert [part.seconds for part in second.parts] == [part.seconds for part in first.parts]
    program = load_program(first.program)
    assert (program.knowledge.k, program.knowledge.rules_shown) == (1, 2)
    assert program.knowledge.show_thoughts
    assert program.grouping is None
    # Half of six sessions are distilled; all of them may be shown.
    assert (len(first.knowledge.thoughts), len(program.knowledge.sessions)) == (3, 6)
    part = open_pipeline().common.store.folder("predictions", first.parts[-1].key)
    assert len(read_predictions(part / PREDICTIONS, sessions)) == 2


def test_a_trial_that_trains(
    open_pipeline: Callable[..., Pipeline], sessions: list[Session], tmp_path: Path
) -> None:
    pipeline, validation = open_pipeline(), sessions[6:8]
    answers, first = run(pipeline, SFT, validation)
    whole = ["order", "knowledge", "knowledge", *TRAINED, "program", "predictions"]
    assert made(first) == stages(first) == whole
    routing = json.loads((first.experts / "routing.json").read_text())  # type: ignore[operator]
    assert (routing["fusion"], routing["experts"]) == ("softmax", ["base", "rule", "thought"])
    assert (routing["r"], routing["training"]["answer_form"]) == (2, "item-intents")
    assert load_program(first.program).utilization == "SFT"
    # The grouping was chosen, or found to be of no use.
    assert load_program(first.program).trials[-1]["sessions"] == 2
    assert run(open_pipeline(), SFT, validation)[0] == answers
    assert list(broken(ArtifactStore(tmp_path / "store"))) == []
    assert not list((tmp_path / "store" / "work").iterdir())

    # The mean of its router; another way to choose an answer.
    merged = pipeline.prepare(changed(SFT, fusion="merged"))
    assert made(merged) == ["fused", "program"]
    assert len(merged.parts) == len(whole)
    document = json.loads((merged.experts / "routing.json").read_text())  # type: ignore[operator]
    assert (document["fusion"], document["mean_gates"]) == ("merged", routing["mean_gates"])
    chosen, third = run(pipeline, changed(SFT, enhancement="consensus"), validation)
    assert made(third) == ["predictions"]
    assert all(two[1] > one[1] for one, two in zip(answers, chosen, strict=True))


# For each change of a trial that trains and prompts: the stages that it makes anew.
BOTH = changed(SFT, utilization="SFT+ICL", neighbours=1, rules=2)
EARLY = ["order", "knowledge", "knowledge"]
LATE = ["program", "predictions"]
OTHERS = ["expert", "expert", "fused", "router"]


@pytest.mark.parametrize(
    ("values", "anew"),
    [
        ({}, []),
        ({"enhancement": "consensus"}, ["predictions"]),
        ({"neighbours": 2}, LATE),
        ({"rules": 3}, LATE),
        ({"formats": ("pattern", "rule", "thought")}, LATE),
        ({"utilization": "SFT", "neighbours": 0, "rules": 0}, LATE),
        ({"fusion": "static"}, ["router", *LATE]),
        ({"fusion": "uniform"}, LATE),
        ({"fusion": "merged"}, ["fused", *LATE]),
        ({"fusion": "single:rule"}, ["fused", *LATE]),
        ({"r": 3}, [*TRAINED, *LATE]),
        ({"learning_rate": 0.01}, [*TRAINED, *LATE]),
        ({"epochs": 2.0}, [*TRAINED, *LATE]),
        ({"experts": ("base", "rule")}, ["fused", "router", *LATE]),
        # Other knowledge leaves the base expert what it is.
        ({"ratio": 0.3}, ["knowledge", *OTHERS, *LATE]),
        ({"strategy": "length"}, ["order", "knowledge", *OTHERS, *LATE]),
        ({"ratio": 1.0}, [*OTHERS, *LATE]),
        ({"ratio": 1.0, "strategy": "difficulty"}, [*OTHERS, *LATE]),
    ],
)
def test_which_settings_change_which_keys(
    values: dict[str, Any], anew: list[str], dry: Callable[..., list[tuple[str, str]]]
) -> None:
    known = dry(BOTH)
    assert [one[0] for one in known] == [*EARLY, *TRAINED, *LATE]
    assert [one[0] for one in dry(changed(BOTH, **values)) if one not in known] == anew


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        # Nothing is drawn, and nobody sees how many are under way at once.
        ({"draws": 3}, [*EARLY, *TRAINED, *LATE]),
        ({"threads": 1}, [*EARLY, *TRAINED, *LATE]),
        ({"dtype": "bfloat16"}, [*EARLY, *TRAINED]),
        ({"retriever": "minilm"}, [*EARLY, *TRAINED]),
        ({"plan": replace(PLAN, balance=0.1)}, [*EARLY, *TRAINED[:-1]]),
        ({"shape": replace(SHAPE, router_input="prompt")}, [*EARLY, *TRAINED[:-1]]),
        ({"plan": replace(PLAN, knowledge_share=0.5)}, [*EARLY, "expert"]),
        ({"plan": replace(PLAN, batch_size=2)}, EARLY),
        ({"shape": replace(SHAPE, layers=1)}, EARLY),
        ({"seed": 1}, ["knowledge"]),
        ({"validation": slice(7, 8)}, [*EARLY, *TRAINED]),
        ({"train": slice(10, 33)}, []),
    ],
)
def test_what_a_search_is_said_is_in_the_keys(
    values: dict[str, Any], kept: list[str], dry: Callable[..., list[tuple[str, str]]]
) -> None:
    known = dry(BOTH)
    assert [one[0] for one in dry(BOTH, **values) if one in known] == kept


class DryStore(ArtifactStore):
    """Hands out keys, and makes nothing that a model is needed for."""

    def obtain(self, recipe: Any, make: Any) -> Any:
        def nothing(out: Path, work: Path) -> None:
            if recipe.stage in ("order", "knowledge"):
                make(out, work)

        return super().obtain(recipe, nothing)


class NoStudent:
    """Stands where the student would, and is asked nothing."""

    def copy(self, **values: Any) -> "NoStudent":
        return self


@pytest.fixture(scope="module")
def dry(
    student_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., list[tuple[str, str]]]:
    """Stage and key of every part of a trial, by the recipes alone."""
    every = [s for s in load_sessions("demo", DataOptions(seed=0)) if s.bundles]
    store = DryStore(tmp_path_factory.mktemp("dry"))
    line = {"input_tokens": 1, "output_tokens": 1, "seconds": 0.0, "bundles": []}

    def keys(settings: TrialSettings, **values: Any) -> list[tuple[str, str]]:
        cuts = {"train": slice(10, 34), "validation": slice(6, 8)}
        sets = {name: every[values.pop(name, cut)] for name, cut in cuts.items()}
        usual: dict[str, Any] = {
            "store": store,
            "student": student_folder,
            "plan": PLAN,
            "shape": SHAPE,
        }
        pipeline = Pipeline(**sets, **{**usual, **values})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pipeline, "lm", lambda experts: NoStudent())
            patch.setattr(predictions, "_asker", lambda *rest: None)
            patch.setattr(predictions, "_ask", lambda ask, chunk, *rest: [line for _ in chunk])
            prepared = pipeline.prepare(settings)
            assert len(list(pipeline.answers(prepared, pipeline.common.validation))) > 0
        return [(part.stage, part.key) for part in prepared.parts]

    return keys


def test_a_set_that_was_stopped_is_gone_on_from(
    open_pipeline: Callable[..., Pipeline],
    sessions: list[Session],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    whole, asked = predictions._ask, []

    def counted(ask: Any, chunk: Any, *rest: Any) -> Any:
        asked.extend(session.id for session in chunk)
        return whole(ask, chunk, *rest)

    monkeypatch.setattr(predictions, "_ask", counted)
    pipeline, wanted = open_pipeline(), sessions[5:10]
    plain = TrialSettings()
    prepared = pipeline.prepare(plain)
    answers = pipeline.answers(prepared, wanted)
    first = [next(answers) for _ in range(3)]
    answers.close()  # type: ignore[attr-defined]
    assert asked == [session.id for session in wanted[:4]]
    assert stages(prepared) == ["program"]
    # As if it had been killed while it wrote.
    (begun,) = (tmp_path / "store" / "work").glob(f"*/kept/{PREDICTIONS}")
    with begun.open("a") as file:
        file.write('{"session_id": "ha')
    again = pipeline.prepare(plain)
    found = list(pipeline.answers(again, wanted))
    assert found[:3] == first
    assert [session.id for session, _, _ in found] == [session.id for session in wanted]
    assert asked == [session.id for session in wanted]
    assert stages(again) == ["program", "predictions"]
    # Who stops at the last answer has a whole set, too.
    assert made(again) == ["predictions"]
    last = pipeline.answers(pipeline.prepare(plain), wanted[:2])
    for _ in range(2):
        next(last)
    assert run(pipeline, plain, wanted[:2])[1].parts[-1].reused


class Killed(Exception):
    pass


def test_a_training_that_was_killed_goes_on(
    open_pipeline: Callable[..., Pipeline],
    sessions: list[Session],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    alone = changed(
        SFT, formats=(), ratio=1.0, experts=("base",), fusion="single:base", epochs=14.0
    )
    whole = open_pipeline(store=tmp_path / "other").prepare(alone)
    steps: list[int] = []
    loss = RoutedTrainer.compute_loss

    def compute_loss(self: Any, *args: Any, **kwargs: Any) -> Any:
        steps.append(self.state.global_step)
        if len(steps) == 27:
            raise Killed
        return loss(self, *args, **kwargs)

    monkeypatch.setattr(RoutedTrainer, "compute_loss", compute_loss)
    with pytest.raises(Killed):
        open_pipeline().prepare(alone)
    assert list(ArtifactStore(tmp_path / "store").parts())[-1].manifest.stage == "knowledge"
    prepared = open_pipeline().prepare(alone)
    # 6 sessions are 2 steps of 4 a pass: 28 in all, with a checkpoint after 25.
    assert steps == [*range(27), *range(25, 28)]
    assert made(prepared) == ["expert", "fused", "program"]
    ours, theirs = (
        load_file(path / "expert_base" / "adapter_model.safetensors")
        for path in (prepared.experts, whole.experts)
        if path is not None
    )
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-4, atol=1e-5)


def test_difficulty_asks_the_student_once(
    open_pipeline: Callable[..., Pipeline], sessions: list[Session]
) -> None:
    hard = changed(ICL, strategy="difficulty")
    first = open_pipeline().prepare(hard)
    assert made(first) == ["scores", "order", "knowledge", "program"]
    second = open_pipeline().prepare(changed(hard, ratio=0.3))
    assert made(second) == ["knowledge", "program"]
    assert len(second.knowledge.thoughts) == 2
    inside = {thought.session_id for thought in second.knowledge.thoughts}
    assert inside < {thought.session_id for thought in first.knowledge.thoughts}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"draws": 0}, "draws=0: it must be at least 1"),
        ({"threads": 0}, "threads=0: it must be at least 1"),
        ({"train": []}, "no training session has gold bundles: there is nothing to distil"),
        ({"validation": []}, "no validation session has gold: there is nothing to choose on"),
        ({"retriever": ""}, "retriever"),
    ],
)
def test_settings_are_checked(
    values: dict[str, Any], message: str, open_pipeline: Callable[..., Pipeline]
) -> None:
    with pytest.raises(SettingError, match=message):
        open_pipeline(**values)


def test_validation_is_not_training(
    open_pipeline: Callable[..., Pipeline], sessions: list[Session]
) -> None:
    with pytest.raises(
        SettingError, match=r"1 validation sessions are training sessions, e\.g\. '"
    ):
        open_pipeline(validation=sessions[5:7])
