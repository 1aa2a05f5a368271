"""What each expert sees and learns to write.

| expert  | in its prompt beside the session              | writes                           |
|---------|-----------------------------------------------|----------------------------------|
| base    | nothing                                       | the lines of the item thought    |
| rule    | the rules nearest to the session              | the same                         |
| thought | the nearest training session with its thought | the same                         |

A line of the item thought is the item's line of the prompt again, then its intent:
``3 Gooseneck Kettle 1L | coffee brewing``. Each line is a completion of its own, blind to the
other lines: seen, their intents would be copied instead of the item being read.

All experts write the same form, since fused experts that disagree on form would spoil each
other's answers. That the knowledge stands in the context and not in the target is one reading of
RouteDK (arXiv 2508.17250), whose text could not be had: an assumption.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from routedk.adapters.prompts import Tokenizer, encode_prompt, end_of_turn
from routedk.errors import SettingError
from routedk.programs.item_intents import read_item_intents, render_labels
from routedk.programs.knowledge import CompiledKnowledge
from routedk.programs.layout import build_messages, render_items
from routedk.types import Session

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One prompt with its completions, for one expert.

    Args:
        prompt: Token ids of the prompt.
        lines: Token ids of each completion, the end of turn included, and how many of them at
            its beginning (the item) are given.
        span: Where the session's own tokens are in the prompt.
        expert: Place of the expert among the gates.
    """

    prompt: tuple[int, ...]
    lines: tuple[tuple[tuple[int, ...], int], ...]
    span: tuple[int, int]
    expert: int


def _nothing(knowledge: CompiledKnowledge) -> CompiledKnowledge:
    return CompiledKnowledge()


def _rules(knowledge: CompiledKnowledge) -> CompiledKnowledge:
    return replace(knowledge, k=0, sessions=(), rules_shown=_SHOWN)


def _thoughts(knowledge: CompiledKnowledge) -> CompiledKnowledge:
    return replace(knowledge, rules=(), k=1, show_thoughts=True, style="demos")


CONTEXTS: Mapping[str, Callable[[CompiledKnowledge], CompiledKnowledge]] = MappingProxyType(
    {"base": _nothing, "rule": _rules, "thought": _thoughts}
)


def training_rows(
    tokenizer: Tokenizer,
    sessions: Sequence[Session],
    knowledge: CompiledKnowledge,
    experts: Sequence[str],
) -> list[TrainingRow]:
    """One row per session and expert; sessions without a thought are left out.

    Args:
        tokenizer: The student's.
        sessions: Training sessions.
        knowledge: All rules, training sessions and thoughts; each expert sees its part.
        experts: Names of experts, in gate order, all among ``CONTEXTS``.

    Raises:
        SettingError: An expert is unknown, or no session has a thought.
    """
    unknown = [name for name in experts if name not in CONTEXTS]
    if unknown:
        raise SettingError(f"experts {unknown}: allowed are {', '.join(CONTEXTS)}")
    rows = []
    for place, name in enumerate(experts):
        seen = CONTEXTS[name](knowledge)
        for session in sessions:
            thought = knowledge.thoughts.get(session.id)
            if thought is None:
                continue
            prompt = encode_prompt(tokenizer, build_messages(session, seen.context(session)))
            lines = encode_lines(tokenizer, session, thought)
            if lines:
                rows.append(TrainingRow(prompt.ids, lines, prompt.span, place))
    if not rows:
        raise SettingError("no training session has a thought: distil thoughts from them first")
    return rows


def encode_lines(
    tokenizer: Tokenizer, session: Session, thought: str
) -> tuple[tuple[tuple[int, ...], int], ...]:
    """The lines of a session's item thought as token ids; items without an intent have none."""
    end = end_of_turn(tokenizer)
    lines = []
    shown = render_items(session).split("\n")
    for line, mine in zip(shown, read_item_intents(thought, len(shown)), strict=True):
        if mine:
            given = encode_head(tokenizer, line)
            label = tokenizer(f" {render_labels(mine)}", add_special_tokens=False)["input_ids"]
            lines.append(((*given, *label, end), len(given)))
    return tuple(lines)


def encode_head(tokenizer: Tokenizer, line: str) -> tuple[int, ...]:
    """What a line of the item thought begins with: the item's line of the prompt and a bar."""
    return tuple(tokenizer(f"{line} |", add_special_tokens=False)["input_ids"])
