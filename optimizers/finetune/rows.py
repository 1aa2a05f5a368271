"""Chat messages that end in an answer, as rows that experts are trained on.

An answer is read and written again in the form that the experts learn, whatever form it came in:

| learnt form    | is made of                                                              |
|----------------|-------------------------------------------------------------------------|
| `item-intents` | the thought where it names the items' intents; else each item gets the  |
|                | intents of its bundles                                                  |
| `bundles`      | the bundles stated, or those that the thought implies; the thought      |
|                | expert writes the thought before them                                   |

What a form cannot say is no lesson in it: bundles without intents, or overlapping ones of one
intent, as item intents; or no thought where one is to be written. A prompt without a session is a
lesson in writing the answer as it stands.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from routedk.adapters.prompts import Tokenizer, encode_prompt, end_of_turn
from routedk.adapters.training.examples import (
    ROLES,
    AnswerForm,
    TrainingRow,
    Writes,
    encode_target,
)
from routedk.errors import AnswerError, SettingError
from routedk.programs.prompting.answers import read_answer, split_thought
from routedk.programs.prompting.item_intents import (
    read_item_intents,
    render_item_intents,
    shared_intents,
)
from routedk.programs.prompting.layout import NO_BUNDLE, Message
from routedk.programs.prompting.reading import session_lines
from routedk.types import Bundle, Item, Session

# {"messages": [...]} as DSPy hands out fine-tuning data, and which "expert" it is for.
Lesson: TypeAlias = Mapping[str, Any]

_BUNDLE = re.compile(r"([1-9][0-9]{0,5}(?: [1-9][0-9]{0,5})+)(?: \| (.+))?")


def lesson_rows(
    tokenizer: Tokenizer, lessons: Sequence[Lesson], experts: Sequence[str], form: AnswerForm
) -> dict[str, list[TrainingRow]]:
    """One row per lesson, by expert; left out where the form cannot say its answer.

    Args:
        tokenizer: The student's.
        lessons: Each with ``messages``, the last one the assistant's, and perhaps ``expert``,
            whom it teaches; by default the first one.
        experts: Names of experts, in gate order.
        form: What they learn to write.

    Raises:
        SettingError: A lesson is of another shape or for another expert, the form cannot be
            learnt so, or an expert has no lesson.
    """
    unknown = [name for name in experts if name not in ROLES[form]]
    if unknown:
        raise SettingError(f"experts {unknown}: allowed are {', '.join(ROLES[form])}")
    rows: dict[str, list[TrainingRow]] = {name: [] for name in experts}
    for number, lesson in enumerate(lessons):
        prompt, answer = _checked(lesson, number)
        expert = lesson.get("expert", experts[0])
        if expert not in experts:
            raise SettingError(f"lesson {number} is for the expert {expert!r}: there are {experts}")
        lines = _target(tokenizer, prompt, answer, ROLES[form][expert].writes)
        if lines:
            items = (session_lines(prompt[-1]["content"]) or "").split("\n")
            encoded = encode_prompt(tokenizer, prompt, items)
            rows[expert].append(TrainingRow(encoded.ids, lines, encoded.span))
    idle = [name for name in experts if not rows[name]]
    if idle:
        raise SettingError(
            f"experts {idle} have nothing to learn: none of {len(lessons)} lessons is for them in "
            f"the form {form!r}; "
            + ("leave them out of the settings, or " if any(rows.values()) else "")
            + "give knowledge that has the training sessions' thoughts, and teach gold: "
            "RoutedFinetune(sources=('gold', 'traces'))"
        )
    return rows


def _checked(lesson: Lesson, number: int) -> tuple[list[Message], str]:
    messages = lesson.get("messages") if isinstance(lesson, Mapping) else None
    roles = [message.get("role") for message in messages or ()]
    if not messages or len(roles) < 2 or roles[-1] != "assistant":
        raise SettingError(
            f"lesson {number} is not of the form {{'messages': [..., {{'role': 'assistant', "
            "'content': ...}]}: give data as dspy.Adapter.format_finetune_data makes it"
        )
    return messages[:-1], str(messages[-1]["content"])


def _target(
    tokenizer: Tokenizer, prompt: Sequence[Message], answer: str, writes: Writes
) -> tuple[tuple[tuple[int, ...], int], ...]:
    """The completions that an answer is a lesson in, as in `TrainingRow`."""
    lines = session_lines(prompt[-1]["content"])
    if lines is None:
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        return (((*ids, end_of_turn(tokenizer)), 0),)
    session = answered_session(lines, answer)
    if session is None:
        return ()
    thought, _ = split_thought(answer)
    if writes == "item-intents":
        thought = _item_thought(session, thought)
    return encode_target(tokenizer, session, thought, writes)


def answered_session(lines: str, answer: str) -> Session | None:
    """The session that these item lines show, with the bundles that the answer states.

    Args:
        lines: As `routedk.programs.prompting.layout.render_items` makes them.
        answer: As a student wrote it.

    Returns:
        None where the answer states nothing.
    """
    titles = [line.partition(" ")[2] for line in lines.split("\n")]
    items = tuple(Item(str(number), title) for number, title in enumerate(titles, start=1))
    session = Session("asked", items)
    bundles = _stated(split_thought(answer)[1], len(items))
    if bundles is None:
        try:
            bundles = read_answer(answer, session).bundles
        except AnswerError:
            return None
    return Session("asked", items, bundles)


def _stated(text: str, count: int) -> tuple[Bundle, ...] | None:
    """The bundles of an answer in the layout's own form, intents as they are; None of another."""
    if text == NO_BUNDLE:
        return ()
    bundles = []
    for line in text.split("\n"):
        match = _BUNDLE.fullmatch(line)
        numbers = match[1].split() if match else []
        if match is None or len(set(numbers)) != len(numbers) or max(map(int, numbers)) > count:
            return None
        bundles.append(Bundle(tuple(numbers), match[2] or ""))
    return tuple(bundles)


def _item_thought(session: Session, thought: str) -> str:
    """The thought that names the items' intents; empty where nothing of that form says it."""
    count = len(session.items)
    if any(read_item_intents(thought, count)):
        return thought
    bundles = session.bundles or ()
    mine = [[b.intent for b in bundles if item.id in b.items] for item in session.items]
    derived = render_item_intents(mine)
    said = set(shared_intents(read_item_intents(derived, count)))
    meant = {tuple(sorted(map(int, bundle.item_ids))) for bundle in bundles}
    return derived if said == meant else ""
