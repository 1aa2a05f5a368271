"""A teacher's own bundles for a session, stated without gold: the labels of `TeacherAnswer`."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import dspy

from routedk.errors import AnswerError
from routedk.parsing import check_value
from routedk.programs.prompting.answers import MAX_CHARACTERS
from routedk.programs.prompting.item_intents import split_intents
from routedk.programs.prompting.layout import Message, render_items
from routedk.programs.prompting.plain_text import PlainText, ask
from routedk.programs.prompting.text import (
    INTENT_WORDS,
    RULE_WORDS,
    neutralise,
    split_reasoning,
)
from routedk.types import Bundle, Kind, Session

_NUMBER = re.compile(r"[1-9][0-9]{0,5}")


class StateBundles(dspy.Signature):  # type: ignore[misc]  # noqa: D101
    __doc__ = Path(__file__).with_name("state_bundles.txt").read_text(encoding="utf-8").strip()

    session: str = dspy.InputField(desc="Items")
    answer: str = dspy.OutputField(desc="JSON")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a teacher states about a session.

    Args:
        bundles: Distinct bundles of its items; empty for "nothing belongs together".
        item_intents: Item id to the intent that it serves; items may be missing.
        dropped: The parts of the answer that were not used, one description each, neutralized.
    """

    bundles: tuple[Bundle, ...]
    item_intents: Mapping[str, str]
    dropped: tuple[str, ...]


def state_bundles(session: Session) -> Statement:
    """Ask the LM of the surrounding ``dspy.context`` for a session's bundles; it sees no gold.

    Raises:
        AnswerError: As for `read_statement`.
    """
    return read_statement(ask(dspy.Predict(StateBundles), session=render_items(session)), session)


def statement_messages(session: Session) -> list[Message]:
    """The messages that `state_bundles` sends."""
    messages: list[Message] = PlainText().format(
        StateBundles, [], {"session": render_items(session)}
    )
    return messages


def read_statement(text: str, session: Session) -> Statement:
    """Read a teacher's answer: strict about item numbers, tolerant about everything else.

    The object may be in a code fence or in prose. A number that is not an item of the session is
    left out of its bundle; a bundle left with fewer than two items, or a duplicate, is dropped.

    Args:
        text: The answer; after any reasoning, only the first 20,000 characters are read.
        session: The session that was asked about.

    Raises:
        AnswerError: It has no JSON object with a list of bundles, none of the bundles is valid, or
            it ends inside its reasoning.
    """
    _, text = split_reasoning(text)
    answer = next(_objects(text[:MAX_CHARACTERS]), None)
    if answer is None:
        raise AnswerError(f"no JSON object with a list of bundles in: {neutralise(text) or '-'}")
    dropped: list[str] = []
    bundles: dict[frozenset[str], Bundle] = {}
    for stated in answer["bundles"]:
        bundle = _bundle(stated, session, dropped)
        if bundle is None:
            dropped.append(_note("not two items of the session", stated))
        elif bundles.setdefault(bundle.items, bundle) is not bundle:
            dropped.append(_note("stated before", stated))
    if answer["bundles"] and not bundles:
        raise AnswerError(f"no bundle of the answer is one: {'; '.join(dropped)}")
    intents = _item_intents(answer.get("item_intents"), session, dropped)
    return Statement(bundles=tuple(bundles.values()), item_intents=intents, dropped=tuple(dropped))


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text that hold a list of bundles."""
    decoder = json.JSONDecoder()
    for found in re.finditer(r"\{", text):
        try:
            value, _ = decoder.raw_decode(text, found.start())
            check_value(value)
        except (ValueError, RecursionError):
            continue
        if isinstance(value.get("bundles"), list):
            yield value


def _bundle(stated: Any, session: Session, dropped: list[str]) -> Bundle | None:
    said = stated if isinstance(stated, dict) else {}
    numbers = said.get("items")
    found = [_item_id(n, session, dropped) for n in numbers] if isinstance(numbers, list) else []
    items = tuple(dict.fromkeys(filter(None, found)))
    if len(items) < 2:
        return None
    kind = str(said.get("kind") or "").strip().lower()
    if kind and kind not in get_args(Kind):
        dropped.append(_note("not a kind", kind))
    known = next((name for name in get_args(Kind) if name == kind), None)
    intent, why = _text(said.get("intent"), INTENT_WORDS), _text(said.get("why"), RULE_WORDS)
    return Bundle(items, intent, kind=known, why=why)


def _item_intents(stated: Any, session: Session, dropped: list[str]) -> dict[str, str]:
    if isinstance(stated, list):
        stated = dict(enumerate(stated, start=1))
    if not isinstance(stated, dict):
        return {}
    found: dict[str, str] = {}
    for number, intent in stated.items():
        item_id = _item_id(number, session, dropped)
        text = _text(intent, INTENT_WORDS)
        if item_id and split_intents(text):
            found.setdefault(item_id, text)
    return found


def _item_id(number: Any, session: Session, dropped: list[str]) -> str:
    """The id of the item with this number; empty, with a note, if there is none."""
    text = str(number).strip()
    if not _NUMBER.fullmatch(text) or int(text) > len(session.items):
        dropped.append(_note("no such item", number))
        return ""
    return session.items[int(text) - 1].id


def _text(value: Any, words: int) -> str:
    return neutralise(value, words) if isinstance(value, str) else ""


def _note(problem: str, found: Any) -> str:
    return f"{problem}: {neutralise(str(found))}"
