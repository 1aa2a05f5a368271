"""The one prompt layout: every message of training, compilation and inference is made here.

Pure Python. The ``dspy.Adapter`` of this package calls the same functions, so demos, training
rows and inference prompts agree byte for byte.

An answer is one line per bundle, ``1 3 4 | camera accessories`` (item numbers, then the
intent; just the numbers for a bundle without intent), or ``none``. A thought may precede
it on a separate line, ``Thought: ...``. A thought that names each item's intent implies the
bundles and stands alone, see ``routedk.programs.prompting.item_intents``.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

from routedk.programs.prompting.item_intents import (
    read_entries,
    read_item_intents,
    shared_intents,
)
from routedk.programs.prompting.text import INTENT_WORDS, RULE_WORDS, THOUGHT_WORDS, neutralise
from routedk.types import Bundle, Pattern, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A training session shown with its gold bundles.

    Args:
        session: The training session; its ``bundles`` are its gold.
        thought: Why they are bundles; not shown if empty.
    """

    session: Session
    thought: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptContext:
    """The knowledge in one prompt.

    Args:
        patterns: Patterns, in the order shown, between the instruction and the rules.
        rules: Rules, in the order shown, at the end of the system message.
        neighbours: Similar training sessions, in the order shown, each a complete user and
            assistant turn.
    """

    patterns: tuple[Pattern, ...] = ()
    rules: tuple[str, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()


NO_CONTEXT = PromptContext()


Message: TypeAlias = dict[str, str]
# Values of the fields of `GenerateBundles`, by name.
Fields: TypeAlias = dict[str, str]

LAYOUT = "32b57f592916a2ba"
"""Identifies what this layout renders; `tests/programs/prompting/test_layout.py` pins it."""
NO_BUNDLE = "none"
UNTITLED = "untitled"
THOUGHT_PREFIX = "Thought:"


@dataclass(frozen=True, slots=True)
class Prompt:
    """The messages that ask for one session's bundles.

    Args:
        messages: The chat messages, the system's first.
        items: The session's numbered lines, as they appear in the last message.
    """

    messages: tuple[Message, ...]
    items: tuple[str, ...]


@cache
def instruction() -> str:
    """The instruction, as written in ``generate.txt`` in this package's folder."""
    return (Path(__file__).parent / "generate.txt").read_text(encoding="utf-8").strip()


def item_lines(session: Session) -> tuple[str, ...]:
    """The session's items, one numbered line each."""
    return tuple(
        f"{number} {neutralise(item.title) or UNTITLED}"
        for number, item in enumerate(session.items, start=1)
    )


def render_items(session: Session) -> str:
    """The session's numbered lines as one string."""
    return "\n".join(item_lines(session))


def render_answer(session: Session, bundles: Sequence[Bundle]) -> str:
    """The answer that states these bundles, in the order of their item numbers.

    Args:
        session: The session in which the items are numbered.
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
    return _block("Often bundled together:", map(render_pattern, patterns))


def render_rules(rules: Sequence[str]) -> str:
    """Rules as a block of lines; empty without rules."""
    return _block("Rules:", (neutralise(rule, RULE_WORDS) for rule in rules))


def _block(title: str, lines: Iterable[str]) -> str:
    listed = "".join(f"\n- {line}" for line in lines)
    return listed and title + listed


def assistant_content(answer: str, thought: str = "", *, both: bool = False) -> str:
    """The assistant message: a thought line, if there is one, then the answer.

    A thought that names item intents, and so implies the answer, stands alone, unless
    the item numbers of the answer differ or the thought is too long to be shown whole.

    Args:
        answer: As `render_answer` makes it; may be empty.
        thought: Why it is the answer; may be empty.
        both: Show the answer even after a thought that implies it.
    """
    line = neutralise(thought, THOUGHT_WORDS)
    if not line:
        return answer
    stated = {bundle.partition(" |")[0] for bundle in answer.split("\n")}
    alone = not answer or (not both and _implied_lines(line) == stated)
    return f"{THOUGHT_PREFIX} {line}" if alone else f"{THOUGHT_PREFIX} {line}\n{answer}"


def _implied_lines(thought: str) -> set[str]:
    """The lines of the answer that a thought implies, without intents; empty for other forms."""
    entries = list(read_entries(thought))
    numbers = [entry[0] for entry in entries if not isinstance(entry, str)]
    if numbers != list(range(1, len(entries) + 1)):
        return set()
    shared = shared_intents(read_item_intents(thought, len(numbers)))
    return {" ".join(map(str, bundle)) for bundle in shared} or {NO_BUNDLE}


def prompt_fields(session: Session, context: PromptContext) -> tuple[Fields, list[Fields]]:
    """The inputs of `GenerateBundles` for one session, and the neighbours shown as demos."""
    fields = {
        "patterns": render_patterns(context.patterns),
        "rules": render_rules(context.rules),
        "similar": "",
        "session": render_items(session),
    }
    demos = []
    for neighbour in context.neighbours:
        shown = neighbour.session
        answer = render_answer(shown, shown.bundles or ())
        demos.append(demo_fields(shown, answer, neighbour.thought))
    return fields, demos


def demo_fields(session: Session, answer: str, thought: str = "", similar: str = "") -> Fields:
    """A demo: one session's items, the text above them, and the answer."""
    return {
        "patterns": "",
        "rules": "",
        "similar": similar,
        "session": render_items(session),
        "thought": thought,
        "bundles": answer,
    }


def chat_messages(
    instructions: str, demos: Sequence[Mapping[str, str]], fields: Mapping[str, str]
) -> list[Message]:
    """The messages of one request: the system's, two for each demo, and the user's.

    Args:
        instructions: The beginning of the system message; patterns and rules follow.
        demos: As `demo_fields` makes them.
        fields: As `prompt_fields` makes them.
    """
    blocks = [fields.get("patterns"), fields.get("rules")]
    system = "\n".join([instructions, *filter(None, blocks)])
    messages = [{"role": "system", "content": system}]
    for demo in demos:
        answer = assistant_content(demo.get("bundles") or "", demo.get("thought") or "")
        messages += [_user_message(demo), {"role": "assistant", "content": answer}]
    return [*messages, _user_message(fields)]


def _user_message(fields: Mapping[str, str]) -> Message:
    items, similar = fields.get("session") or "", fields.get("similar")
    return {
        "role": "user",
        "content": f"{similar}\n\nSession:\n{items}" if similar else items,
    }


def build_prompt(session: Session, context: PromptContext = NO_CONTEXT) -> Prompt:
    """Build the prompt that asks a student for this session's bundles.

    Args:
        session: The session; its gold bundles are ignored.
        context: Patterns, rules and neighbours to show.
    """
    fields, neighbours = prompt_fields(session, context)
    messages = chat_messages(instruction(), neighbours, fields)
    return Prompt(tuple(messages), item_lines(session))
