"""The layout of a naming request: the titles of one bundle in, its intent out.

Pure Python, like `routedk.programs.prompting.layout`, and shared by training and inference in the
same way. The user message is the bundle's titles, one per line. The answer is ``intent: coffee
brewing`` and, if requested, ``why: All for one cup.`` on a second line.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

from routedk.programs.prompting import layout
from routedk.programs.prompting.item_intents import (
    ITEM_INTENT_CHARACTERS,
    ITEM_INTENT_WORDS,
    NO_INTENT,
    clean_intent,
)
from routedk.programs.prompting.layout import PromptContext
from routedk.programs.prompting.text import RULE_WORDS, neutralise, split_reasoning
from routedk.similarity.words import WORD, may_name
from routedk.types import Bundle, Item, Session

NAMING_LAYOUT = "174a9b833c7ab42d"
"""Identifies what this layout renders; `tests/programs/prompting/test_naming.py` pins it."""
INTENT_HEAD, WHY_HEAD = "intent:", "why:"
# The heads as models that do not decode line by line write them.
_LINE = re.compile(r"\W*(intent|why)\W*:\s*(.*)", re.IGNORECASE)


@cache
def naming_instruction() -> str:
    """The instruction, as written in ``name.txt`` in this package's folder."""
    return (Path(__file__).parent / "name.txt").read_text(encoding="utf-8").strip()


def part(session: Session, bundle: Bundle) -> Session:
    """The items of a bundle as a session with the same id and this one bundle."""
    ids = bundle.items
    items = tuple(item for item in session.items if item.id in ids)
    return Session(session.id, items, (bundle,))


def is_label(intent: str) -> bool:
    """Whether an annotated intent can be learned from: "2" and a whole sentence cannot.

    Nor can one that `clean_intent` would cut, to "trench coats and a denim" for example.
    """
    whole = len(intent.split()) <= ITEM_INTENT_WORDS and len(intent) <= ITEM_INTENT_CHARACTERS
    return whole and may_name("".join(WORD.findall(intent)))


def labelled_parts(sessions: Iterable[Session]) -> list[Session]:
    """The bundles of annotated sessions whose intents can be learned from, each as a `part`."""
    return [
        part(session, bundle)
        for session in sessions
        for bundle in session.bundles or ()
        if is_label(bundle.intent)
    ]


def title_lines(items: Iterable[Item]) -> tuple[str, ...]:
    """The items' titles, one line each."""
    return tuple(neutralise(item.title) or layout.UNTITLED for item in items)


def clean_why(why: str) -> str:
    """A reason as it may appear in an answer: one short line."""
    return neutralise(why, RULE_WORDS)


def render_name(intent: str, why: str = "") -> str:
    """The answer that states an intent and, if known, why."""
    lines = [f"{INTENT_HEAD} {clean_intent(intent)}"]
    if reason := clean_why(why):
        lines.append(f"{WHY_HEAD} {reason}")
    return "\n".join(lines)


def read_name(raw: str) -> tuple[str, str]:
    """The intent and the reason in an answer; each is empty if it is not stated.

    Without the heads, the first line is the intent and the second one the reason.

    Raises:
        AnswerError: It ends inside its reasoning.
    """
    found: dict[str, str] = {}
    for line in filter(None, map(str.strip, split_reasoning(raw)[1].splitlines())):
        headed = _LINE.fullmatch(line)
        name = headed[1].lower() if headed else "why" if "intent" in found else "intent"
        found.setdefault(name, headed[2] if headed else line)
    intent, why = (found.get(name, "").strip("\"'`*_ ") for name in ("intent", "why"))
    named = clean_intent(intent)
    return "" if named == NO_INTENT else named, clean_why(why)


def naming_fields(
    session: Session, context: PromptContext
) -> tuple[layout.Fields, list[layout.Fields]]:
    """The inputs of `NameBundle` for one `part`, and the labelled bundles shown as demos."""
    demos = []
    for neighbour in context.neighbours:
        (bundle,) = neighbour.session.bundles or ()
        named = {"intent": clean_intent(bundle.intent), "why": clean_why(bundle.why)}
        demos.append({"rules": "", "titles": _titles(neighbour.session), **named})
    return {"rules": layout.render_rules(context.rules), "titles": _titles(session)}, demos


def _titles(session: Session) -> str:
    return "\n".join(title_lines(session.items))


def naming_messages(
    instructions: str, demos: Sequence[Mapping[str, str]], fields: Mapping[str, str]
) -> list[layout.Message]:
    """The messages of one request: the system's, two for each demo, and the user's.

    Args:
        instructions: The beginning of the system message; rules follow.
        demos: With ``titles``, ``intent`` and ``why``.
        fields: As `naming_fields` makes them.
    """
    shown = [
        {"session": demo["titles"], "bundles": render_name(demo["intent"], demo.get("why") or "")}
        for demo in demos
    ]
    asked = {"rules": fields.get("rules") or "", "session": fields["titles"]}
    return layout.chat_messages(instructions, shown, asked)


def build_naming_prompt(session: Session, context: PromptContext) -> layout.Prompt:
    """Build the prompt that asks a student for the intent of one `part`."""
    fields, demos = naming_fields(session, context)
    messages = naming_messages(naming_instruction(), demos, fields)
    return layout.Prompt(tuple(messages), title_lines(session.items))
