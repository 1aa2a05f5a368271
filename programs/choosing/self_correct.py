"""Self-correction around any generator: its bundles are corrected by their inferred intents."""

from typing import Any

import dspy

from routedk.programs.aicl.lessons import Turn
from routedk.programs.aicl.self_correction import Dialogue, SelfCorrection
from routedk.programs.checks import check_generator, no_lm
from routedk.programs.prompting.answers import ParsedAnswer
from routedk.programs.prompting.layout import render_answer
from routedk.programs.session_program import SessionProgram
from routedk.programs.usage import Usage, metered
from routedk.types import Session


class SelfCorrect(SessionProgram):
    """Has a generator bundle a session, and the language model correct these bundles.

    The language model is asked for the intent of each bundle and for the bundles again, these
    intents in view, as `SelfCorrection` does; where the generator's answer could not be read it
    is asked for bundles first. No gold is seen. It is the generator's own, where all its predictors
    have the same, else DSPy's, and corrects without the generator's demos and knowledge; bundles
    of item intents are made of equal ones.

    The prediction has ``bundles``, ``first`` (the generator's prediction), ``dropped`` (what went
    wrong on the way), ``none``, ``error`` and ``calls``, ``input_tokens``, ``output_tokens``.

    Args:
        generator: A ``dspy.Module`` that takes ``session=`` and answers with ``bundles``.
        corrections: Times that bundles are stated again, at least 0.

    Raises:
        SettingError: A value is not allowed; when called: no LM is configured.

    Source: the two tasks that correct each other in AICL, arXiv 2312.16262.
    """

    def __init__(self, generator: Any, *, corrections: int = 1) -> None:
        """Predictors: the generator's, ``talk.generate`` and ``talk.intent``."""
        super().__init__()
        check_generator(generator)
        self.generator = generator
        self.talk = SelfCorrection(corrections)

    def _answer(self, session: Session) -> dspy.Prediction:
        lm = self._corrector()
        unset = any(predictor.lm is None for predictor in _predictors(self.talk))
        if lm is None and unset and self.talk.corrections:
            raise no_lm()
        with metered() as first:
            answer = self.generator(session=session)
        dialogue = Dialogue(session=session)
        if answer.get("error") is None:
            bundles = tuple(answer.bundles)
            dialogue.read = ParsedAnswer(bundles=bundles, none=not bundles)
            dialogue.turns.append(Turn(question="", answer=render_answer(session, bundles)))
        with metered() as second, dspy.context(lm=lm):
            notes = self.talk(dialogue=dialogue).notes
        spent = _stated(answer, first.usage) + second.usage
        read = dialogue.read
        return dspy.Prediction(
            bundles=list(dialogue.bundles),
            first=answer,
            dropped=(*(read.dropped if read else ()), *notes),
            none=read is not None and not read.bundles,
            error=None if read else dialogue.error,
            calls=spent.calls,
            input_tokens=spent.input_tokens,
            output_tokens=spent.output_tokens,
        )

    def _corrector(self) -> Any:
        """What corrects, unless ``talk`` was set to another: the generator's own, else DSPy's."""
        first, *others = [predictor.lm for predictor in _predictors(self.generator)] or [None]
        shared = all(other is first for other in others)
        return first if first is not None and shared else dspy.settings.lm


def _predictors(program: Any) -> list[Any]:
    """All predictors of a program, those of compiled parts, which DSPy leaves out, too."""
    return [predictor for _, predictor in program.named_sub_modules(dspy.Predict)]


def _stated(answer: Any, counted: Usage) -> Usage:
    """What an answer cost: as it says itself, since it may have asked on other threads."""
    if answer.get("calls") is None:
        return counted
    return Usage(
        calls=answer.calls, input_tokens=answer.input_tokens, output_tokens=answer.output_tokens
    )
