"""Training rows: the prompt that each expert sees and the answer that it learns to write.

In the default form, `bundle-intent`, there is a row for each labelled bundle: its titles are the
prompt, and its intent and, if known, the reason why it is a bundle are two completions that do not
see each other. The rule expert's prompts have the rules nearest to the bundle, the thought expert's
the nearest bundle of another training session with its intent and reason. In the other forms there
is a row for each session:

| expert  | in its prompt with the session   | `item-intents` | `bundles`             |
|---------|----------------------------------|----------------|-----------------------|
| base    | nothing                          | item intents   | bundles               |
| rule    | the rules nearest to the session | item intents   | bundles               |
| thought | the nearest training session     | item intents   | thought, then bundles |
|         | with its thought                 |                |                       |

*Item intents* are the lines of the item thought. Such a line repeats the item's line of the prompt
and adds its intent: ``3 Gooseneck Kettle 1L | coffee brewing``. Each line is a separate completion
that does not see the other lines: otherwise the student would copy their intents instead of reading
the item. All experts write the same form, since fused experts that disagree on form would spoil
each other's answers.

*Bundles* are the lines of the gold answer, ``1 3 4 | coffee brewing``, as one completion; the
thought expert writes the session's thought on a line before them.

Two points are assumptions, since the text of RouteDK (arXiv 2508.17250) was not available: in all
forms but `bundles`, the knowledge is in the context and not in the target; in `bundles`, the
thought expert writes the thought itself.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from routedk.adapters.prompts import (
    EncodedPrompt,
    Tokenizer,
    encode_after,
    encode_prompt,
    end_of_turn,
)
from routedk.errors import SettingError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.item_intents import (
    clean_intent,
    read_item_intents,
    render_intents,
)
from routedk.programs.prompting.layout import (
    Prompt,
    assistant_content,
    build_prompt,
    item_lines,
    render_answer,
)
from routedk.programs.prompting.naming import (
    INTENT_HEAD,
    WHY_HEAD,
    build_naming_prompt,
    clean_why,
    labelled_parts,
)
from routedk.types import Session

logger = logging.getLogger(__name__)

AnswerForm = Literal["bundle-intent", "item-intents", "bundles"]
Writes = Literal["bundle-intent", "item-intents", "bundles", "thought, then bundles"]
# For experts whose folder does not say.
FORMER_FORM: AnswerForm = "item-intents"
THOUGHT_FIRST: Writes = "thought, then bundles"

# A session with the bundles to learn, and the thought to learn; empty if there is none.
Lesson = tuple[Session, str]
# Token ids of a completion, the end of turn included, and how many at its beginning are given.
Line = tuple[tuple[int, ...], int]

_RULES_SHOWN = 3
_MIXED = ("rule", "thought")


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One prompt with its completions, for one expert.

    Args:
        session_id: The session it was made from.
        prompt: The prompt as tokens.
        lines: The completions; the beginning of each (the item, if there is one per item) is
            given.
    """

    session_id: str
    prompt: EncodedPrompt
    lines: tuple[Line, ...]

    @property
    def tokens(self) -> int:
        """Number of tokens in the prompt with its longest completion."""
        return len(self.prompt.ids) + max((len(ids) for ids, _ in self.lines), default=0)


def seen_by(expert: str, knowledge: CompiledKnowledge) -> CompiledKnowledge:
    """The part of the knowledge that an expert's prompts show."""
    if expert == "rule":
        return replace(knowledge, k=0, sessions=(), rules_shown=_RULES_SHOWN)
    if expert == "thought":
        return replace(knowledge, rules=(), k=1, show_thoughts=True)
    return CompiledKnowledge()


def written_by(experts: Sequence[str], form: AnswerForm) -> Writes:
    """The form that an expert, or fused ones, may write; with a thought if one learns that."""
    return THOUGHT_FIRST if form == "bundles" and "thought" in experts else form


def training_rows(
    tokenizer: Tokenizer,
    lessons: Sequence[Lesson],
    knowledge: CompiledKnowledge,
    expert: str,
    form: AnswerForm,
) -> list[TrainingRow]:
    """One row per session, or per bundle, unless there is nothing to learn from it.

    Args:
        tokenizer: The student's.
        lessons: Training sessions with the bundles to learn.
        knowledge: The knowledge, of which the expert sees its part.
        expert: Its name: base, rule, thought, or mixed, which has the rows of rule and thought.
        form: What it learns to write.
    """
    if expert == "mixed":
        both = (training_rows(tokenizer, lessons, knowledge, one, form) for one in _MIXED)
        return [row for rows in both for row in rows]
    seen = seen_by(expert, knowledge)
    if form == "bundle-intent":
        known = seen.of_bundles
        sessions = [session for session, _ in lessons]
        return naming_rows(
            tokenizer, sessions, lambda one: build_naming_prompt(one, known.context(one))
        )
    return encode_rows(
        tokenizer,
        lessons,
        written_by([expert], form),
        lambda session: build_prompt(session, seen.context(session)),
    )


