import asyncio
import copy
import threading
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Request

from routedk.adapters.engine import engine as engine_module
from routedk.adapters.engine import generation
from routedk.adapters.engine.batcher import BatcherClosedError
from routedk.adapters.engine.engine import (
    AsyncStudentEngine,
    StudentEngine,
    engine_lm,
    student_lm,
)
from routedk.adapters.engine.likelihoods import Continuation
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.student import Student
from routedk.errors import ArtifactError, RouteDKError, SettingError
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.usage import metered
from routedk.types import Session

from .conftest import FORMS, CountingEngine, copy_of, lm_of, make_session, randomise


@pytest.fixture
def many(sessions: list[Session]) -> list[Session]:
    """Twenty-four sessions that differ in items and their number."""
    titles = sorted({item.title for session in sessions for item in session.items})
    return [
        make_session(f"m{k}", [titles[(k + n) % len(titles)] for n in range(2 + k % 4)], [(1, 2)])
        for k in range(24)
    ]


@pytest.fixture(scope="module")
def known() -> dict[str, list[str]]:
    """Answers one by one, by answer form: computed once."""
    return {}


@pytest.fixture
def one_by_one(
    engine: CountingEngine, many: list[Session], known: dict[str, list[str]]
) -> list[str]:
    if engine.form not in known:
        with dspy.context(lm=lm_of(engine)):
            known[engine.form] = [BundleGenerator()(session=session).raw for session in many]
        assert engine.sizes == [1] * len(many)
        engine.sizes.clear()
    return known[engine.form]


def test_threads_are_batched_and_answers_are_their_callers(
    engine: CountingEngine, many: list[Session], one_by_one: list[str]
) -> None:
    with dspy.context(lm=lm_of(engine)):
        answers = generate_all(BundleGenerator(), many, num_threads=16)
    assert sum(engine.sizes) == len(many)
    assert len(engine.sizes) < len(many) / 2
    assert max(engine.sizes) <= 16
    found = [answer.raw for answer in answers]
    assert found == one_by_one
    assert len(set(found)) > 5


def test_evaluate_runs_as_batches(
    engine: CountingEngine, many: list[Session], one_by_one: list[str]
) -> None:
    def metric(example: Any, prediction: Any, trace: Any = None) -> float:
        ids = {item.id for item in example.session.items}
        return float(all(bundle.items <= ids for bundle in prediction.bundles))

    devset = [dspy.Example(session=session).with_inputs("session") for session in many]
    evaluate = dspy.Evaluate(
        devset=devset, metric=metric, num_threads=16, display_progress=False, timeout=0
    )
    with dspy.context(lm=lm_of(engine)):
        result = evaluate(BundleGenerator())
    assert result.score == 100
    assert len(engine.sizes) < len(many) / 2
    assert [prediction.raw for _, prediction, _ in result.results] == one_by_one


def test_parallel_runs_as_batches(
    engine: CountingEngine, many: list[Session], one_by_one: list[str]
) -> None:
    parallel = dspy.Parallel(num_threads=16, disable_progress_bar=True, timeout=0)
    program = BundleGenerator()
    with dspy.context(lm=lm_of(engine)):
        answers = parallel([(program, {"session": session}) for session in many])
    assert len(engine.sizes) < len(many) / 2
    assert [answer.raw for answer in answers] == one_by_one


def test_answers_are_of_their_form(engine: CountingEngine, sessions: list[Session]) -> None:
    with dspy.context(lm=lm_of(engine)):
        answer = BundleGenerator()(session=sessions[3])
    if engine.form == "item-intents":
        assert answer.raw.startswith("Thought: 1 ")
        assert all(f"; {number} " in answer.raw for number in range(2, 7 - 1))
    else:
        assert answer.raw == "none" or answer.raw[0].isdigit()
        assert answer.dropped == ()


