"""The one prompt layout: every message of training, compilation and inference is made here.

Pure Python. The ``dspy.Adapter`` of this package calls the same functions, so in-context
examples, fine-tuning examples and inference prompts agree byte for byte.

An answer is one line per bundle, ``1 3 4 | camera accessories`` (item numbers, then the
intent; a bundle without intent is its numbers alone), or ``none``. A thought may stand before
it on a line of its own, ``Thought: ...``.
"""

import hashlib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from routedk.programs.context import NO_CONTEXT, Neighbour, PromptContext
from routedk.programs.text import INTENT_WORDS, RULE_WORDS, THOUGHT_WORDS, neutralise
from routedk.types import Bundle, Item, Session

Message: TypeAlias = dict[str, str]

NO_BUNDLE = "none"
UNTITLED = "untitled"
THOUGHT_PREFIX = "Thought:"
CANDIDATE_PREFIX = "Bundle:"
YES, NO = "yes", "no"


@cache
def instruction(name: str) -> str:
    """The instruction text ``generate`` or ``verify``, as written in this package's folder."""
    return (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8").strip()


def render_items(session: Session) -> str:
    """The session's items, one numbered line each."""
    return "\n".join(
        f"{number} {neutralise(item.title) or UNTITLED}"
        for number, item in enumerate(session.items, start=1)
    )


def render_numbers(session: Session, item_ids: Iterable[str]) -> str:
    """Item numbers in ascending order, separated by single spaces."""
    return " ".join(map(str, sorted(session.number(item_id) for item_id in item_ids)))


def render_answer(session: Session, bundles: Sequence[Bundle]) -> str:
    """The answer that states these bundles, in the order of their item numbers.

    Args:
        session: Where the items are numbered.
        bundles: Bundles of this session; none gives ``none``.
    """
    if not bundles:
        return NO_BUNDLE
    keyed = sorted(
        (sorted(session.number(item_id) for item_id in bundle.item_ids), bundle.intent)
        for bundle in bundles
    )
    lines = []
    for numbers, raw_intent in keyed:
        intent = neutralise(raw_intent, INTENT_WORDS)
        lines.append(" ".join(map(str, numbers)) + (f" | {intent}" if intent else ""))
    return "\n".join(lines)


def render_candidate(session: Session, item_ids: Iterable[str]) -> str:
    """One candidate bundle as the verification prompt shows it, after the session's items."""
    return f"{CANDIDATE_PREFIX} {render_numbers(session, item_ids)}"


def render_rules(rules: Sequence[str]) -> str:
    """Rules as a block of lines; empty without rules."""
    if not rules:
        return ""
    return "\n".join(["Rules:", *(f"- {neutralise(rule, RULE_WORDS)}" for rule in rules)])


def render_similar(neighbours: Sequence[Neighbour]) -> str:
    """Neighbours as compact blocks; empty without neighbours."""
    blocks = []
    for neighbour in neighbours:
        session = neighbour.session
        answer = assistant_content(render_answer(session, session.bundles or ()), neighbour.thought)
        blocks.append(f"Similar session:\n{render_items(session)}\nBundles:\n{answer}")
    return "\n\n".join(blocks)


def system_content(instructions: str, rules: str = "") -> str:
    """The system message: the instruction, then the block of rules."""
    return f"{instructions}\n{rules}" if rules else instructions


def user_content(items: str, similar: str = "", candidate: str = "") -> str:
    """The user message: similar sessions, the session's items, the candidate to verify."""
    shown = f"{similar}\n\nSession:\n{items}" if similar else items
    return f"{shown}\n{candidate}" if candidate else shown


def assistant_content(answer: str, thought: str = "") -> str:
    """The assistant message: a thought line where there is one, then the answer."""
    line = neutralise(thought, THOUGHT_WORDS)
    return f"{THOUGHT_PREFIX} {line}\n{answer}" if line else answer


def build_messages(session: Session, context: PromptContext = NO_CONTEXT) -> list[Message]:
    """The chat messages that ask a student for this session's bundles.

    Args:
        session: The session; its gold bundles are not looked at.
        context: Rules and neighbours to show.

    Returns:
        System message, the neighbours' turns where the style is ``demos``, user message.
    """
    system = system_content(instruction("generate"), render_rules(context.rules))
    messages: list[Message] = [{"role": "system", "content": system}]
    similar = ""
    if context.style == "demos":
        for neighbour in context.neighbours:
            shown = neighbour.session
            answer = render_answer(shown, shown.bundles or ())
            messages += [
                {"role": "user", "content": user_content(render_items(shown))},
                {"role": "assistant", "content": assistant_content(answer, neighbour.thought)},
            ]
    else:
        similar = render_similar(context.neighbours)
    messages.append({"role": "user", "content": user_content(render_items(session), similar)})
    return messages


def build_verify_messages(
    session: Session, item_ids: Iterable[str], context: PromptContext = NO_CONTEXT
) -> list[Message]:
    """The chat messages that ask whether one candidate is a bundle; the answer is yes or no.

    Neighbours are shown as blocks in either style. The candidate stands last, so that all
    candidates of a session share their prompt's beginning.
    """
    system = system_content(instruction("verify"), render_rules(context.rules))
    similar = render_similar(context.neighbours)
    user = user_content(render_items(session), similar, render_candidate(session, item_ids))
    return [{"role": "system", "content": system}, {"role": "user", "content": user}]


@cache
def layout_hash() -> str:
    """A hash of what this layout renders: it changes exactly when rendering does."""
    items = tuple(Item(id=name, title=f"{name} |<x>\n") for name in ("a", "b", "c"))
    bundles = (Bundle(("c", "a"), "one: two"), Bundle(("a", "b")))
    shown = Neighbour(session=Session("n", items, bundles), thought="because")
    session = Session("s", (*items, Item(id="d", title="")), ())
    parts: list[object] = [render_answer(session, ())]
    for style in ("demos", "blocks"):
        context = PromptContext(rules=("one rule",), neighbours=(shown,), style=style)
        parts += [build_messages(session, context), build_verify_messages(session, "ab", context)]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