def within_window(
    rows: Mapping[str, Sequence[TrainingRow]], window: int
) -> tuple[dict[str, list[TrainingRow]], list[str]]:
    """The rows that fit a student's context window, and the ids of the sessions of the others.

    Args:
        rows: The rows of each expert.
        window: Maximum tokens of a prompt with its answer.

    Raises:
        SettingError: None of an expert's rows fits.
    """
    fitting = {name: [row for row in mine if row.tokens <= window] for name, mine in rows.items()}
    if any(mine and not fitting[name] for name, mine in rows.items()):
        raise SettingError(f"no training session fits the student's window of {window} tokens")
    every = (row for mine in rows.values() for row in mine)
    long = sorted({row.session_id for row in every if row.tokens > window})
    if long:
        first = ", ".join(long[:5]) + (", ..." if long[5:] else "")
        logger.warning(
            f"left out, longer than the student's window of {window} tokens: {len(long)} sessions "
            f"({first})"
        )
    return fitting, long


def encode_rows(
    tokenizer: Tokenizer,
    lessons: Iterable[Lesson],
    writes: Writes,
    prompt: Callable[[Session], Prompt],
) -> list[TrainingRow]:
    """One row per lesson, unless it has nothing to say in the form that is learned.

    Args:
        tokenizer: The student's.
        lessons: Sessions with the bundles to learn.
        writes: What is learned.
        prompt: Builds the prompt of a session.
    """
    rows = []
    for session, thought in lessons:
        lines = encode_target(tokenizer, session, thought, writes)
        if lines:
            asked = prompt(session)
            encoded = encode_prompt(tokenizer, asked.messages, asked.items)
            rows.append(TrainingRow(session.id, encoded, lines))
    return rows


def naming_rows(
    tokenizer: Tokenizer, sessions: Iterable[Session], prompt: Callable[[Session], Prompt]
) -> list[TrainingRow]:
    """One row per labelled bundle, unless its intent is junk, see `is_label`.

    Args:
        tokenizer: The student's.
        sessions: Sessions with the bundles to learn.
        prompt: Builds the prompt of a `part`.
    """
    rows = []
    for one in labelled_parts(sessions):
        asked = prompt(one)
        encoded = encode_prompt(tokenizer, asked.messages, asked.items)
        (bundle,) = one.bundles or ()
        named = [(INTENT_HEAD, clean_intent(bundle.intent)), (WHY_HEAD, clean_why(bundle.why))]
        lines = [_encode_line(tokenizer, head, text) for head, text in named if text]
        rows.append(TrainingRow(one.id, encoded, tuple(lines)))
    return rows


def encode_target(
    tokenizer: Tokenizer, session: Session, thought: str, writes: Writes
) -> tuple[Line, ...]:
    """The completions to learn from one session.

    Args:
        tokenizer: The student's.
        session: With gold.
        thought: Its thought; empty if there is none.
        writes: What is learned.
    """
    if writes == "item-intents":
        return _encode_lines(tokenizer, session, thought)
    if writes == THOUGHT_FIRST and not thought:
        return ()
    answer = render_answer(session, session.bundles or ())
    first = thought if writes == THOUGHT_FIRST else ""
    text = assistant_content(answer, first, both=True)
    return (((*encode_head(tokenizer, text), end_of_turn(tokenizer)), 0),)


def _encode_lines(tokenizer: Tokenizer, session: Session, thought: str) -> tuple[Line, ...]:
    """The lines of a session's item thought; items without an intent have none."""
    shown = item_lines(session)
    named = zip(shown, read_item_intents(thought, len(shown)), strict=True)
    return tuple(
        _encode_line(tokenizer, f"{line} |", render_intents(mine)) for line, mine in named if mine
    )


def _encode_line(tokenizer: Tokenizer, head: str, text: str) -> Line:
    given = encode_head(tokenizer, head)
    learnt = encode_after(tokenizer, head, f" {text}")
    return (*given, *learnt, end_of_turn(tokenizer)), len(given)


def encode_head(tokenizer: Tokenizer, head: str) -> tuple[int, ...]:
    """The beginning of a line: the item's line of the prompt and a bar, or ``intent:``."""
    return encode_after(tokenizer, "\n", head)
