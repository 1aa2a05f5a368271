"""What the weights are taught: gold, and the program's own answers that the metric accepts.

| lesson | prompt                                      | answer                     | teaches      |
|--------|---------------------------------------------|----------------------------|--------------|
| gold   | what the expert's role shows, see           | the session's thought and  | every expert |
|        | `routedk.adapters.training.examples`        | gold bundles               |              |
| trace  | the compiled program's own, as it is        | its answer, or a teacher's | base         |
| trace  | what the expert's role shows, where gold is | the same                   | the others   |
|        | not taught                                  |                            |              |

All prompts have the program's instruction and are rendered by its layout; its demos stand in its
own prompts only, and no prompt shows the gold of its own session. Lessons come in the order of
session ids, whatever the order of the training set: the same set teaches the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from routedk.adapters.training.examples import ROLES, AnswerForm
from routedk.errors import AnswerError
from routedk.optimizers.finetune.rows import Lesson
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.answers import read_answer
from routedk.programs.prompting.layout import THOUGHT_PREFIX, Message, render_answer
from routedk.types import KnowledgeBase, Session

Metric = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """An answer that the metric accepts.

    Args:
        session: What was asked.
        answer: As it is to be learnt.
    """

    session: Session
    answer: str


def accepted_answers(
    program: Any,
    examples: Sequence[Any],
    metric: Metric,
    threshold: float,
    *,
    num_threads: int,
) -> list[Accepted]:
    """Answer examples and keep the answers that score high enough.

    Args:
        program: A `BundleGenerator`, or any program from ``session=`` to such predictions.
        examples: With ``session``.
        metric: Of an example and a prediction: a number, higher is better.
        threshold: The lowest score that is accepted.
        num_threads: Calls under way at once.

    Raises:
        Exception: What the language model or the metric raises.
    """
    answers = generate_all(program, [e.session for e in examples], num_threads=num_threads)
    return [
        Accepted(example.session, _as_learnt(answer, example.session))
        for example, answer in zip(examples, answers, strict=True)
        if answer.error is None and float(metric(example, answer)) >= threshold
    ]


def _as_learnt(answer: Any, session: Session) -> str:
    """The answer as written where that says what was scored, else the bundles that were."""
    raw = answer.get("raw", "")
    try:
        said = {bundle.items for bundle in read_answer(raw, session).bundles}
    except AnswerError:
        said = None
    if said == {bundle.items for bundle in answer.bundles}:
        return str(raw)
    return render_answer(session, answer.bundles)


def trace_lessons(
    program: BundleGenerator, accepted: Sequence[Accepted], expert: str
) -> list[Lesson]:
    """Accepted answers under the program's own prompts."""
    return [_lesson(program.messages(one.session), one.answer, expert) for one in accepted]


def role_lessons(
    program: BundleGenerator,
    taught: Sequence[Accepted],
    knowledge: CompiledKnowledge,
    experts: Sequence[str],
    form: AnswerForm,
) -> list[Lesson]:
    """Answers under the prompts of experts' roles, in the order of the experts.

    Args:
        program: Gives the instruction; its knowledge and demos are not shown.
        taught: Answers, gold or accepted.
        knowledge: All there is; each expert sees its part.
        experts: Whom to teach, all among ``ROLES``.
        form: What they learn to write.
    """
    lessons = []
    for expert in experts:
        shown = program.deepcopy()
        shown.generate.demos = []
        shown.knowledge = ROLES[form][expert].sees(knowledge)
        lessons += [_lesson(shown.messages(one.session), one.answer, expert) for one in taught]
    return lessons


def gold_answers(sessions: Sequence[Session], thoughts: dict[str, str]) -> list[Accepted]:
    """The gold of sessions that have bundles, after the session's thought where it has one."""
    return [
        Accepted(session, gold_answer(session, thoughts.get(session.id, "")))
        for session in sessions
        if session.bundles
    ]


def gold_answer(session: Session, thought: str) -> str:
    """A session's thought and gold bundles."""
    # Unlike a shown thought a learnt one is whole, however long.
    bundles = render_answer(session, session.bundles or ())
    whole = "; ".join(thought.split("\n"))
    return f"{THOUGHT_PREFIX} {whole}\n{bundles}" if thought else bundles


def shown_knowledge(knowledge: KnowledgeBase, sessions: Sequence[Session]) -> CompiledKnowledge:
    """All rules, training sessions with gold and their thoughts, for the experts' prompts."""
    gold = tuple(session for session in sessions if session.bundles)
    known = {session.id for session in gold}
    return CompiledKnowledge(
        rules=tuple(rule.text for rule in knowledge.rules),
        sessions=gold,
        thoughts={t.session_id: t.text for t in knowledge.thoughts if t.session_id in known},
    )


def _lesson(prompt: Sequence[Message], answer: str, expert: str) -> Lesson:
    return {"messages": [*prompt, {"role": "assistant", "content": answer}], "expert": expert}
