"""Why a bundle is one: in facts, and naming only its items."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.adapters.answering import GenerateConfig
from routedk.adapters.generate import generate
from routedk.errors import DataError
from routedk.eval.predictions import prediction_record
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.grounding import _RELATIONS, shared_words, supported
from routedk.programs.why import explain
from routedk.types import Answer, Bundle, Item, Session
from tests.programs.grouping.test_constraints import made
from tests.scripted import scripted_lm

ITEMS = {
    "a": "Steel gooseneck kettle",
    "b": "Paper coffee filters 100",
    "c": "Burr coffee grinder",
    "d": "Camping tripod",
}
CART = Session("cart", tuple(Item(name, title) for name, title in ITEMS.items()))
PLAIN = "Its two closest items are Steel gooseneck kettle and Burr coffee grinder."
TITLES = [ITEMS[name] for name in "abc"]


class Brew:
    """Bundles all but the last item."""

    def answer(self, session: Session) -> Answer:
        return Answer(session.id, (Bundle(tuple(item.id for item in session.items[:-1])),))

    def known_intents(self, titles: Any) -> dict[str, float]:
        return {}

    def fingerprint(self) -> str:
        return "brew"


def program(answer: str, grouping: Any = None, **knowledge: Any) -> tuple[BundleGenerator, Any]:
    made = BundleGenerator(CompiledKnowledge(**knowledge), grouping or Brew(), why=True)
    lm, engine = scripted_lm(lambda messages: answer)
    made.set_lm(lm)
    return made, engine


@pytest.mark.parametrize(
    ("sentence", "kept"),
    [
        ("The kettle and the grinder are used together with filters.", True),
        ("Grinding coffee goes with the paper filter.", True),
        ("The kettle carries 100 filters.", True),
        ("The kettle goes with the tripod.", False),  # Of the session, not of the bundle.
        ("The kettle goes with a mug.", False),  # Of nothing.
        ("The kettle carries 250 filters.", False),
        ("The kettle carries 10 filters.", False),
        ("Two kettles compared.", False),
        ("The red kettle and the grinder.", False),
        ("The kettle and the Hario grinder.", False),
        ("Cutting the paper.", False),
        ("", False),
        ("!", False),
        ("together", True),
    ],
)
def test_a_sentence_names_only_items_of_the_bundle(sentence: str, kept: bool) -> None:
    assert supported(sentence, TITLES) == kept
    asked, _ = program(f"intent: coffee\nwhy: {sentence}")
    (bundle,) = asked(session=CART).bundles
    assert bundle.why == (sentence if kept else PLAIN)
    assert bundle.explanation.sentence == bundle.why
    assert explain(CART, "abc", asked).sentence == bundle.why


@given(
    st.lists(
        st.sampled_from(sorted({word for title in ITEMS.values() for word in title.split()}))
        | st.sampled_from(sorted(_RELATIONS))
        | st.sampled_from(["mug", "Hario", "dashboard", "7", "three"])
    )
)
def test_what_is_said_stands_in_a_title_or_is_no_thing(words: list[str]) -> None:
    sentence = " ".join(words)
    if supported(sentence, TITLES):
        told = {word.lower() for title in TITLES for word in title.split()}
        assert {word.lower() for word in words} <= told | _RELATIONS


def test_what_speaks_for_a_bundle() -> None:
    trained = [
        Session("t1", (Item("1", "Coffee mill"), Item("2", "Kettle, black")), ()),
        Session("t2", (Item("1", "Tent"), Item("2", "Tripod")), ()),
    ]
    labelled = tuple(
        Session(one.id, one.items, (Bundle(("1", "2"), intent),))
        for one, intent in zip(trained, ("brewing at home", "camping trip"), strict=True)
    )
    rules = ("Bundle tents with tripods.", "Filters go with kettles, and so does coffee.")
    asked, _ = program("intent: coffee", rules=rules, sessions=labelled, k=2)
    found = explain(CART, ["a", "b", "c"], asked, sentence=False)
    assert found.ties == ("a", "c")
    assert found.rule == rules[1]
    assert (found.similar, found.similar_intent) == ("t1", "brewing at home")
    assert found.sentence == PLAIN
    other = explain(CART, ["b", "d"], asked, sentence=False)
    assert (other.rule, other.similar, other.similar_intent) == ("", "", "")


def test_words_in_common_are_those_of_more_than_one_title() -> None:
    assert shared_words("Coffee grinders and kettles", TITLES) == 3
    assert shared_words("Steel kettles", TITLES) == 0
    assert shared_words("and with the", TITLES) == 0


def test_what_ties_is_what_groups() -> None:
    grouping = made()
    session = Session("s", tuple(Item(str(k), f"thing number {k}") for k in range(6)))
    bundle = [item.id for item in session.items[1:5]]
    asked, _ = program("", grouping)
    ties = explain(session, bundle, asked, sentence=False).ties
    _, logits = grouping.read([item.title for item in session.items])
    pairs = [(one, other) for one in bundle for other in bundle if one < other]
    assert ties == max(pairs, key=lambda pair: logits[int(pair[0]), int(pair[1])])


def test_who_states_the_sentence_is_a_choice() -> None:
    asked, engine = program("intent: coffee\nwhy: The kettle is used with the grinder.")
    teacher, other = scripted_lm(lambda _: "intent: coffee\nwhy: The grinder and the filters.")
    assert explain(CART, "abc", asked).sentence == "The kettle is used with the grinder."
    assert explain(CART, "abc", asked, lm=teacher).sentence == "The grinder and the filters."
    assert explain(CART, "abc", asked, sentence=False).sentence == PLAIN
    assert (len(engine.requests), len(other.requests)) == (1, 1)
    assert asked.namer.name.lm is not teacher


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["a"], "it needs at least two items"),
        (["a", "a"], "names an item twice"),
        (["a", "z"], "session 'cart' has no item 'z'"),
    ],
)
def test_what_is_no_bundle_of_the_session_is_refused(items: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        explain(CART, items, program("")[0])


def test_lines_of_predictions_say_why(tmp_path: Path) -> None:
    asked, _ = program("intent: coffee\nwhy: A kettle and a mug.", rules=("Kettles and coffee.",))
    plain = BundleGenerator(asked.knowledge, Brew())

    def record(config: GenerateConfig) -> dict[str, Any]:
        (answer,) = generate([CART], config, program=plain, lm=asked.namer.name.lm, store=tmp_path)
        return prediction_record(answer)["bundles"][0]  # type: ignore[no-any-return]

    base = {"items": ["a", "b", "c"], "intent": "coffee"}
    assert record(GenerateConfig()) == {**base, "why": "A kettle and a mug."}
    told = {"why": PLAIN, "ties": ["a", "c"], "rule": "Kettles and coffee."}
    assert record(GenerateConfig(why=True)) == {**base, **told}
    # As kept, too.
    assert record(GenerateConfig(why=True)) == {**base, **told}
    assert asyncio.run(asked.acall(session=CART)).bundles == asked(session=CART).bundles


def test_bundles_that_a_model_states_are_explained_too() -> None:
    stating = BundleGenerator(why=True)
    lm, _ = scripted_lm(lambda messages: "1 2 3 | coffee")
    stating.set_lm(lm)
    (bundle,) = stating(session=CART).bundles
    assert (bundle.why, bundle.explanation.ties) == (PLAIN, ("a", "c"))
