"""AICL: a session's bundles by what the language model learned on its nearest neighbours."""

import asyncio
import hashlib
from collections.abc import Sequence
from pathlib import Path

import dspy

from routedk.errors import SettingError
from routedk.programs.aicl import prompts
from routedk.programs.aicl.lessons import Lesson, LessonBook
from routedk.programs.aicl.self_correction import Dialogue, SelfCorrection, as_demos, ask_text
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting import layout
from routedk.programs.prompting.text import neutralise
from routedk.programs.teachers.feedback import render_feedback, session_verdicts
from routedk.programs.teachers.rule_distiller import read_rules
from routedk.programs.usage import metered
from routedk.types import Session

CAUSES_TOKENS, RULES_TOKENS = 96, 96
_MOST_RULES = 3


class AICL(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Takes a `Session`, gives bundles, after a dialogue about its nearest training sessions.

    On each neighbour the LM states bundles, infers the intent of each, and states the bundles
    again, given the intents (self-correction: no gold is seen). Then its bundles are compared
    with the neighbour's gold (`routedk.eval.mistakes`) and it is told, bundle by bundle, in item
    numbers; it states the causes of its mistakes, the bundles again, and rules. The session
    itself is answered with these dialogues as demonstrations and the rules in view: bundles,
    their intents, and bundles again.

    The prediction has the fields of `BundleGenerator`'s, and ``calls``, ``input_tokens`` and
    ``output_tokens`` of this call. An answer that cannot be read is data: of a neighbour the
    feedback says so; a correction that cannot be read corrects nothing (``dropped`` reports it);
    where no answer could be read there are no bundles, and ``error`` says why. A failing LM
    raises.

    Args:
        sessions: Training sessions with gold, ids distinct.
        k: Number of neighbours, at least 1; the nearest is shown last.
        retriever: How neighbours are found, as in `CompiledKnowledge`.
        self_corrections: Times that bundles are stated again by their intents, at least 0; fewer
            where they do not change.
        use_rules: Rules are asked for and shown.
        share: A neighbour's dialogue is kept for other sessions; its calls count where they were
            made. Another LM, temperature or instruction makes its own.

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
        share: bool = True,
    ) -> None:
        """Predictors: ``talk.generate``, ``talk.intent``, ``causes`` and ``rules``."""
        super().__init__()
        if k < 1:
            raise SettingError(f"k={k}: AICL needs at least 1 neighbour")
        self.knowledge = CompiledKnowledge(k=k, sessions=tuple(sessions), retriever=retriever)
        self.use_rules = use_rules
        self.share = share
        if self_corrections < 0:
            raise SettingError(f"self_corrections={self_corrections}: it must be at least 0")
        self.talk = SelfCorrection(self_corrections)
        self.causes = dspy.Predict(prompts.FindCauses)
        self.rules = dspy.Predict(prompts.FindRules)
        self.lessons = LessonBook()

    def save(self, path: str | Path) -> None:
        """Write the program and its lessons as one JSON file, see `routedk.programs.aicl.file`."""
        from routedk.programs.aicl.file import save_aicl

        save_aicl(self, path)

    def load(self, path: str | Path) -> None:
        """Take over settings, sessions, instructions, demos and lessons of a saved program.

        Raises:
            ArtifactError: The file is missing, damaged, or of another kind or version.
        """
        from routedk.programs.aicl.file import load_aicl

        loaded = load_aicl(path)
        self.knowledge, self.lessons = loaded.knowledge, loaded.lessons
        self.use_rules, self.share = loaded.use_rules, loaded.share
        self.talk.corrections = loaded.talk.corrections
        theirs = dict(loaded.named_predictors())
        for name, predictor in self.named_predictors():
            predictor.signature = theirs[name].signature
            predictor.demos = theirs[name].demos

    def forward(self, session: Session) -> dspy.Prediction:
        """Generate the bundles of one session."""
        return self._answer(session)

    async def aforward(self, session: Session) -> dspy.Prediction:
        """As `forward`, on a thread of its own."""
        return await asyncio.to_thread(self._answer, session)

    def _answer(self, session: Session) -> dspy.Prediction:
        with metered() as meter:
            found = self.knowledge.context(session).neighbours
            neighbours = [neighbour.session for neighbour in found]
            dialogue = _guided(session, neighbours, [self._lesson(n) for n in neighbours])
            notes = self.talk(dialogue=dialogue).notes
        read, spent = dialogue.read, meter.usage
        return dspy.Prediction(
            bundles=list(dialogue.bundles),
            thought=read.thought if read else "",
            dropped=(*(read.dropped if read else ()), *notes),
            lone=read.lone if read else (),
            none=read.none if read else False,
            raw=dialogue.raw,
            error=None if read else dialogue.error,
            calls=spent.calls,
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
        )

    def _lesson(self, neighbour: Session) -> Lesson:
        if not self.share:
            return self._learn(neighbour)
        return self.lessons.lesson((self._voice(), neighbour.id), lambda: self._learn(neighbour))

    def _voice(self) -> str:
        """Whose lessons these are: it changes with the LM, and with what it is told and shown."""
        parts: list[object] = [layout.layout_hash(), self.talk.corrections, self.use_rules]
        for name, predictor in self.named_predictors():
            lm = predictor.lm or dspy.settings.lm
            temperature = getattr(lm, "kwargs", {}).get("temperature")
            demos = [sorted(demo.items()) for demo in predictor.demos]
            told = predictor.signature.instructions
            parts.append((name, getattr(lm, "model", ""), temperature, told, demos))
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def _learn(self, neighbour: Session) -> Lesson:
        """The dialogue about one training session, and what it taught."""
        dialogue = Dialogue(session=neighbour)
        self.talk(dialogue=dialogue)
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
        if wrong:
            stated = ask_text(self.causes, CAUSES_TOKENS, **shown)
            shown["causes"] = neutralise(stated, prompts.CAUSES_WORDS)
            question = prompts.by_feedback(shown["feedback"], shown["causes"])
            adjusted = self.talk.ask(dialogue, question)
        else:
            shown["causes"], adjusted = "", True
        rules = ask_text(self.rules, RULES_TOKENS, **shown) if self.use_rules else ""
        # Without the adjusted bundles a dialogue would demonstrate its mistakes.
        last = dialogue.bundles if adjusted else ()
        return Lesson(
            session_id=neighbour.id,
            turns=tuple(dialogue.turns) if adjusted else (),
            intents=tuple((prompts.titles(neighbour, b), b.intent) for b in last if b.intent),
            rules=tuple(read_rules(rules)[:_MOST_RULES]),
        )


def _guided(session: Session, neighbours: Sequence[Session], lessons: Sequence[Lesson]) -> Dialogue:
    """A dialogue about a session that begins with lessons on its neighbours."""
    pairs = list(zip(neighbours, lessons, strict=True))
    rules = dict.fromkeys(rule for lesson in lessons for rule in lesson.rules)
    return Dialogue(
        session=session,
        rules=layout.render_rules(tuple(rules)),
        demos=[demo for other, lesson in pairs for demo in as_demos(other, lesson.turns)],
        intent_demos=[
            {"items": items, "intent": intent}
            for lesson in lessons
            for items, intent in lesson.intents
        ],
    )
