"""A program that groups items first and asks for each bundle's intent."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
import pytest
from dspy.utils.exceptions import LMError

from routedk.errors import SettingError
from routedk.programs.generator import BundleGenerator, load_program
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.naming import BundleNamer
from routedk.programs.prompting.asked import Asked, asked_now
from routedk.types import Answer, Bundle, Item, Session
from tests.scripted import scripted_lm


class Neighbours:
    """Bundles the first two items and the next two; nothing of a smaller session."""

    def answer(self, session: Session) -> Answer:
        names = [item.id for item in session.items]
        pairs = [names[k : k + 2] for k in range(0, len(names) - 2, 2)]
        bundles = [Bundle((a, b), kind="complements", confidence=0.5) for a, b in pairs]
        return Answer(session.id, tuple(bundles), confidence=0.25)

    def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
        return {}

    def fingerprint(self) -> str:
        return "neighbours"


TITLES = ("tea cup", "red kettle", "usb hub", "usb cable", "lamp")
SESSION = Session("s", tuple(Item(f"i{k}", title) for k, title in enumerate(TITLES)))


def answer(messages: list[dict[str, str]]) -> str:
    tea = "tea" in messages[-1]["content"]
    return "intent: tea time\nwhy: For tea." if tea else "usb things"


def test_reasoning_that_does_not_end_names_nothing_and_is_reported() -> None:
    lm, _ = scripted_lm(lambda messages: f"<think>Perhaps {answer(messages)}")
    with dspy.context(lm=lm):
        found = BundleGenerator(grouping=Neighbours())(session=SESSION)
    assert [bundle.intent for bundle in found.bundles] == ["cup & kettle", "usb"]
    assert found.dropped[0].startswith("no intent of i0, i1: the answer ends inside its reasoning")


def test_bundles_are_grouped_then_named() -> None:
    lm, engine = scripted_lm(answer)
    program = BundleGenerator(grouping=Neighbours())
    with dspy.context(lm=lm):
        found = program(session=SESSION)
        again = asyncio.run(program.acall(session=SESSION))
        prompts = program.prompts(SESSION)
    assert found.bundles == [
        Bundle(("i0", "i1"), "tea time", "complements", "For tea.", 0.5),
        Bundle(("i2", "i3"), "usb things", "complements", "", 0.5),
    ]
    assert again.bundles == found.bundles
    assert found.raw == "intent: tea time\nwhy: For tea.\nintent: usb things"
    assert (found.error, found.none, found.dropped) == (None, False, ())
    sent = sorted(engine.requests[:2], key=lambda messages: messages[-1]["content"])
    assert [list(one.messages) for one in prompts] == sent
    assert [one.items for one in prompts] == [TITLES[:2], TITLES[2:4]]


def test_a_model_that_was_not_trained_to_name_bundles_is_not_helped() -> None:
    class Unasked(Neighbours):
        def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
            raise AssertionError("asked")

    lm, _ = scripted_lm(answer)
    with dspy.context(lm=lm):
        found = BundleGenerator(grouping=Unasked())(session=SESSION)
    assert [bundle.intent for bundle in found.bundles] == ["tea time", "usb things"]


def test_no_bundle_asks_nothing() -> None:
    lm, engine = scripted_lm(answer)
    with dspy.context(lm=lm):
        found = BundleGenerator(grouping=Neighbours())(session=Session("s", SESSION.items[:2]))
    assert (found.bundles, found.none, found.error) == ([], True, None)
    assert not engine.requests


@pytest.mark.parametrize(
    ("said", "known", "found"),
    [
        ("usb and port", {"usb hubs": 0.6, "usb cables": 0.4}, "usb hubs"),
        ("usb hubs", {"garden hose": 0.6, "car tyres": 0.4}, "usb hubs"),
        ("", {"usb hubs": 0.6, "garden hose": 0.4}, "usb hubs"),
        ("", {"garden hose": 1.0}, "usb"),
        ("usb hubs", {}, "usb hubs"),
        ("usb hubs", None, "usb"),
    ],
)
def test_a_trained_student_is_helped_by_known_intents(
    said: str, known: dict[str, float] | None, found: str
) -> None:
    lm, engine = scripted_lm(lambda messages: said)
    seen: list[Sequence[str]] = []

    class Knowing(Neighbours):
        def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
            seen.append(titles)
            return known

    engine.form = "bundle-intent"
    namer, bundles, grouping = BundleNamer(), [Bundle(("i2", "i3"))], Knowing()
    with dspy.context(lm=lm):
        named = namer(SESSION, bundles, grouping=grouping)
        again = asyncio.run(namer.acall(SESSION, bundles, grouping=grouping))
    assert [one.intent for one in named.bundles] == [found]
    assert again.bundles == named.bundles
    assert seen == [["usb hub", "usb cable"]] * 2
    assert len(engine.requests) == (0 if known is None else 2)


@pytest.mark.parametrize("said", ["", "intent: none", "intent: car tyres"])
def test_what_is_not_said_or_not_so_is_taken_from_the_titles(said: str) -> None:
    lm, _ = scripted_lm(lambda messages: said)
    session = Session("s", (Item("a", "Wool sock"), Item("b", "Wool sock, red"), Item("c", "")))
    with dspy.context(lm=lm):
        found = BundleGenerator(grouping=Neighbours())(session=session)
    assert [bundle.intent for bundle in found.bundles] == ["wool sock"]


def test_a_failing_lm_raises() -> None:
    def fail(messages: object) -> str:
        raise OSError("no power")

    lm, _ = scripted_lm(fail)
    with dspy.context(lm=lm), pytest.raises(LMError, match="no power"):
        BundleGenerator(grouping=Neighbours())(session=SESSION)


@pytest.mark.parametrize("why", [True, False])
def test_the_engine_is_told_what_is_asked(why: bool) -> None:
    seen: list[Asked] = []

    def script(messages: Any) -> str:
        seen.append(asked_now())
        return "tea"

    lm, _ = scripted_lm(script)
    program = BundleGenerator(grouping=Neighbours(), why=why)
    with dspy.context(lm=lm):
        program(session=Session("s", SESSION.items[:3]))
        asyncio.run(program.acall(session=Session("s", SESSION.items[:3])))
    heads = ("intent:", "why:") if why else ("intent:",)
    assert seen == [Asked(("tea cup", "red kettle"), heads)] * 2


def test_a_grouping_comes_with_the_lm_or_the_program_and_is_missed() -> None:
    lm, engine = scripted_lm(answer)
    program, own = BundleGenerator(), Neighbours()
    with dspy.context(lm=lm):
        assert program.groups_by() is None
        vars(engine)["form"] = "bundle-intent"
        with pytest.raises(SettingError, match="nothing to group items by"):
            program(session=SESSION)
        vars(engine)["grouping"] = Neighbours()
        assert program.groups_by() is engine.grouping  # type: ignore[attr-defined]
        assert len(program(session=SESSION).bundles) == 2
        assert BundleGenerator(grouping=own).groups_by() is own


def test_saved_and_loaded_asks_the_same(tmp_path: Path) -> None:
    labelled = Session("t", SESSION.items, (Bundle(("i0", "i1"), "tea", why="For tea."),))
    knowledge = CompiledKnowledge(rules=("one",), k=1, sessions=(labelled,), show_thoughts=True)
    program = BundleGenerator(knowledge, Neighbours(), why=True)
    namer = program.namer.name
    namer.signature = namer.signature.with_instructions("Name them.")
    namer.demos = [dspy.Example(titles="a\nb", intent="x", why=""), dspy.Example(session=SESSION)]
    program.save(tmp_path / "program.json")
    loaded = load_program(tmp_path / "program.json")
    assert loaded.namer.why
    assert loaded.fingerprint() == program.fingerprint()
    message = r"saved with a grouping that is not in the file: set it again .program.grouping"
    with pytest.raises(SettingError, match=message):
        loaded.prompts(SESSION)
    loaded.grouping = program.grouping
    assert loaded.fingerprint() == program.fingerprint()
    assert loaded.prompts(SESSION) == program.prompts(SESSION)
    (first, *_) = program.prompts(SESSION)
    contents = [message["content"] for message in first.messages]
    assert contents[0] == "Name them.\nRules:\n- one"
    assert contents[1:5] == [
        "a\nb",
        "intent: x",
        "tea cup\nred kettle",
        "intent: tea\nwhy: For tea.",
    ]
    record = json.loads((tmp_path / "program.json").read_text())
    del record["naming"]
    (tmp_path / "former.json").write_text(json.dumps(record))
    assert not load_program(tmp_path / "former.json").namer.why


def test_without_a_language_model_prompts_are_those_of_the_packaged_bundler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lm, engine = scripted_lm(answer)
    engine.grouping = Neighbours()  # type: ignore[attr-defined]
    monkeypatch.setattr("routedk.programs.default_lm.default_lm", lambda: lm)
    program = BundleGenerator()
    prompts = program.prompts(SESSION)
    assert program.groups_by() is engine.grouping  # type: ignore[attr-defined]
    assert program.asked() is program.namer.name
    program(session=SESSION)
    assert sorted(engine.requests, key=str) == sorted((list(p.messages) for p in prompts), key=str)


def test_copies_have_instructions_of_their_own_and_share_a_grouping() -> None:
    program = BundleGenerator(grouping=Neighbours())
    copied = program.deepcopy()
    copied.namer.name.signature.instructions = "Other."
    assert program.namer.name.signature.instructions != "Other."
