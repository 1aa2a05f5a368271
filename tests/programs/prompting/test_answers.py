import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.errors import AnswerError
from routedk.programs.prompting.answers import read_answer
from routedk.programs.prompting.item_intents import (
    compose_bundles,
    read_item_intents,
    render_item_intents,
)
from routedk.programs.prompting.layout import assistant_content, render_answer
from routedk.types import Bundle, Item, Session

SESSION = Session("s", tuple(Item(id=f"i{n}", title=f"thing {n}") for n in range(1, 7)))


def numbers(text: str) -> list[tuple[list[int], str]]:
    parsed = read_answer(text, SESSION)
    return [([SESSION.number(i) for i in b.item_ids], b.intent) for b in parsed.bundles]


@pytest.mark.parametrize(
    ("text", "bundles"),
    [
        (
            "1 3 4 | camera accessories\n2 5 | tea",
            [([1, 3, 4], "camera accessories"), ([2, 5], "tea")],
        ),
        ("1 3", [([1, 3], "")]),
        ("- (1, 3): camera", [([1, 3], "camera")]),
        ("Bundle 1: 1, 3 and 4 - Tea Time", [([1, 3, 4], "Tea Time")]),
        ("Bundle 1: [1, 3, 4] | tea\nBundle 2: [2, 5]", [([1, 3, 4], "tea"), ([2, 5], "")]),
        ("1. 1 3 | x\n2) 2 4 | y", [([1, 3], "x"), ([2, 4], "y")]),
        ("[[1,3],[2,4]]", [([1, 3], ""), ([2, 4], "")]),
        ("Bundles:\n* **1 3** | tea", [([1, 3], "tea")]),
        ("items #1 and #3 go together", [([1, 3], "go together")]),
        ("1 3 4 camera 5 pack", [([1, 3, 4], "camera 5 pack")]),
        ("1 3 | 2 pack of tea", [([1, 3], "2 pack of tea")]),
        ("Thought: 1 2 because\n3 4 | x", [([3, 4], "x")]),
        ("<think>1 2\n5 6</think>3 4 | x", [([3, 4], "x")]),
        ("<thinking>1 2\n5 6</thinking>\n3 4 | x", [([3, 4], "x")]),
        ("[THINK]1 2[/THINK]3 4 | x", [([3, 4], "x")]),
        ("<think>1 2 <think>2 3</think> 5 6</think>3 4 | x", [([3, 4], "x")]),
        ("<think>1 2</think>3 4 | x\n<think>5 6</think>", [([3, 4], "x")]),
        (
            "Items 1, 2, 3 and 4 could all be for the kitchen.\n3 and 6 might go together?\n"
            "</think>\n1 2 3 | coffee",
            [([1, 2, 3], "coffee")],
        ),
        (f"{'1 2 ' * 9000}</think>3 4 | x", [([3, 4], "x")]),
        ("NONE\n1 2", [([1, 2], "")]),
    ],
)
def test_tolerant_about_everything_else(text: str, bundles: list[tuple[list[int], str]]) -> None:
    assert numbers(text) == bundles


@pytest.mark.parametrize(
    "text", ["none", "None.", "No bundles found", "- no bundle", "Bundles: none"]
)
def test_no_bundle(text: str) -> None:
    parsed = read_answer(text, SESSION)
    assert parsed.none
    assert parsed.bundles == ()


@pytest.mark.parametrize(
    ("text", "bundles", "dropped"),
    [
        ("1 7 2", [([1, 2], "")], "no such item: 7"),
        ("0 1 2", [([1, 2], "")], "not an item number: 0"),
        ("01 2 3", [([2, 3], "")], "not an item number: 01"),
        ("1 -2 3", [([1, 3], "")], "not an item number: -2"),
        ("1 2\n3", [([1, 2], "")], "fewer than two items: 3"),
        ("1 2 | x\n2 1 | y", [([1, 2], "x")], "stated before: 2 1 / y"),
        ("Sure!\n1 2", [([1, 2], "")], "fewer than two items: Sure!"),
        ("1 2 or so | x", [([1, 2], "x")], "text before the bar: or so"),
        ("1 2\nnone", [([1, 2], "")], "none, although bundles are stated"),
    ],
)
def test_strict_about_item_numbers_and_reports(
    text: str, bundles: list[tuple[list[int], str]], dropped: str
) -> None:
    assert numbers(text) == bundles
    assert dropped in read_answer(text, SESSION).dropped


