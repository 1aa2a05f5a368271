"""What each expert sees and learns to write.

| expert  | in its prompt beside the session | `item-intents` | `bundles`       | `verification` |
|---------|----------------------------------|----------------|-----------------|----------------|
| base    | nothing                          | item intents   | bundles         | verdicts       |
| rule    | the rules nearest to the session | item intents   | bundles         | verdicts       |
| thought | the nearest training session     | item intents   | thought, then   | verdicts       |
|         | with its thought                 |                | bundles         |                |

*Item intents* are the lines of the item thought. Such a line is the item's line of the prompt
again, then its intent: ``3 Gooseneck Kettle 1L | coffee brewing``. Each line is a completion of
its own, blind to the other lines: seen, their intents would be copied instead of the item being
read. All experts write the same form, since fused experts that disagree on form would spoil each
other's answers.

*Bundles* are the lines of the gold answer, ``1 3 4 | coffee brewing``, as one completion; the
thought expert writes the session's thought on a line before them.

*Verdicts* are lines ``1 Gooseneck Kettle 1L + 3 Coffee Grinder | yes``, one per candidate bundle,
each blind to the others: of the candidate's item lines of the prompt, which are given, and whether
it is a gold bundle. Such experts judge bundles and write none, see
`routedk.adapters.training.verdicts`.

That in the default form the knowledge stands in the context and not in the target is one reading
of RouteDK (arXiv 2508.17250), whose text could not be had, and that the thought expert writes the
thought itself is another: both are assumptions.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from routedk.adapters.prompts import Tokenizer, encode_prompt, end_of_turn
from routedk.adapters.training.verdicts import (
    Proposals,
    encode_verdicts,
    title_nodes,
    training_candidates,
)
from routedk.errors import SettingError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.item_intents import read_item_intents, render_intents
from routedk.programs.prompting.layout import (
    assistant_content,
    build_messages,
    render_answer,
    render_items,
)
from routedk.types import Session

AnswerForm = Literal["item-intents", "bundles", "verification"]
Writes = Literal["item-intents", "bundles", "thought, then bundles", "verification"]
DEFAULT_FORM: AnswerForm = "item-intents"
THOUGHT_FIRST: Writes = "thought, then bundles"

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class ExpertRole:
    """What one expert is for.

    Args:
        sees: Which part of the knowledge its prompts show.
        writes: What it learns to write.
    """

    sees: Callable[[CompiledKnowledge], CompiledKnowledge]
    writes: Writes


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """One prompt with its completions, for one expert.

    Args:
        prompt: Token ids of the prompt.
        lines: Token ids of each completion, the end of turn included, and how many of them at
            its beginning (the item, where there is one per item) are given.
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


ROLES: Mapping[AnswerForm, Mapping[str, ExpertRole]] = MappingProxyType(
    {
        "item-intents": {
            "base": ExpertRole(_nothing, "item-intents"),
            "rule": ExpertRole(_rules, "item-intents"),
            "thought": ExpertRole(_thoughts, "item-intents"),
        },
        "bundles": {
            "base": ExpertRole(_nothing, "bundles"),
            "rule": ExpertRole(_rules, "bundles"),
            "thought": ExpertRole(_thoughts, THOUGHT_FIRST),
        },
        "verification": {
            "base": ExpertRole(_nothing, "verification"),
            "rule": ExpertRole(_rules, "verification"),
            "thought": ExpertRole(_thoughts, "verification"),
        },
    }
)


def check_form(name: str) -> AnswerForm:
    """The answer form of this name.

    Raises:
        SettingError: There is none.
    """
    for form in ROLES:
        if form == name:
            return form
    raise SettingError(f"answer form {name!r}: allowed are {', '.join(ROLES)}")


def written_by(experts: Sequence[str], form: AnswerForm) -> Writes:
    """What fused experts may write: a thought first where one of them learns to."""
    roles = [ROLES[form][name].writes for name in experts if name in ROLES[form]]
    return THOUGHT_FIRST if THOUGHT_FIRST in roles else form


def training_rows(
    tokenizer: Tokenizer,
    sessions: Sequence[Session],
    knowledge: CompiledKnowledge,
    experts: Sequence[str],
    form: AnswerForm = DEFAULT_FORM,
    proposals: Proposals | None = None,
) -> list[TrainingRow]:
    """One row per session and expert; left out where it has nothing to learn.

    That is a session without a thought where one is to be written, or without a second item where
    bundles are to be judged.

    Args:
        tokenizer: The student's.
        sessions: Training sessions.
        knowledge: All rules, training sessions and thoughts; each expert sees its part.
        experts: Names of experts, in gate order, all among ``ROLES``.
        form: What they learn to write.
        proposals: Candidate bundles of a session, for `verification`; by default the nodes of the
            dendrogram of its titles.

    Raises:
        SettingError: An expert or the form is unknown, or no session has a thought.
    """
    check_form(form)
    roles = ROLES[form]
    unknown = [name for name in experts if name not in roles]
    if unknown:
        raise SettingError(f"experts {unknown}: allowed are {', '.join(roles)}")
    rows = []
    for place, name in enumerate(experts):
        role = roles[name]
        seen = role.sees(knowledge)
        for session in sessions:
            thought = knowledge.thoughts.get(session.id, "")
            if role.writes == "verification":
                candidates = training_candidates(session, (proposals or title_nodes)(session))
                lines = encode_verdicts(tokenizer, session, candidates)
            else:
                lines = encode_target(tokenizer, session, thought, role.writes)
            if lines:
                messages = build_messages(session, seen.context(session))
                items = render_items(session).split("\n")
                prompt = encode_prompt(tokenizer, messages, items)
                rows.append(TrainingRow(prompt.ids, lines, prompt.span, place))
    if not rows and form == "verification":
        raise SettingError("no training session has two items: there is no bundle to judge")
    if not rows:
        raise SettingError("no training session has a thought: distil thoughts from them first")
    return rows


def encode_target(
    tokenizer: Tokenizer, session: Session, thought: str, writes: Writes
) -> tuple[tuple[tuple[int, ...], int], ...]:
    """The completions that one session is a lesson in, as in `TrainingRow`.

    Args:
        tokenizer: The student's.
        session: With gold.
        thought: Its thought; empty where there is none, which is no lesson in writing one.
        writes: What is learnt, not `verification`.
    """
    if writes == "item-intents":
        return encode_lines(tokenizer, session, thought)
    if writes == THOUGHT_FIRST and not thought:
        return ()
    answer = render_answer(session, session.bundles or ())
    first = thought if writes == THOUGHT_FIRST else ""
    text = assistant_content(answer, first, both=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return (((*ids, end_of_turn(tokenizer)), 0),)


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
            label = tokenizer(f" {render_intents(mine)}", add_special_tokens=False)["input_ids"]
            lines.append(((*given, *label, end), len(given)))
    return tuple(lines)


def encode_head(tokenizer: Tokenizer, line: str) -> tuple[int, ...]:
    """What a line of the item thought begins with: the item's line of the prompt and a bar."""
    return tuple(tokenizer(f"{line} |", add_special_tokens=False)["input_ids"])
