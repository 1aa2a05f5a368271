"""The engine as a ``dspy.LM``: streams, copies, names, settings."""

import asyncio
import copy
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMError

from routedk.adapters.engine import engine as engine_module
from routedk.adapters.engine.engine import StudentEngine, engine_lm, student_lm
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.student import Student
from routedk.errors import ArtifactError, RouteDKError, SettingError
from routedk.programs.generator import BundleGenerator
from routedk.types import Session
from tests.adapters.conftest import copy_of, randomise
from tests.adapters.engine.conftest import FORMS, CountingEngine, lm_of


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_finished_answer_is_streamed(
    intents_engine: CountingEngine, sessions: list[Session], asynchronous: bool
) -> None:
    with dspy.context(lm=lm_of(intents_engine)):
        whole = BundleGenerator()(session=sessions[5])
        program = dspy.streamify(BundleGenerator(), is_async_program=asynchronous)

        async def consume() -> list[Any]:
            return [value async for value in program(session=sessions[5])]

        *chunks, last = asyncio.run(consume())
    assert last.raw == whole.raw
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.raw


def test_copies_share_the_engine_and_nothing_of_it_is_saved(
    shared: RoutedStudent, tmp_path: Path
) -> None:
    lm = engine_lm(StudentEngine(shared))
    assert not lm.cache
    program = BundleGenerator()
    program.set_lm(lm)
    assert copy.deepcopy(program).generate.lm.engine is lm.engine
    program.save(tmp_path / "program.json")
    assert "local/routedk" not in (tmp_path / "program.json").read_text()
    predict = dspy.Predict("question -> answer")
    predict.lm = lm
    predict.save(tmp_path / "predict.json")
    assert (tmp_path / "predict.json").stat().st_size < 10_000
    again = dspy.Predict("question -> answer")
    again.load(tmp_path / "predict.json")
    with pytest.raises(LMError, match=lm.model):
        again(question="?")


def test_names_differ_with_what_would_be_answered(loaded: Student) -> None:
    names = [engine_lm(StudentEngine(loaded, form=form)).model for form in FORMS]
    half = copy_of(loaded)
    half.model.bfloat16()
    names.append(engine_lm(StudentEngine(half)).model)
    routed = randomise(RoutedStudent(copy_of(loaded)))
    for fusion in ("softmax", "uniform", "single:base", "single:rule"):
        routed.use_fusion(fusion)
        names.append(engine_lm(StudentEngine(routed)).model)
    randomise(routed, seed=2)
    names.append(engine_lm(StudentEngine(routed)).model)
    assert len(set(names)) == len(names)
    assert engine_lm(StudentEngine(routed)).model == names[-1]
    assert all(name.startswith("local/routedk-") for name in names)


def test_settings(loaded: Student) -> None:
    with pytest.raises(SettingError, match=r"answer form 'prose': allowed are \('bundle-intent', "):
        StudentEngine(loaded, form="prose")  # type: ignore[arg-type]
    with pytest.raises(RouteDKError, match="max_batch=0, max_queue=1024: at least 1"):
        StudentEngine(loaded, max_batch=0)


def test_student_lm(
    routed: RoutedStudent, student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed.save(tmp_path / "experts")
    lm = student_lm(tmp_path / "experts")
    assert lm.engine.form == "item-intents"
    assert lm.engine.generator.routed.fusion_name == "softmax"
    forms = [(form, form) for form in ("bundle-intent", "item-intents")]
    for form, wanted in (("bundles", "thought, then bundles"), *forms):
        routed.training = {"answer_form": form}
        routed.save(tmp_path / form)
        assert student_lm(tmp_path / form).engine.form == wanted
    routed.training = {"answer_form": "prose"}
    routed.save(tmp_path / "prose")
    with pytest.raises(ArtifactError, match="answer_form: Input should be 'bundle-intent'"):
        student_lm(tmp_path / "prose")
    lm = student_lm(tmp_path / "experts", str(student_folder), fusion="uniform", form="bundles")
    assert lm.engine.form == "bundles"
    assert lm.engine.generator.routed.fusion_name == "uniform"
    asked: list[str] = []

    def load(name: str, dtype: str | None = None) -> Student:
        asked.append(name)
        return routed.student

    monkeypatch.setattr(engine_module, "load_student", load)
    assert student_lm().engine.form == "bundles"
    student_lm(student="default")
    assert asked == [engine_module.DEFAULT_STUDENT] * 2