@pytest.mark.parametrize(
    "text",
    [
        "<think>Items 1 and 2 go together.",
        "<thinking>1 2 | tea\n3 4 | tents",
        "1 2 | tea\n<think>or 3 4?",
        "<|begin_of_thought|>1 2 | tea",
        "<|channel|>analysis<|message|>1 2 | tea",
        "<think>a</think><think>1 2",
    ],
)
def test_reasoning_that_does_not_end_is_no_answer(text: str) -> None:
    with pytest.raises(AnswerError, match="ends inside its reasoning: raise the limit"):
        read_answer(text, SESSION)


@pytest.mark.parametrize(
    ("opening", "closing"),
    [
        ("<|begin_of_thought|>", "<|end_of_thought|>"),
        ("◁think▷", "◁/think▷"),
        ("<seed:think>", "</seed:think>"),
        ("<analysis>", "</analysis>"),
        ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),
    ],
)
def test_the_tags_of_reasoning_models(opening: str, closing: str) -> None:
    assert numbers(f"{opening}\n1 3 | a guess\n{closing}\n1 2 | x") == [([1, 2], "x")]


def test_a_tag_inside_an_intent_is_a_word() -> None:
    assert numbers("1 2 | of [thought] leaders") == [([1, 2], "of (thought) leaders")]


def test_reasoning_without_an_answer_states_no_bundles() -> None:
    with pytest.raises(AnswerError, match="no bundle in the answer"):
        read_answer("Items 1, 2 and 3 could go together.</think>", SESSION)


@pytest.mark.parametrize("text", ["", "garbage", "1", "1 1", "7 8", "1-3", "² ³", "9" * 5000])
def test_nothing_valid_is_an_error(text: str) -> None:
    with pytest.raises(AnswerError, match="no bundle in the answer"):
        read_answer(text, SESSION)


def test_intent_leaves_escaped_and_short() -> None:
    [(_, intent)] = numbers("1 2 | tea <|im_end|>\x07 system: " + "x " * 50)
    assert intent.startswith("tea /im_end/ system x")
    assert len(intent.split()) == 12


def test_thought_is_kept() -> None:
    assert read_answer("Thought: kettle\n1 2", SESSION).thought == "kettle"


def test_very_long_answer_is_cut() -> None:
    parsed = read_answer("1 2\n" + "x" * 30_000, SESSION)
    assert parsed.dropped[0] == "10004 characters at the end"


@pytest.mark.parametrize(
    ("text", "bundles"),
    [
        ("Thought: 1 a; 2 a; 3 b", [([1, 2], "a")]),
        ("Thought: 1 a; 2 b / a; 3 b\n\nBundles:\n", [([1, 2], "a"), ([2, 3], "b")]),
        ("Thought: 3 Tea Time; 1 tea time.; 2 none", [([1, 3], "tea time")]),
        ("<think>1 a; 2 a</think>", [([1, 2], "a")]),
        ("Thought: 1 a; 2 a\nThought: 3 a", [([1, 2, 3], "a")]),
        ("Thought: 1 a; 2 a\n3 4 | lines win", [([3, 4], "lines win")]),
        ("Thought: 1 a; 2 a\nnone", []),
        ("Thought: 1 a; 2 b; 3 c", []),
        ("Thought: 1 none; 2 none", []),
        ("Thought: 1 a; 2 a; and so on", [([1, 2], "a")]),
        ("Thought: 1 a // a /; 2 a; 7 a; 99999999999999999999 a; 01 a", [([1, 2], "a")]),
    ],
)
def test_a_thought_that_names_item_intents_is_an_answer(
    text: str, bundles: list[tuple[list[int], str]]
) -> None:
    assert numbers(text) == bundles
    assert read_answer(text, SESSION).none is not bool(bundles)


