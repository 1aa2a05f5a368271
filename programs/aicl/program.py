"""AICL: a session's bundles by what the language model learned on its nearest neighbours."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from routedk.errors import AnswerError, SettingError
from routedk.programs.aicl import prompts
from routedk.programs.aicl.dialogue import Dialogue, as_demos
from routedk.programs.aicl.lessons import Lesson, LessonBook, Turn
from routedk.programs.generator import prediction_of, unanswered
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting import layout
from routedk.programs.prompting.answers import ParsedAnswer, read_answer
from routedk.programs.prompting.bundle_adapter import BundleLayout
from routedk.programs.prompting.plain_text import PlainText
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.prompting.text import INTENT_WORDS, neutralise
from routedk.programs.teachers.feedback import render_feedback, session_verdicts
from routedk.programs.teachers.rule_distiller import read_rules
from routedk.types import Session

INTENT_TOKENS = 32
CAUSES_TOKENS, RULES_TOKENS = 96, 96
_MOST_INTENTS = 8
_MOST_RULES = 3
_AROUND_INTENT = " -*•\"'`.,;"


class AICL(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Takes a `Session`, gives bundles, after a dialogue about its nearest training sessions.

    On each neighbour the LM states bundles, infers the intent of each, and states the bundles
    again, given the intents (self-correction: no gold is seen). Then its bundles are compared
    with the neighbour's gold (`routedk.eval.mistakes`) and it is told, bundle by bundle, in item
    numbers; it states the causes of its mistakes, the bundles again, and rules. The session
    itself is answered with these dialogues as demonstrations and the rules in view: bundles,
    their intents, and bundles again.

    A neighbour's dialogue is kept for other sessions; another LM, temperature or instruction makes
    its own. The prediction has the fields of `BundleGenerator`'s. An answer that cannot be read is
    data: of a neighbour the feedback says so; a correction that cannot be read corrects nothing
    (``dropped`` reports it); where no answer could be read there are no bundles, and ``error``
    says why. A failing LM raises.

    Args:
        sessions: Training sessions with gold, ids distinct.
        k: Number of neighbours, at least 1; the nearest is shown last.
        retriever: How neighbours are found, as in `CompiledKnowledge`.
        self_corrections: Times that bundles are stated again by their intents, at least 0; fewer
            where they do not change.
        use_rules: Rules are asked for and shown.

    Raises:
        SettingError: A value is not allowed, or a session has no gold.

    Source: AICL, arXiv 2312.16262: retrieval, the two tasks that correct each other, feedback by
    kinds of mistakes, rules, guided inference. *Assumptions*, ours: the wording; one question for
    the intent of each bundle; causes, asked for before the bundles are adjusted; one round of
    feedback, none where nothing is wrong; rules in the system message; a dialogue whose adjusted
    answer cannot be read is not shown. A public copy of the authors' code also has raters compare
    inferred intents with gold ones, and does not correct the session's own bundles: the first is
    left out, so that gold intents are never seen, the second is ``self_corrections``.
    """

    def __init__(
        self,
        sessions: Sequence[Session],
        k: int = 1,
        retriever: str = "tfidf",
        self_corrections: int = 1,
        use_rules: bool = True,
    ) -> None:
        """Predictors: ``generate``, ``intent``, ``causes`` and ``rules``."""
        super().__init__()
        if k < 1:
            raise SettingError(f"k={k}: AICL needs at least 1 neighbour")
        if self_corrections < 0:
            raise SettingError(f"self_corrections={self_corrections}: it must be at least 0")
        self.knowledge = CompiledKnowledge(k=k, sessions=tuple(sessions), retriever=retriever)
        self.self_corrections = self_corrections
        self.use_rules = use_rules
        self.generate = dspy.Predict(GenerateBundles)
        self.intent = dspy.Predict(prompts.InferIntent)
        self.causes = dspy.Predict(prompts.FindCauses)
        self.rules = dspy.Predict(prompts.FindRules)
        self.lessons = LessonBook()
        self._layout = BundleLayout()

    def forward(self, session: Session) -> dspy.Prediction:
        """Generate the bundles of one session.

        Args:
            session: The session; its gold bundles are not looked at.
        """
        neighbours = [one.session for one in self.knowledge.context(session).neighbours]
        lessons = [self._lesson(neighbour) for neighbour in neighbours]
        rules = dict.fromkeys(rule for lesson in lessons for rule in lesson.rules)
        intents = [pair for lesson in lessons for pair in lesson.intents]
        dialogue = Dialogue(
            session=session,
            rules=layout.render_rules(tuple(rules)),
            demos=[
                demo
                for neighbour, lesson in zip(neighbours, lessons, strict=True)
                for demo in as_demos(neighbour, lesson.turns)
            ],
            intent_demos=[{"items": items, "intent": intent} for items, intent in intents],
        )
        notes = self._bundle(dialogue)
        if dialogue.read is None:
            return prediction_of(ParsedAnswer(), dialogue.raw, dialogue.error)
        dropped = (*dialogue.read.dropped, *notes)
        read = replace(dialogue.read, bundles=dialogue.bundles, dropped=dropped)
        return prediction_of(read, dialogue.raw, None)

    async def aforward(self, session: Session) -> dspy.Prediction:
        """As `forward`, on a thread of its own."""
        return await asyncio.to_thread(self.forward, session)

    def save(self, path: str | Path) -> None:
        """Write the program and its lessons as one JSON file, see `routedk.programs.aicl.file`."""
        from routedk.programs.aicl.file import save_aicl

        save_aicl(self, path)

    def load(self, path: str | Path) -> None:
        """Become the program of a file, without an LM; see `load_aicl`.

        Raises:
            ArtifactError: The file is missing, damaged, or of another kind or version.
        """
        from routedk.programs.aicl.file import load_aicl

        self.__dict__.update(load_aicl(path).__dict__)

    def saved_predictors(self) -> dict[str, Any]:
        """The predictors by their names in files, which are older than the attributes."""
        return {
            "talk.generate": self.generate,
            "talk.intent": self.intent,
            "causes": self.causes,
            "rules": self.rules,
        }

    def _lesson(self, neighbour: Session) -> Lesson:
        voice = self._voice()
        return self.lessons.lesson(voice, neighbour.id, lambda: self._learn(neighbour, voice))

    def _voice(self) -> str:
        """Whose lessons these are: it changes with the LM, and with instructions and demos."""
        parts: list[object] = [layout.layout_hash(), self.self_corrections, self.use_rules]
        for name, predictor in self.saved_predictors().items():
            lm = predictor.lm or dspy.settings.lm
            temperature = getattr(lm, "kwargs", {}).get("temperature")
            demos = [sorted(demo.items()) for demo in predictor.demos]
            instructions = predictor.signature.instructions
            parts.append((name, getattr(lm, "model", ""), temperature, instructions, demos))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _learn(self, neighbour: Session, voice: str) -> Lesson:
        """The dialogue about one training session, and what it taught."""
        dialogue = Dialogue(session=neighbour)
        self._bundle(dialogue)
        read, bundles = dialogue.read, dialogue.bundles
        verdicts = session_verdicts(neighbour, bundles, read.lone if read else ())
        wrong = read is None or len(verdicts) != len(set(neighbour.gold))
        wrong = wrong or any(verdict.kind != "correct" for verdict in verdicts)
        feedback = render_feedback(neighbour, verdicts)
        shown = {
            "session": layout.render_items(neighbour),
            "answer": layout.render_answer(neighbour, bundles) if read else "",
            "feedback": feedback if read else f"{prompts.UNREADABLE}\n{feedback}",
        }
        causes, adjusted = "", True
        if wrong:
            stated = _text(self.causes, CAUSES_TOKENS, **shown)
            causes = neutralise(stated, prompts.CAUSES_WORDS)
            adjusted = self._ask(dialogue, prompts.by_feedback(shown["feedback"], causes))
        rules = _text(self.rules, RULES_TOKENS, **shown, causes=causes) if self.use_rules else ""
        # Without the adjusted bundles a dialogue would demonstrate its mistakes.
        last = dialogue.bundles if adjusted else ()
        return Lesson(
            voice=voice,
            session_id=neighbour.id,
            turns=tuple(dialogue.turns) if adjusted else (),
            intents=tuple((prompts.titles(neighbour, b), b.intent) for b in last if b.intent),
            rules=tuple(read_rules(rules)[:_MOST_RULES]),
        )

    def _bundle(self, dialogue: Dialogue) -> tuple[str, ...]:
        """State bundles, infer the intent of each, and state them again by their intents.

        A first answer that could not be read is asked for again instead. A correction that cannot
        be read, or changes no bundle, is the last.

        Returns:
            What went wrong on the way.
        """
        self._ask(dialogue)
        for _ in range(self.self_corrections):
            if dialogue.read is None:
                self._ask(dialogue, prompts.UNREADABLE)
                continue
            before = dialogue.item_sets
            if not before:
                break
            self._infer_intents(dialogue)
            if not self._ask(dialogue, prompts.by_intents(dialogue)):
                return (f"a correction that could not be read: {dialogue.error}",)
            if dialogue.item_sets == before:
                break
        return ()

    def _ask(self, dialogue: Dialogue, question: str = "") -> bool:
        """Ask for the bundles, the question above the items; whether the answer could be read."""
        demos = [*self.generate.demos, *dialogue.demos, *as_demos(dialogue.session, dialogue.turns)]
        read, raw = None, ""
        try:
            with dspy.context(adapter=self._layout):
                answer = self.generate(
                    patterns="",
                    rules=dialogue.rules,
                    similar=question,
                    session=layout.render_items(dialogue.session),
                    demos=demos,
                )
            raw = answer.bundles
            read = read_answer(raw, dialogue.session)
        except (AdapterParseError, ContextWindowExceededError) as error:
            raw, dialogue.error = unanswered(error)
        except AnswerError as error:
            dialogue.error = str(error)
        if read is None:
            if dialogue.read is None:
                dialogue.raw = raw
            return False
        dialogue.read, dialogue.raw, dialogue.error = read, raw, None
        stated = layout.render_answer(dialogue.session, read.bundles)
        dialogue.turns.append(Turn(question=question, answer=stated))
        return True

    def _infer_intents(self, dialogue: Dialogue) -> None:
        """Ask for the intent of each bundle, of the first few where there are many."""
        for bundle in dialogue.bundles[:_MOST_INTENTS]:
            text = _text(
                self.intent,
                INTENT_TOKENS,
                items=prompts.titles(dialogue.session, bundle),
                demos=[*self.intent.demos, *dialogue.intent_demos],
            )
            # What follows the first line explains it.
            line = next(iter(text.strip().splitlines()), "")
            if intent := neutralise(line.strip(_AROUND_INTENT), INTENT_WORDS):
                dialogue.intents[bundle.items] = intent


def _text(predictor: Any, max_tokens: int, **inputs: Any) -> str:
    """One free text; empty where the LM writes nothing, or the prompt is too long for it."""
    try:
        with dspy.context(adapter=PlainText()):
            answer = predictor(**inputs, config={"max_tokens": max_tokens})
    except (AdapterParseError, ContextWindowExceededError):
        return ""
    (name,) = predictor.signature.output_fields
    return str(answer[name])
