import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.programs.knowledge.context import NO_CONTEXT, Neighbour, PromptContext
from routedk.programs.prompting.layout import build_messages, render_items
from routedk.programs.prompting.reading import session_lines
from routedk.types import Item, Session


@given(st.lists(st.text(max_size=20), min_size=1, max_size=12), st.booleans())
def test_the_session_of_a_prompt_is_found(titles: list[str], blocks: bool) -> None:
    session = Session("s", tuple(Item(str(n), title) for n, title in enumerate(titles)))
    neighbour = Neighbour(session=Session("n", session.items, ()), thought="1 tea; 2 tea")
    context = PromptContext(neighbours=(neighbour,), style="blocks") if blocks else NO_CONTEXT
    content = build_messages(session, context)[-1]["content"]
    assert session_lines(content) == render_items(session)


@pytest.mark.parametrize("content", ["", "hello", "2 late\n3 start", "1 a\n3 gap", "1 a\n\n", "1"])
def test_other_messages_hold_no_session(content: str) -> None:
    assert session_lines(content) is None