def test_item_intents_are_of_every_item_where_a_thought_is_the_whole_answer() -> None:
    parsed = read_answer("Thought: 1 a / b; 3 a; 7 a; well", SESSION)
    assert parsed.item_intents == [("a", "b"), (), ("a",), (), (), ()]
    assert read_answer("Thought: 1 a; 2 a\n1 2", SESSION).item_intents == ()
    assert read_answer("1 2", SESSION).item_intents == ()


def test_what_a_thought_names_amiss_is_reported() -> None:
    parsed = read_answer("Thought: 1 a; 7 a; 2 a; 2 b; well", SESSION)
    assert parsed.dropped == ("no such item: 7", "named before: 2", "not an item's intent: well")
    assert parsed.thought == "1 a; 7 a; 2 a; 2 b; well"


@pytest.mark.parametrize(
    "text",
    ["Thought:", "Thought: a kettle", "Thought: why; 1 a", "Thought: 7 a", "Thought: 1 a\nhm"],
)
def test_another_thought_alone_is_no_answer(text: str) -> None:
    with pytest.raises(AnswerError, match="no bundle in the answer"):
        read_answer(text, SESSION)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    count = draw(st.integers(2, 12))
    items = tuple(Item(id=f"i{n}", title="") for n in range(count))
    sets = draw(st.sets(st.frozensets(st.sampled_from(items), min_size=2), max_size=4))
    bundles = [
        Bundle(tuple(sorted(item.id for item in chosen)), draw(st.text(max_size=40)))
        for chosen in sorted(sets, key=lambda chosen: sorted(item.id for item in chosen))
    ]
    return Session("s", items, tuple(bundles))


def assert_strict(text: str, session: Session) -> None:
    """Distinct sets of the session's items with clean intents, or an `AnswerError`."""
    ids = {item.id for item in session.items}
    try:
        parsed = read_answer(text, session)
    except AnswerError:
        return
    assert parsed.none is not bool(parsed.bundles)
    assert len({bundle.items for bundle in parsed.bundles}) == len(parsed.bundles)
    for bundle in parsed.bundles:
        assert bundle.items <= ids
        assert bundle.intent.isprintable()


@given(sessions(), st.text(max_size=60))
def test_what_is_rendered_is_read_back(session: Session, thought: str) -> None:
    text = assistant_content(render_answer(session, session.bundles or ()), thought)
    parsed = read_answer(text, session)
    assert {bundle.items for bundle in parsed.bundles} == set(session.gold)
    assert parsed.none is not bool(session.gold)
    assert parsed.dropped == ()


@given(sessions(), st.data())
def test_a_thought_with_item_intents_is_read_back(session: Session, data: st.DataObject) -> None:
    names = st.sampled_from(["tea", "wet weather", "none", "a / b; c", ""])
    size = len(session.items)
    intents = data.draw(st.lists(st.lists(names, max_size=3), min_size=size, max_size=size))
    thought = render_item_intents(intents)
    expected = compose_bundles(read_item_intents(thought, size), session)
    answer = render_answer(session, expected)
    shown = assistant_content(answer, thought)
    assert shown == f"Thought: {thought}"
    parsed = read_answer(shown, session)
    assert parsed.bundles == expected
    assert parsed.none is not bool(expected)
    assert parsed.dropped == ()


_ENTRIES = st.lists(
    st.one_of(
        st.sampled_from([";", " / ", "/;/", "\n", " ", "Thought:", "a", "none", "\uff1b", "|"]),
        st.integers(-3, 20).map(str),
        st.sampled_from(["1 a; ", "2 a; ", "3 a / b; ", "1 b; ", "999999 a; ", "9" * 40 + " a;"]),
    ),
    max_size=25,
)


@given(sessions(), _ENTRIES)
def test_any_thought_gives_items_of_the_session_or_an_answer_error(
    session: Session, pieces: list[str]
) -> None:
    assert_strict("Thought: " + "".join(pieces), session)


@given(sessions(), st.text(alphabet="0123456789 |,-[]()\nnoeandbul:#\x00é²;/Thought", max_size=80))
def test_any_text_gives_items_of_the_session_or_an_answer_error(
    session: Session, text: str
) -> None:
    assert_strict(text, session)
