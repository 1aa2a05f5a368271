import gc
import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from routedk.adapters.answering import GenerateConfig
from routedk.adapters.generate import generate
from routedk.data import load_sessions
from routedk.errors import SettingError
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import Answer, Bundle, Item, Kind, Session
from tests.scripted import scripted_lm

NONE = GenerateConfig()
MANY = 50


def session(number: int) -> Session:
    items = tuple(Item(f"{number}-{k}", f"thing {number} {k}") for k in range(3))
    return Session(f"s{number}", items, (Bundle((items[0].id, items[2].id), f"gold {number}"),))


def some(count: int) -> list[Session]:
    return list(map(session, range(count)))


def test_answers_come_in_the_order_of_the_sessions(tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2 | together")
    answers = generate(some(MANY), lm=lm, store=tmp_path)
    assert [answer.session_id for answer in answers] == [f"s{k}" for k in range(MANY)]
    bundle = Bundle(("0-0", "0-1"), "together")
    assert answers[0] == Answer("s0", (bundle,), input_tokens=1, output_tokens=1)
    assert len(engine.requests) == MANY


def test_nothing_is_answered_twice(tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    first = generate(some(MANY), lm=lm, store=tmp_path)
    assert generate(some(MANY), lm=lm, store=tmp_path) == first
    assert len(engine.requests) == MANY
    # Nor where others stand in front of it, or are missing.
    later = [session(MANY), *some(MANY)[2:]]
    assert generate(later, lm=lm, store=tmp_path)[1:] == first[2:]
    assert len(engine.requests) == MANY + 1


@pytest.mark.parametrize("changed", ["program", "lm", "setting", "title"])
def test_what_changes_an_answer_asks_again(tmp_path: Path, changed: str) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    generate(some(2), lm=lm, store=tmp_path)
    sessions, program = some(2), BundleGenerator()
    if changed == "program":
        program = BundleGenerator(CompiledKnowledge(rules=("Chargers go with phones.",)))
    elif changed == "lm":
        lm = lm.copy(model="local/other")
    elif changed == "setting":
        lm = lm.copy(temperature=0.5)
    else:
        sessions[1] = Session("s1", (*sessions[1].items, Item("new", "new thing")))
    asked = len(engine.requests)
    generate(sessions, program=program, lm=lm, store=tmp_path)
    assert len(engine.requests) == asked + (1 if changed == "title" else 2)


def test_gold_plays_no_part(tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    generate(some(2), lm=lm, store=tmp_path)
    generate([Session(s.id, s.items) for s in some(2)], lm=lm, store=tmp_path)
    assert len(engine.requests) == 2
    assert "gold" not in str(engine.requests)


def test_an_answer_that_cannot_be_read(tmp_path: Path) -> None:
    lm, _ = scripted_lm(lambda messages: "I would rather not")
    (answer,) = generate(some(1), lm=lm, store=tmp_path)
    assert answer.bundles == ()
    assert answer.error
    assert generate(some(1), lm=lm, store=tmp_path) == [answer]


def test_no_session_is_shown_its_own_gold(tmp_path: Path) -> None:
    knowledge = CompiledKnowledge(
        k=2,
        sessions=tuple(some(3)),
        thoughts={f"s{k}": f"thought {k}" for k in range(3)},
        show_thoughts=True,
    )
    program = BundleGenerator(knowledge)
    lm, engine = scripted_lm(lambda messages: "1 2")
    config = GenerateConfig(threads=1)
    together = generate(some(3), config, program=program, lm=lm, store=tmp_path / "a")
    for number, messages in enumerate(engine.requests):
        prompt = "\n".join(message["content"] for message in messages)
        others = {0, 1, 2} - {number}
        assert {k for k in range(3) if f"gold {k}" in prompt} == others
        assert {k for k in range(3) if f"thought {k}" in prompt} == others
    # What a session is shown does not depend on those that are answered with it.
    alone = [
        answer
        for one in some(3)
        for answer in generate([one], config, program=program, lm=lm, store=tmp_path / "b")
    ]
    assert alone == together
    assert engine.requests[:3] == engine.requests[3:]


def test_a_saved_program_is_the_same_program(tmp_path: Path) -> None:
    program = BundleGenerator(CompiledKnowledge(rules=("Chargers go with phones.",)))
    program.save(tmp_path / "program.json")
    lm, engine = scripted_lm(lambda messages: "1 2")
    generate(some(2), program=program, lm=lm, store=tmp_path)
    config = GenerateConfig(program=tmp_path / "program.json")
    generate(some(2), config, lm=lm, store=tmp_path)
    assert len(engine.requests) == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dtype": "int8"}, "dtype='int8': allowed are float32, bfloat16, float16"),
        ({"threads": 0}, "threads=0: it must be at least 1"),
    ],
)
def test_settings_are_checked(settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        GenerateConfig(**settings)  # type: ignore[arg-type]


class Confident:
    """Bundles the first two items; how sure that is, and the kind, its title says."""

    def answer(self, session: Session) -> Answer:
        sure = float(session.id)
        kind: Kind = "alternatives" if sure < 0.5 else "complements"
        bundle = Bundle(tuple(item.id for item in session.items[:2]), kind=kind, confidence=sure)
        return Answer(session.id, (bundle,), confidence=sure)

    def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
        return {}

    def fingerprint(self) -> str:
        return "confident"


def unsure(*names: str) -> list[Session]:
    items = (Item("a", "tea cup"), Item("b", "tea kettle"))
    return [Session(name, items) for name in names]


def test_unsure_sessions_are_left_to_others(tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "intent: tea")
    program = BundleGenerator(grouping=Confident())
    sessions = unsure("0.1", "0.5", "0.9")

    def found(**settings: Any) -> list[Answer]:
        config = GenerateConfig(**settings)
        return generate(sessions, config, program=program, lm=lm, store=tmp_path)

    assert [bool(answer.bundles) for answer in found()] == [True] * 3
    left, *kept = found(abstain_below=0.5)
    assert left.bundles == ()
    assert left.error == "abstained: its confidence is 0.10"
    assert left.confidence == 0.1
    assert [answer.bundles[0].intent for answer in kept] == ["tea", "tea"]
    assert len(engine.requests) == 3  # All of them have the same answers behind them.


def test_bundles_of_some_kinds_only(tmp_path: Path) -> None:
    lm, _ = scripted_lm(lambda messages: "intent: tea")
    program = BundleGenerator(grouping=Confident())
    config = GenerateConfig(kinds=("complements",))
    found = generate(unsure("0.1", "0.9"), config, program=program, lm=lm, store=tmp_path)
    assert [len(answer.bundles) for answer in found] == [0, 1]
    assert [answer.error for answer in found] == ["", ""]


def test_kinds_that_nobody_states_cannot_be_chosen(tmp_path: Path) -> None:
    lm, _ = scripted_lm(lambda messages: "1 2 | tea")
    with pytest.raises(SettingError, match="kinds: these bundles have none"):
        generate(some(1), GenerateConfig(kinds=("mixed",)), lm=lm, store=tmp_path)


def test_an_unknown_confidence_is_below_any(tmp_path: Path) -> None:
    lm, _ = scripted_lm(lambda messages: "1 2 | tea")
    (answer,) = generate(some(1), GenerateConfig(abstain_below=0.1), lm=lm, store=tmp_path)
    assert answer.error == "abstained: its confidence is unknown"


@pytest.mark.parametrize("wrong", [-0.1, 1.5])
def test_a_confidence_is_a_share(wrong: float) -> None:
    with pytest.raises(SettingError, match=f"abstain_below={wrong}: it must be from 0 to 1"):
        GenerateConfig(abstain_below=wrong)


def test_where_no_model_is_named_the_packaged_bundler_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2 | packaged")
    monkeypatch.setattr("routedk.adapters.lm.default_lm", lambda dtype: lm)
    BundleGenerator(CompiledKnowledge(rules=("one",))).save(tmp_path / "p.json")
    for config in (None, GenerateConfig(program=tmp_path / "p.json")):
        (answer,) = generate(some(1), config, store=tmp_path)
        assert answer.bundles[0].intent == "packaged"
    assert len(engine.requests) == 2


@pytest.mark.parametrize("ask", [generate, generate_all])
def test_what_answered_is_not_kept(ask: Callable[..., Any], tmp_path: Path) -> None:
    lm, engine = scripted_lm(lambda messages: "1 2")
    kept = weakref.ref(engine)
    program = BundleGenerator()
    program.set_lm(lm)
    ask(program, some(3)) if ask is generate_all else ask(some(3), lm=lm, store=tmp_path)
    del lm, engine, program
    gc.collect()
    assert kept() is None


@pytest.mark.student
class TestPackagedBundler:
    """The real student with the bundler of the package, on carts of domains it never saw."""

    def test_intents_name_nothing_that_is_not_in_the_cart(self, tmp_path: Path) -> None:
        carts = load_sessions(Path(__file__).parent / "carts.jsonl")
        strange = []
        for cart, answer in zip(carts, generate(carts, store=tmp_path), strict=True):
            for bundle in answer.bundles:
                titles = " ".join(cart.item(name).title.lower() for name in bundle.item_ids)
                words = re.findall(r"[^\W\d_]{4,}", bundle.intent.lower())
                if not words or any(word[:4] not in titles for word in words):
                    strange.append((bundle.intent, titles))
        assert len(strange) <= 3, strange

    def test_a_program_alone_uses_it(self) -> None:
        titles = ("SanDisk 32GB SDHC Card", "Sony Cyber-shot 16MP Camera", "Camera Case Black")
        items = tuple(Item(title, title) for title in titles)
        assert BundleGenerator()(session=Session("cart", items)).bundles
