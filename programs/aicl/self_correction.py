"""Self-correction: bundles and intents, two tasks that correct each other without any gold."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from routedk.errors import AnswerError
from routedk.programs.aicl import prompts
from routedk.programs.aicl.lessons import Turn
from routedk.programs.prompting import layout
from routedk.programs.prompting.answers import ParsedAnswer, read_answer
from routedk.programs.prompting.bundle_adapter import BundleLayout
from routedk.programs.prompting.plain_text import PlainText
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.programs.prompting.text import INTENT_WORDS, neutralise
from routedk.types import Bundle, Session

INTENT_TOKENS = 32
_MOST_INTENTS = 8
_AROUND_INTENT = " -*•\"'`.,;"

Demo = dict[str, str]


@dataclass(kw_only=True)
class Dialogue:
    """What was said about one session, as it goes on; for one thread.

    Args:
        session: What it is about; its gold is not looked at.
        rules: Block of rules in the system message; empty for none.
        demos: Turns about other sessions, before the first question.
        intent_demos: Bundles of other sessions with their inferred intents.
        turns: What was asked and could be read.
        read: The last answer that could be read; None before one.
        raw: That answer as written; before one, the last answer of any kind.
        error: Why the last answer could not be read; None where it could.
        intents: Intents inferred so far, by item set.
    """

    session: Session
    rules: str = ""
    demos: Sequence[Demo] = ()
    intent_demos: Sequence[Demo] = ()
    turns: list[Turn] = field(default_factory=list)
    read: ParsedAnswer | None = None
    raw: str = ""
    error: str | None = None
    intents: dict[frozenset[str], str] = field(default_factory=dict)

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """The last bundles read; one stated without an intent has the inferred one, if any."""
        stated = self.read.bundles if self.read else ()
        return tuple(
            bundle if bundle.intent else replace(bundle, intent=self.intents.get(bundle.items, ""))
            for bundle in stated
        )

    @property
    def item_sets(self) -> frozenset[frozenset[str]]:
        """The last bundles read, as item sets."""
        return frozenset(bundle.items for bundle in self.bundles)


class SelfCorrection(dspy.Module):  # type: ignore[misc]
    """Takes a `Dialogue`, has its session bundled, and has the bundles corrected.

    The LM states bundles, infers the intent of each, and states the bundles again with these
    intents in view. Where the first answer could not be read it is asked again instead. A
    correction that cannot be read, or changes no bundle, is the last.

    Args:
        corrections: Times that bundles are stated again, at least 0.

    Raises:
        SettingError: The number is negative.
    """

    def __init__(self, corrections: int = 1) -> None:
        """Two predictors: ``generate`` and ``intent``."""
        super().__init__()
        self.corrections = corrections
        self.generate = dspy.Predict(GenerateBundles)
        self.intent = dspy.Predict(prompts.InferIntent)
        self._layout = BundleLayout()

    def forward(self, dialogue: Dialogue) -> dspy.Prediction:
        """Bundle the session of a dialogue, which is gone on with.

        Args:
            dialogue: Perhaps with a first answer, its turn included; else it is asked for.

        Returns:
            ``notes``: what went wrong on the way, one description each.
        """
        notes: tuple[str, ...] = ()
        if dialogue.read is None:
            self.ask(dialogue)
        for _ in range(self.corrections):
            if dialogue.read is None:
                self.ask(dialogue, prompts.UNREADABLE)
                continue
            before = dialogue.item_sets
            if not before:
                break
            self._infer_intents(dialogue)
            if not self.ask(dialogue, self._by_intents(dialogue)):
                notes = (f"a correction that could not be read: {dialogue.error}",)
                break
            if dialogue.item_sets == before:
                break
        return dspy.Prediction(notes=notes)

    def ask(self, dialogue: Dialogue, question: str = "") -> bool:
        """Ask for the bundles.

        Args:
            dialogue: It has the answer afterwards, where it could be read.
            question: What stands above the items.

        Returns:
            Whether the answer could be read.
        """
        demos = [*self.generate.demos, *dialogue.demos, *as_demos(dialogue.session, dialogue.turns)]
        read = None
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
        except AdapterParseError as error:
            raw, dialogue.error = error.lm_response, "the answer is empty"
        except ContextWindowExceededError as error:
            raw, dialogue.error = "", str(error)
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
            text = ask_text(
                self.intent,
                INTENT_TOKENS,
                items=prompts.titles(dialogue.session, bundle),
                demos=[*self.intent.demos, *dialogue.intent_demos],
            )
            # What follows the first line explains it.
            line = next(iter(text.strip().splitlines()), "")
            if intent := neutralise(line.strip(_AROUND_INTENT), INTENT_WORDS):
                dialogue.intents[bundle.items] = intent

    def _by_intents(self, dialogue: Dialogue) -> str:
        bundles = [
            replace(bundle, intent=dialogue.intents.get(bundle.items, bundle.intent))
            for bundle in dialogue.bundles
        ]
        return prompts.by_intents(dialogue.session, bundles)


def as_demos(session: Session, turns: Sequence[Turn]) -> list[Demo]:
    """Turns about one session, to be rendered by the layout in front of a question."""
    return [layout.demo_fields(session, turn.answer, similar=turn.question) for turn in turns]


def ask_text(predictor: Any, max_tokens: int, **inputs: Any) -> str:
    """One free text of a predictor with one output; empty where the LM writes nothing.

    So it is, too, where the prompt is too long for the LM.

    Args:
        predictor: A ``dspy.Predict``.
        max_tokens: Most new tokens.
        **inputs: What it is called with.
    """
    try:
        with dspy.context(adapter=PlainText()):
            answer = predictor(**inputs, config={"max_tokens": max_tokens})
    except (AdapterParseError, ContextWindowExceededError):
        return ""
    (name,) = predictor.signature.output_fields
    return str(answer[name])
