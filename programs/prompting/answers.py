"""Read a student's answer: strict about item numbers, tolerant about everything else.

The grammar that students are trained on is in ``routedk.programs.prompting.layout``. Beyond it, the
parser accepts bullets, ``Bundle 1:``, brackets, commas, ``and``, text without ``|`` and several
bracketed groups on a line. An answer may also be just a thought that names each item's intent,
see ``routedk.programs.prompting.item_intents``. Whatever is not used is reported.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from routedk.errors import AnswerError
from routedk.programs.prompting.item_intents import (
    ItemIntents,
    compose_bundles,
    read_entries,
)
from routedk.programs.prompting.text import (
    INTENT_WORDS,
    THOUGHT_WORDS,
    neutralise,
    split_reasoning,
)
from routedk.types import Bundle, Session

MAX_CHARACTERS = 20_000

_THOUGHT = re.compile(r"\W*(?:thoughts?|reasoning)\s*:(.*)", re.IGNORECASE)
_HEADING = re.compile(
    r"\A[^\w\[({]*(?:(?:bundle|group|set|answer)s?\b\s*(?:#?\d{1,3}\s*[:=.)\-])?\s*[:=]?\s*)?"
    r"(?:items?\b\s*:?\s*)?",
    re.IGNORECASE,
)
_ENUMERATOR = re.compile(r"\A\d{1,3}\s*[.):]\s+(?=[\[({#]*\d)")
_GROUP = re.compile(r"[\[({]([^\[\](){}]*)[\])}]")
# Separators, then a word; the word is empty at the end of the text or before a colon.
_WORD = re.compile(r"(?:[\s,;&+#|]|\band\b|\bitems?\b)*([^\s,;&+#|:]*)", re.IGNORECASE)
_NUMBER = re.compile(r"[1-9][0-9]{0,5}")
_NONE = re.compile(
    r"\W*(?:bundles?\s*:\s*)?(?:none|nothing|n/a|no\s+bundles?(?:\s+found)?)\W*", re.IGNORECASE
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedAnswer:
    """The bundles, thought and item intents read from an answer.

    Args:
        bundles: Bundles of the session, in the answer's order, no item set twice.
        thought: The thought before the answer, neutralized; empty if there is none.
        item_intents: The intents of each item, in item order, if the answer is a thought that
            names them and nothing else; otherwise empty.
        dropped: What was not used, one description each, neutralized.
        lone: Ids of items that were stated as a bundle of one, which is not a bundle.
        none: Whether the answer states that there is no bundle.
    """

    bundles: tuple[Bundle, ...] = ()
    thought: str = ""
    item_intents: ItemIntents = ()
    dropped: tuple[str, ...] = ()
    lone: tuple[str, ...] = ()
    none: bool = False


def _note(problem: str, text: str) -> str:
    return f"{problem}: {neutralise(text)}"


def _split_thought(text: str) -> tuple[str, list[str]]:
    """Split an answer without reasoning into its thought and its other lines, both unchecked."""
    thoughts, lines = [], []
    for line in map(str.strip, text.splitlines()):
        if thought := _THOUGHT.fullmatch(line):
            thoughts.append(thought[1])
        elif not _HEADING.fullmatch(line):
            lines.append(line)
    return "\n".join(thoughts), lines


def _read_numbers(text: str, limit: int, dropped: list[str]) -> tuple[list[int], str]:
    """Distinct item numbers at the start of the text, and what follows them."""
    numbers: list[int] = []
    for found in _WORD.finditer(text):
        word = found[1].strip("[](){}.\"'*`_")
        digits = any(c.isdigit() for c in word)
        if not digits or (numbers and any(c.isalpha() for c in word)):
            return numbers, text[found.start(1) :]
        if not _NUMBER.fullmatch(word):
            dropped.append(_note("not an item number", word))
        elif int(word) > limit:
            dropped.append(_note("no such item", word))
        elif int(word) not in numbers:
            numbers.append(int(word))
    return numbers, ""


def _read_line(line: str, limit: int, dropped: list[str]) -> list[tuple[list[int], str]]:
    """Number lists of one line, each with its intent."""
    body = _ENUMERATOR.sub("", _HEADING.sub("", line))
    head, bar, tail = body.partition("|")
    groups = [group for group in _GROUP.finditer(head) if any(c.isdigit() for c in group[1])]
    if groups and not head[: groups[0].start()].strip("[({ \t,"):
        after = tail if bar else head[groups[-1].end() :]
        return [(_read_numbers(group[1], limit, dropped)[0], after) for group in groups]
    numbers, rest = _read_numbers(head, limit, dropped)
    if bar and rest.strip("[](){}.:\"'*`_- "):
        dropped.append(_note("text before the bar", rest))
    return [(numbers, tail if bar else rest)]


def _intent(text: str) -> str:
    return neutralise(neutralise(text, INTENT_WORDS).strip("|/:=-–—()\"'`*_ ,;"), INTENT_WORDS)


def read_answer(raw: str, session: Session) -> ParsedAnswer:
    """Read the bundles of one session from a language model's answer.

    A number that is not an item of the session is left out of its bundle; a bundle left with fewer
    than two items, a duplicate bundle and a line without item numbers are dropped. A thought that
    names the intents of items (``Thought: 1 tea; 2 tea``), with no line after it, states the
    bundles of items with an intent in common. The reasoning of a reasoning model is read as a
    thought. Everything dropped is reported.

    Args:
        raw: The answer as written; after the reasoning, only the first 20,000 characters are
            read.
        session: The session that was asked about.

    Returns:
        The bundles, or ``none=True`` if the answer states that there are none.

    Raises:
        AnswerError: The answer has neither a valid bundle nor a statement that there is none, or
            ends inside its reasoning.
    """
    reasoning, answer = split_reasoning(raw)
    stated, lines = _split_thought(answer[:MAX_CHARACTERS])
    thought = "\n".join(filter(None, (reasoning[:MAX_CHARACTERS], stated)))
    left = len(answer) - MAX_CHARACTERS
    dropped = [f"{left} characters at the end"] if left > 0 else []
    if lines:
        read = _read_lines(lines, session, dropped)
    else:
        read = _read_thought(thought, session, dropped)
    if not read.bundles and not read.none:
        raise AnswerError(f"no bundle in the answer {neutralise(raw)!r}; dropped: {dropped}")
    return replace(read, thought=neutralise(thought, THOUGHT_WORDS), dropped=tuple(dropped))


def _read_lines(lines: Sequence[str], session: Session, dropped: list[str]) -> ParsedAnswer:
    """The bundles that the lines state, one or more per line."""
    bundles: dict[frozenset[str], Bundle] = {}
    lone: list[str] = []
    none = False
    for line in lines:
        if _NONE.fullmatch(line):
            none = True
            continue
        for numbers, intent in _read_line(line, len(session.items), dropped):
            ids = tuple(session.items[number - 1].id for number in numbers)
            if len(ids) < 2:
                dropped.append(_note("fewer than two items", line))
                lone += ids
            elif frozenset(ids) in bundles:
                dropped.append(_note("stated before", line))
            else:
                bundles[frozenset(ids)] = Bundle(ids, _intent(intent))
    if none and bundles:
        dropped.append("none, although bundles are stated")
    return ParsedAnswer(
        bundles=tuple(bundles.values()),
        lone=tuple(dict.fromkeys(lone)),
        none=none and not bundles,
    )


def _read_thought(thought: str, session: Session, dropped: list[str]) -> ParsedAnswer:
    """The bundles that item intents imply.

    Prose with a number in it does not state that there are none: that takes entries only.
    """
    named: dict[int, Sequence[str]] = {}
    prose = False
    for entry in read_entries(thought):
        if isinstance(entry, str):
            prose = True
            dropped.append(_note("not an item's intent", entry))
        elif entry[0] > len(session.items):
            dropped.append(_note("no such item", str(entry[0])))
        elif entry[0] in named:
            dropped.append(_note("named before", str(entry[0])))
        else:
            named[entry[0]] = entry[1]
    intents = [named.get(number, ()) for number in range(1, len(session.items) + 1)]
    bundles = compose_bundles(intents, session)
    return ParsedAnswer(
        bundles=bundles,
        item_intents=intents if named else (),
        none=bool(named) and not prose and not bundles,
    )
