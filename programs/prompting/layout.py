"""The one prompt layout: every message of training, compilation and inference is made here.

Pure Python. The ``dspy.Adapter`` of this package calls the same functions, so in-context
examples, fine-tuning examples and inference prompts agree byte for byte.

An answer is one line per bundle, ``1 3 4 | camera accessories`` (item numbers, then the
intent; a bundle without intent is its numbers alone), or ``none``. A thought may stand before
it on a line of its own, ``Thought: ...``. A thought that names each item's intent implies the
bundles and stands alone, see ``routedk.programs.prompting.item_intents``.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from routedk.programs.knowledge.context import NO_CONTEXT, Neighbour, PromptContext
from routedk.programs.prompting.item_intents import (
    read_entries,
    read_item_intents,
    render_item_intents,
    shared_intents,
)
from routedk.programs.prompting.text import INTENT_WORDS, RULE_WORDS, THOUGHT_WORDS, neutralise
from routedk.types import Bundle, Item, Pattern, Provenance, Session

Message: TypeAlias = dict[str, str]

NO_BUNDLE = "none"
UNTITLED = "untitled"
THOUGHT_PREFIX = "Thought:"


@cache
def instruction() -> str:
    """The instruction, as written in ``generate.txt`` in this package's folder."""
    return (Path(__file__).parent / "generate.txt").read_text(encoding="utf-8").strip()


def render_items(session: Session) -> str:
    """The session's items, one numbered line each."""
    return "\n".join(
        f"{number} {neutralise(item.title) or UNTITLED}"
        for number, item in enumerate(session.items, start=1)
    )


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


def render_pattern(pattern: Pattern) -> str:
    """A pattern as one line, its categories joined by ``+``."""
    return neutralise(" + ".join(map(neutralise, pattern.categories)), RULE_WORDS)


def render_patterns(patterns: Sequence[Pattern]) -> str:
    """Patterns as a block of lines; empty without patterns."""
    if not patterns:
        return ""
    return "\n".join(["Often bundled together:", *(f"- {render_pattern(p)}" for p in patterns)])


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


def system_content(instructions: str, patterns: str = "", rules: str = "") -> str:
    """The system message: the instruction, then the blocks of patterns and of rules."""
    return "\n".join([instructions, *filter(None, (patterns, rules))])


def user_content(items: str, similar: str = "") -> str:
    """The user message: similar sessions, then the session's items."""
    return f"{similar}\n\nSession:\n{items}" if similar else items


def assistant_content(answer: str, thought: str = "", *, both: bool = False) -> str:
    """The assistant message: a thought line where there is one, then the answer.

    A thought that names item intents, and so implies the answer, stands alone. It does not
    where the item numbers of the answer differ, or the thought is too long to be shown whole.

    Args:
        answer: As `render_answer` makes it; perhaps empty.
        thought: Why it is the answer; perhaps empty.
        both: The answer follows a thought that implies it, too.
    """
    line = neutralise(thought, THOUGHT_WORDS)
    if not line:
        return answer
    alone = not answer or (not both and _numbers_implied(line) == _numbers_stated(answer))
    return f"{THOUGHT_PREFIX} {line}" if alone else f"{THOUGHT_PREFIX} {line}\n{answer}"


def _numbers_implied(thought: str) -> set[tuple[int, ...]] | None:
    """The item numbers of the bundles that a thought implies; None for one of another form."""
    entries = list(read_entries(thought))
    numbers = [entry[0] for entry in entries if not isinstance(entry, str)]
    if numbers != list(range(1, len(entries) + 1)):
        return None
    return set(shared_intents(read_item_intents(thought, len(numbers))))


def _numbers_stated(answer: str) -> set[tuple[int, ...]] | None:
    """The item numbers of an answer of `render_answer`; None for one of another form."""
    if answer == NO_BUNDLE:
        return set()
    stated = [line.partition("|")[0].split() for line in answer.split("\n")]
    if not all(word.isascii() and word.isdecimal() for words in stated for word in words):
        return None
    return {tuple(map(int, words)) for words in stated}


def build_messages(session: Session, context: PromptContext = NO_CONTEXT) -> list[Message]:
    """The chat messages that ask a student for this session's bundles.

    Args:
        session: The session; its gold bundles are not looked at.
        context: Patterns, rules and neighbours to show.

    Returns:
        System message, the neighbours' turns where the style is ``demos``, user message.
    """
    patterns, rules = render_patterns(context.patterns), render_rules(context.rules)
    system = system_content(instruction(), patterns, rules)
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


@cache
def layout_hash(*, patterns: bool = True) -> str:
    """A hash of what this layout renders: it changes exactly when rendering does.

    Args:
        patterns: False leaves patterns out: what programs without patterns render.
    """
    items = tuple(Item(id=name, title=f"{name} |<x>\n") for name in ("a", "b", "c"))
    bundles = (Bundle(("c", "a"), "one: two"), Bundle(("a", "b")))
    shown = Session("n", items, bundles)
    session = Session("s", (*items, Item(id="d", title="")), ())
    parts: list[object] = [render_answer(session, ())]
    neighbours = (
        Neighbour(session=shown, thought="because"),
        Neighbour(session=shown, thought=render_item_intents([["x", "y"], ["x"], ["y"]])),
    )
    for style in ("demos", "blocks"):
        context = PromptContext(rules=("one rule",), neighbours=neighbours, style=style)
        parts.append(build_messages(session, context))
    if patterns:
        named = Pattern(
            categories=("a |<x>\n", "b"),
            support=0.5,
            confidence=0.5,
            lift=1.0,
            provenance=Provenance(teacher="annotation"),
        )
        parts.append(build_messages(session, PromptContext(patterns=(named,), rules=("one rule",))))
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