def test_an_intent_that_is_cut_at_its_limit_is_no_cut_answer(
    shared: RoutedStudent, sessions: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DSPy would advise to raise max_tokens, which changes nothing."""
    monkeypatch.setattr(generation, "_LABEL_TOKENS", 1)
    engine = StudentEngine(shared, form="item-intents")
    system, user = BundleGenerator().messages(sessions[3])
    message = Message.user(user["content"])
    request = Request(model="m", system=system["content"], messages=(message,))
    response = engine.complete(request)
    assert response.usage.output_tokens == 3 * len(sessions[3].items)
    assert response.finish_reason == "stop"
    engine.close()


def test_any_other_prompt_is_answered_freely(engine: CountingEngine) -> None:
    lm = lm_of(engine)
    answer = lm.forward(prompt="Hello", max_tokens=3)
    assert lm("Hello", max_tokens=3) == lm("Hello", max_tokens=3)
    assert answer is not None
    assert engine.sizes == [1, 1, 1]


def test_length_and_usage(shared: RoutedStudent) -> None:
    engine = StudentEngine(shared)
    lm = lm_of(engine)
    with dspy.context(lm=lm, track_usage=True):
        lm("Hello", max_tokens=3)
    record = lm.history[-1]
    assert record["usage"]["completion_tokens"] <= 3
    assert record["usage"]["prompt_tokens"] > 5
    engine.close()


def test_a_prompt_beyond_the_context_window(loaded: Student) -> None:
    engine = StudentEngine(loaded)
    lm, window = lm_of(engine), loaded.model.config.max_position_embeddings

    def asked(words: int) -> str:
        return "cup " * words

    def tokens(words: int) -> int:
        return engine.prompt_tokens([{"role": "user", "content": asked(words)}])

    fits = (window - 1 - tokens(1)) // (tokens(2) - tokens(1)) + 1
    assert lm(asked(fits), max_tokens=window)
    assert lm.history[-1]["usage"]["completion_tokens"] <= window - tokens(fits)
    with pytest.raises(dspy.ContextWindowExceededError, match=f"context window has {window}"):
        lm(asked(fits + 1))
    with pytest.raises(dspy.ContextWindowExceededError) as caught:
        asyncio.run(lm.acall(asked(fits + 1)))
    assert str(copy.copy(caught.value)) == str(caught.value)
    with dspy.context(lm=lm):
        session = make_session("long", ["cup " * 10] * 500, [])
        assert "context window" in BundleGenerator()(session=session).error
    with pytest.raises(RouteDKError, match=f"a prompt of {tokens(fits + 1)} tokens"):
        engine.score([{"role": "user", "content": asked(fits + 1)}], [Continuation("a")])
    engine.close()


def test_prompt_tokens_are_those_that_are_read(shared: RoutedStudent, many: list[Session]) -> None:
    engine = StudentEngine(shared)
    program = BundleGenerator()
    with metered() as meter, dspy.context(lm=lm_of(engine)):
        program(session=many[0])
    assert engine.prompt_tokens(program.messages(many[0])) == meter.usage.input_tokens > 0
    engine.close()


def test_async_calls_are_batched(
    engine: CountingEngine, many: list[Session], one_by_one: list[str]
) -> None:
    async def ask() -> list[Any]:
        with dspy.context(lm=lm_of(engine)):
            program = BundleGenerator()
            return list(await asyncio.gather(*(program.acall(session=s) for s in many)))

    answers = asyncio.run(ask())
    assert len(engine.sizes) < len(many) / 2
    assert [answer.raw for answer in answers] == one_by_one


def test_an_error_of_the_model_reaches_the_caller(
    shared: RoutedStudent, many: list[Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dspy.utils.exceptions import LMError

    engine = StudentEngine(shared)

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.generator, "_write", fail)
    with dspy.context(lm=lm_of(engine)), pytest.raises(LMError, match="out of memory"):
        generate_all(BundleGenerator(), many, num_threads=8)
    assert shared.gate_state.gates is None
    monkeypatch.undo()
    with dspy.context(lm=lm_of(engine)):
        assert BundleGenerator()(session=many[0]).raw
    engine.close()


def test_a_closed_engine(shared: RoutedStudent, many: list[Session]) -> None:
    from dspy.utils.exceptions import LMError

    engine = StudentEngine(shared)
    lm = lm_of(engine)
    with dspy.context(lm=lm):
        BundleGenerator()(session=many[0])
        engine.close()
        engine.close()
        with pytest.raises((LMError, BatcherClosedError), match="the engine is closed"):
            BundleGenerator()(session=many[0])


def test_closing_stops_the_thread(shared: RoutedStudent) -> None:
    before = threading.active_count()
    engine = StudentEngine(shared)
    lm_of(engine)("Hello", max_tokens=2)
    assert threading.active_count() == before + 1
    engine.close()
    assert threading.active_count() == before


def test_copies_of_a_program_share_the_engine(shared: RoutedStudent) -> None:
    engine = StudentEngine(shared)
    program = BundleGenerator()
    program.set_lm(engine_lm(engine))
    for other in (copy.deepcopy(program), program.deepcopy()):
        lm = other.generate.lm
        assert lm is not None
        assert lm.engine is engine
    async_engine = AsyncStudentEngine(engine)
    assert copy.deepcopy(async_engine) is async_engine


def test_a_saved_program_holds_no_model(shared: RoutedStudent, tmp_path: Path) -> None:
    program = BundleGenerator()
    program.set_lm(engine_lm(StudentEngine(shared)))
    program.save(tmp_path / "program.json")
    assert "local/routedk" not in (tmp_path / "program.json").read_text()
    predict = dspy.Predict("question -> answer")
    predict.lm = engine_lm(StudentEngine(shared))
    predict.save(tmp_path / "predict.json")
    assert (tmp_path / "predict.json").stat().st_size < 10_000
    again = dspy.Predict("question -> answer")
    with pytest.raises(SettingError, match="the student is not saved with a program"):
        again.load(tmp_path / "predict.json", allow_unsafe_lm_state=True)


def test_seeded_draws_do_not_depend_on_the_batch(engine: CountingEngine) -> None:
    lm = lm_of(engine)

    def draw(seed: int) -> Any:
        return lm("Hello", max_tokens=6, temperature=1.5, seed=seed)

    alone = draw(1)
    parallel = dspy.Parallel(num_threads=4, disable_progress_bar=True, timeout=0)
    with dspy.context(lm=lm):
        found = parallel([(lambda seed: draw(seed), {"seed": seed}) for seed in (1, 2, 1, 3)])
    assert found[0] == found[2] == alone
    assert len({str(answer) for answer in found}) > 1


def test_names_differ_with_what_would_be_answered(loaded: Student) -> None:
    names = []
    for form in FORMS:
        names.append(engine_lm(StudentEngine(loaded, form=form)).model)
    routed = randomise(RoutedStudent(copy_of(loaded)))
    for fusion in ("softmax", "uniform", "single:base", "single:rule"):
        routed.use_fusion(fusion)
        names.append(engine_lm(StudentEngine(routed)).model)
    names.append(engine_lm(StudentEngine(routed, form="item-intents")).model)
    randomise(routed, seed=2)
    names.append(engine_lm(StudentEngine(routed)).model)
    assert len(set(names)) == len(names)
    assert engine_lm(StudentEngine(routed)).model == names[-1]
    assert all(name.startswith("local/routedk-") for name in names)


def test_unknown_form(loaded: Student) -> None:
    with pytest.raises(SettingError, match=r"answer form 'prose': allowed are \('item-intents', "):
        StudentEngine(loaded, form="prose")  # type: ignore[arg-type]


def test_student_lm(
    routed: RoutedStudent, student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed.save(tmp_path / "experts")
    lm = student_lm(tmp_path / "experts")
    assert lm.engine.form == "item-intents"
    assert lm.engine.generator.routed.fusion_name == "softmax"
    for form, wanted in (("bundles", "thought, then bundles"), ("item-intents",) * 2):
        routed.save(tmp_path / "experts", {"training": {"answer_form": form}})
        assert student_lm(tmp_path / "experts").engine.form == wanted
    routed.save(tmp_path / "experts", {"training": {"answer_form": "prose"}})
    with pytest.raises(ArtifactError, match="answer_form: Input should be 'item-intents'"):
        student_lm(tmp_path / "experts")
    routed.save(tmp_path / "experts")
    lm = student_lm(tmp_path / "experts", str(student_folder), fusion="uniform", form="bundles")
    assert lm.engine.form == "bundles"
    assert lm.engine.generator.routed.fusion_name == "uniform"
    asked: list[str] = []

    def load(name: str, dtype: str | None = None) -> Student:
        asked.append(name)
        return routed.student

    monkeypatch.setattr(engine_module, "load_student", load)
    assert student_lm().engine.form == "bundles"
    assert asked == [engine_module.DEFAULT_STUDENT]
