"""AICL: a session's bundles from what the language model learned on its nearest neighbours."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import dspy
from dspy.utils.exceptions import ContextWindowExceededError

from routedk.errors import AnswerError, SettingError
from routedk.programs.aicl.dialogue import Dialogue, Lesson, Lessons
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.lm_identity import lm_identity
from routedk.programs.predictions import ask_bundles
from routedk.programs.prompting import layout
from routedk.programs.prompting.plain_text import ask
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.prompting.text import INTENT_WORDS, neutralise
from routedk.programs.teachers.feedback import render_feedback, session_verdicts
from routedk.programs.teachers.rule_distiller import read_rules
from routedk.types import Bundle, Session

UNREADABLE = "Your answer could not be read as bundles."
_BY_INTENTS = "Your bundles and their intents:\n{answer}\nGiven the intents, adjust the bundles."
_BY_FEEDBACK = "Feedback on your bundles:\n{feedback}\n{causes}Adjust the bundles by the feedback."


class InferIntent(dspy.Signature):  # type: ignore[misc]
    """Say in 3 to 5 words what the shopper wants these items for."""

    items: str = dspy.InputField(desc="Items")
    intent: str = dspy.OutputField(desc="Intent in 3 to 5 words")


class FindCauses(dspy.Signature):  # type: ignore[misc]
    """You grouped a shopper's items into bundles and got feedback. Say in one short sentence what
    caused your mistakes."""

    session: str = dspy.InputField(desc="Items")
    answer: str = dspy.InputField(desc="Your bundles")
    feedback: str = dspy.InputField(desc="Feedback")
    causes: str = dspy.OutputField(desc="Cause of the mistakes")


class FindRules(dspy.Signature):  # type: ignore[misc]
    """You grouped a shopper's items into bundles and got feedback. Say what it teaches about
    bundles of other sessions. A rule is one short sentence about kinds of items, without item
    numbers."""

    session: str = dspy.InputField(desc="Items")
    answer: str = dspy.InputField(desc="Your bundles")
    feedback: str = dspy.InputField(desc="Feedback")
    causes: str = dspy.InputField(desc="Cause of the mistakes")
    rules: str = dspy.OutputField(desc="At most three rules, one a line")


def by_intents(dialogue: Dialogue) -> str:
    """Asks for the bundles again, showing the ones so far and their inferred intents."""
    bundles = [
        replace(bundle, intent=dialogue.intents.get(bundle.items, bundle.intent))
        for bundle in dialogue.bundles
    ]
    return _BY_INTENTS.format(answer=layout.render_answer(dialogue.session, bundles))


def by_feedback(feedback: str, causes: str) -> str:
    """Asks for the bundles again, showing feedback and the causes of mistakes."""
    return _BY_FEEDBACK.format(feedback=feedback, causes=f"Cause: {causes}\n" if causes else "")


def titles(session: Session, bundle: Bundle) -> str:
    """The items of one bundle, as `InferIntent` shows them."""
    shown = [neutralise(session.item(name).title) or layout.UNTITLED for name in bundle.item_ids]
    return "\n".join(f"- {title}" for title in shown)


_CAUSES_WORDS = 48
_MOST_INTENTS = 8
_MOST_RULES = 3
_AROUND_INTENT = " -*•\"'`.,;"


class AICL(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Generates the bundles of a `Session` after a dialogue about its nearest training sessions.

    For each neighbour the LM states bundles, infers the intent of each, and states the bundles
    again, given the intents (self-correction: no gold is seen). Then its bundles are compared
    with the neighbour's gold (`routedk.eval.mistakes`), and it gets feedback on each bundle, in
    item numbers; it states the causes of its mistakes, the bundles again, and rules. The session
    itself is answered with these dialogues as demos and the rules shown: bundles, their intents,
    and bundles again.

    A neighbour's dialogue is kept in memory for other sessions; another LM or temperature, or a
    copy of the program, makes its own. The prediction has the same fields as `BundleGenerator`'s.
    An answer that cannot be read is data: for a neighbour the feedback says so; a correction that
    cannot be read corrects nothing (``dropped`` reports it); if no answer could be read, there
    are no bundles, and ``error`` says why. A failing LM raises.

    Args:
        sessions: Training sessions with gold and distinct ids.
        k: Number of neighbours, at least 1; the nearest is shown last.
        retriever: How neighbours are found, as in `CompiledKnowledge`.

    Raises:
        SettingError: A value is not allowed, or a session has no gold.

    Source: AICL, arXiv 2312.16262: retrieval, the two tasks that correct each other, feedback by
    kinds of mistakes, rules, guided inference. *Our assumptions*: the wording; one question for
    the intent of each bundle; asking for causes before the bundles are adjusted; one round of
    feedback, none if nothing is wrong; rules in the system message; a dialogue whose adjusted
    answer cannot be read is not shown; bundles are corrected by their intents once, including the
    session's own. A public copy of the authors' code also has raters compare inferred intents with
    gold ones: that is left out, so that gold intents are never seen.
    """

    def __init__(self, sessions: Sequence[Session], k: int = 1, retriever: str = "tfidf") -> None:
        """Predictors: ``generate``, ``intent``, ``causes`` and ``rules``."""
        super().__init__()
        if k < 1:
            raise SettingError(f"k={k}: AICL needs at least 1 neighbour")
        self.knowledge = CompiledKnowledge(k=k, sessions=tuple(sessions), retriever=retriever)
        self.generate = dspy.Predict(GenerateBundles)
        self.intent = dspy.Predict(InferIntent)
        self.causes = dspy.Predict(FindCauses)
        self.rules = dspy.Predict(FindRules)
        self.lessons = Lessons()

    def forward(self, session: Session) -> dspy.Prediction:
        """Generate the bundles of one session.

        Args:
            session: The session; its gold bundles are ignored.
        """
        neighbours = [one.session for one in self.knowledge.context(session).neighbours]
        lessons = [self._lesson(neighbour) for neighbour in neighbours]
        rules = dict.fromkeys(rule for lesson in lessons for rule in lesson.rules)
        dialogue = Dialogue(
            session=session,
            rules=layout.render_rules(tuple(rules)),
            turns=[turn for lesson in lessons for turn in lesson.turns],
            intent_demos=[pair for lesson in lessons for pair in lesson.intents],
        )
        problem = self._bundle(dialogue)
        prediction = dialogue.answer
        prediction.bundles = list(dialogue.bundles)
        if problem:
            note = f"a correction that could not be read: {problem}"
            prediction.dropped = (*prediction.dropped, note)
        return prediction

    async def aforward(self, session: Session) -> dspy.Prediction:
        """As `forward`, in a separate thread."""
        return await asyncio.to_thread(self.forward, session)

    def _lesson(self, neighbour: Session) -> Lesson:
        lm = self.generate.lm or dspy.settings.lm
        key = neighbour.id, repr(lm and lm_identity(lm))
        return self.lessons.obtain(key, lambda: self._learn(neighbour))

    def _learn(self, neighbour: Session) -> Lesson:
        """Hold the dialogue about one training session."""
        dialogue = Dialogue(session=neighbour)
        self._bundle(dialogue)
        bundles = dialogue.bundles
        verdicts = session_verdicts(neighbour, bundles, dialogue.answer.lone)
        feedback = render_feedback(neighbour, verdicts)
        shown = {
            "session": layout.render_items(neighbour),
            "answer": layout.render_answer(neighbour, bundles) if dialogue.readable else "",
            "feedback": feedback if dialogue.readable else f"{UNREADABLE}\n{feedback}",
        }
        right = [verdict.kind for verdict in verdicts] == ["correct"] * len(set(neighbour.gold))
        causes, problem = "", None
        if not right or not dialogue.readable:
            causes = neutralise(_text(self.causes, 96, **shown), _CAUSES_WORDS)
            problem = self._ask(dialogue, by_feedback(shown["feedback"], causes))
        rules = _text(self.rules, 96, **shown, causes=causes)
        # Without the adjusted bundles, a dialogue would demonstrate its mistakes.
        last = () if problem else dialogue.bundles
        return Lesson(
            turns=() if problem else dialogue.turns,
            intents=[
                {"items": titles(neighbour, bundle), "intent": bundle.intent}
                for bundle in last
                if bundle.intent
            ],
            rules=read_rules(rules)[:_MOST_RULES],
        )

    def _bundle(self, dialogue: Dialogue) -> str | None:
        """State bundles, infer the intent of each, and state them again by their intents.

        If the first answer could not be read, it is asked for once more instead.

        Returns:
            Why a correction could not be read; None otherwise.
        """
        self._ask(dialogue)
        if not dialogue.readable:
            self._ask(dialogue, UNREADABLE)
        elif dialogue.bundles:
            self._infer_intents(dialogue)
            return self._ask(dialogue, by_intents(dialogue))
        return None

    def _ask(self, dialogue: Dialogue, question: str = "") -> str | None:
        """Ask for the bundles, the question above the items; return why it could not be read."""
        session = dialogue.session
        request = {
            "patterns": "",
            "rules": dialogue.rules,
            "similar": question,
            "session": layout.render_items(session),
            "demos": [*self.generate.demos, *dialogue.turns],
        }
        answer = ask_bundles(self.generate, session, request)
        if answer.error is None or not dialogue.readable:
            dialogue.answer = answer
        if answer.error is None:
            stated = layout.render_answer(session, answer.bundles)
            dialogue.turns.append(layout.demo_fields(session, stated, similar=question))
        error: str | None = answer.error
        return error

    def _infer_intents(self, dialogue: Dialogue) -> None:
        """Ask for the intent of each bundle, or of the first few if there are many."""
        demos = [*self.intent.demos, *dialogue.intent_demos]
        for bundle in dialogue.bundles[:_MOST_INTENTS]:
            shown = titles(dialogue.session, bundle)
            text = _text(self.intent, 32, items=shown, demos=demos)
            # What follows the first line explains it.
            line = text.strip().partition("\n")[0]
            if intent := neutralise(line.strip(_AROUND_INTENT), INTENT_WORDS):
                dialogue.intents[bundle.items] = intent


def _text(predictor: Any, limit: int, **inputs: Any) -> str:
    """One free text; empty if the LM does not end its reasoning or the prompt is too long."""
    # A reasoning model thinks within its limit, which DSPy keeps under another name.
    thinks = "max_completion_tokens" in (predictor.lm or dspy.settings.lm).kwargs
    try:
        return ask(predictor, **inputs, config={} if thinks else {"max_tokens": limit})
    except (AnswerError, ContextWindowExceededError):
        return ""
