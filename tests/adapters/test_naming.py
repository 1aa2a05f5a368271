"""Students that name bundles: their training rows, their answers and what comes with them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
import pytest

from routedk.adapters.answering import GenerateConfig
from routedk.adapters.engine.engine import engine_lm, student_lm
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.generate import generate
from routedk.adapters.student import Student
from routedk.adapters.train import choose_lessons, shown_knowledge, train
from routedk.adapters.training.examples import training_rows
from routedk.errors import DataError, SettingError
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping.encoder import EncoderGrouping
from routedk.programs.prompting.item_intents import ITEM_INTENT_CHARACTERS
from routedk.types import Answer, Bundle, KnowledgeBase, Session
from tests.adapters.conftest import SMALL
from tests.adapters.engine.conftest import CountingEngine


class Pairs:
    """Bundles neighbouring items, two by two."""

    def answer(self, session: Session) -> Answer:
        names = [item.id for item in session.items]
        bundles = [Bundle((a, b)) for a, b in zip(names[::2], names[1::2], strict=False)]
        return Answer(session.id, tuple(bundles))

    def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
        return {}

    def fingerprint(self) -> str:
        return "pairs"


@pytest.fixture
def engine(shared: RoutedStudent) -> Iterator[CountingEngine]:
    found = CountingEngine(shared, form="bundle-intent", grouping=Pairs())
    yield found
    found.close()


def labelled(sessions: list[Session]) -> list[Session]:
    """The sessions with a reason for each second one, and junk as the last one's intent."""
    found = []
    for number, session in enumerate(sessions):
        (bundle,) = session.bundles or ()
        why = "They are used together." if number % 2 else ""
        intent = "2" if number == len(sessions) - 1 else bundle.intent
        found.append(replace(session, bundles=(replace(bundle, intent=intent, why=why),)))
    return found


@pytest.mark.parametrize("expert", ["base", "rule", "thought"])
def test_rows(
    expert: str, loaded: Student, sessions: list[Session], knowledge: KnowledgeBase
) -> None:
    learnt = labelled(sessions)
    lessons = choose_lessons(learnt, knowledge, "bundle-intent")
    shown = shown_knowledge(lessons, knowledge, "bundle-intent")
    tokenizer: Any = loaded.tokenizer
    rows = training_rows(tokenizer, lessons, shown[expert], expert, "bundle-intent")
    assert len(rows) == len(sessions) - 1, "a row per bundle whose intent is no junk"
    for number, row in enumerate(rows):
        titles = [item.title for item in sessions[number].items[:2]]
        prompt = tokenizer.decode(row.prompt.ids)
        assert tokenizer.decode(row.prompt.ids[slice(*row.prompt.span)]).strip() == "\n".join(
            titles
        )
        assert ("Rules:" in prompt) == (expert == "rule")
        assert ("intent: intent" in prompt) == (expert == "thought")
        written = [tokenizer.decode(ids) for ids, _ in row.lines]
        why = ["why: They are used together.<|im_end|>"] if number % 2 else []
        assert written == ["intent: intent 0<|im_end|>", *why]
        assert [tokenizer.decode(ids[:given]) for ids, given in row.lines] == ["intent:", "why:"][
            : len(row.lines)
        ]


def test_bundles_of_all_sessions_are_named_in_batches(
    engine: CountingEngine, sessions: list[Session]
) -> None:
    program = BundleGenerator()
    with dspy.context(lm=engine_lm(engine)):
        alone = [program(session=session).bundles for session in sessions]
        engine.batches.clear()
        found = generate_all(program, sessions, num_threads=6)
    assert [one.bundles for one in found] == alone
    assert sum(map(len, engine.batches)) == sum(len(session.items) // 2 for session in sessions)
    assert len(engine.batches) < len(sessions)
    for bundles, session in zip(alone, sessions, strict=True):
        assert [b.items for b in bundles] == [b.items for b in Pairs().answer(session).bundles]
        assert all(0 < len(bundle.intent) <= ITEM_INTENT_CHARACTERS for bundle in bundles)


def test_why_is_a_second_line_of_the_same_prompt(
    engine: CountingEngine,
    sessions: list[Session],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The intents of a tiny student are of no titles.
    monkeypatch.setattr(
        "routedk.programs.naming.grounded", lambda intents, titles, encoder: intents[0]
    )
    lm = engine_lm(engine)
    plain = generate(sessions[:2], lm=lm, store=tmp_path)
    told = generate(sessions[:2], GenerateConfig(why=True), lm=lm, store=tmp_path)
    assert not any(bundle.why for answer in plain for bundle in answer.bundles)
    assert all(bundle.why for answer in told for bundle in answer.bundles)
    heads = [len(job.heads) for batch in engine.batches for job in batch]
    assert sorted(set(heads)) == [1, 2]


def test_a_student_without_a_grouping_is_refused_before_it_is_asked(
    shared: RoutedStudent, sessions: list[Session], tmp_path: Path
) -> None:
    engine = CountingEngine(shared, form="bundle-intent")
    with pytest.raises(SettingError, match="nothing to group items by"):
        generate(sessions, lm=engine_lm(engine), store=tmp_path)
    assert not engine.batches
    engine.close()


def test_the_name_of_a_model_tells_its_grouping(shared: RoutedStudent) -> None:
    engines = [
        CountingEngine(shared, form="bundle-intent", grouping=grouping)
        for grouping in (None, Pairs())
    ]
    assert len({engine_lm(engine).model for engine in engines}) == 2


def test_trained_to_name(
    sessions: list[Session],
    knowledge: KnowledgeBase,
    student_folder: Path,
    tmp_path: Path,
) -> None:
    """With a reason to learn in some rows; the grouping is found beside the experts."""
    config = replace(SMALL, student=str(student_folder), answer_form="bundle-intent", epochs=8)
    assert config.shape.experts_from == "session"
    experts = train(labelled(sessions), knowledge, config, store=tmp_path / "store")
    lm = student_lm(experts)
    assert isinstance(lm.engine.grouping, EncoderGrouping)
    assert lm.engine.form == "bundle-intent"
    with dspy.context(lm=lm):
        prediction = BundleGenerator(grouping=Pairs())(session=sessions[0])
        grouped = BundleGenerator()(session=sessions[0])
    assert prediction.raw.startswith("intent: intent 0")
    alone = lm.engine.grouping.answer(sessions[0])
    assert [b.items for b in grouped.bundles] == [b.items for b in alone.bundles]
    assert student_lm(experts, form="item-intents").engine.grouping is None


def test_labels_without_a_usable_intent_are_refused(
    sessions: list[Session], student_folder: Path, tmp_path: Path
) -> None:
    config = replace(SMALL, student=str(student_folder), answer_form="bundle-intent")
    with pytest.raises(DataError, match="no bundle of a training session has an intent"):
        train(labelled(sessions)[-1:], KnowledgeBase(), config, store=tmp_path)
