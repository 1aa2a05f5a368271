"""`BundleGenerator`: a DSPy program from a session to its bundles."""

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import dspy
import numpy as np
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError
from numpy.typing import NDArray

from routedk.errors import AnswerError
from routedk.programs.grouping import SimilarIntents
from routedk.programs.intent_overlap import current_scorer, intent_overlaps
from routedk.programs.knowledge.compiled import NO_KNOWLEDGE, CompiledKnowledge
from routedk.programs.prompting import layout
from routedk.programs.prompting.answers import parse_answer, split_thought
from routedk.programs.prompting.bundle_adapter import BundleLayout, completion_of
from routedk.programs.prompting.demos import layout_demo
from routedk.programs.prompting.item_intents import Readings, read_readings
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.types import Session


class BundleGenerator(dspy.Module):  # type: ignore[misc]
    """Takes a `Session`, gives bundles, with any ``dspy.LM``.

    The prediction has ``bundles`` (list of `Bundle`), ``thought``, ``dropped`` (what the parser
    did not use), ``lone`` (ids of items stated as a bundle of one), ``none`` (the student states
    that there is no bundle), ``raw`` (the answer as written) and ``error``. An unparsable answer
    is data: no bundles, and ``error`` says why. A failing LM raises.

    Args:
        knowledge: Patterns, rules and neighbours for the prompt; none by default.
        grouping: How bundles are made of an answer that only names each item's intent; by
            default items with an equal intent are a bundle.

    Attributes:
        trials: What a compilation tried, candidates with their scores; empty before one.
        utilization: The utilization that it was compiled for; None where the choice was free.
    """

    def __init__(
        self,
        knowledge: CompiledKnowledge = NO_KNOWLEDGE,
        grouping: SimilarIntents | None = None,
    ) -> None:
        """A program around one predictor, ``generate``."""
        super().__init__()
        self.knowledge = knowledge
        self.grouping = grouping
        self.generate = dspy.Predict(GenerateBundles)
        self.trials: list[dict[str, Any]] = []
        self.utilization: str | None = None
        self._layout = BundleLayout()

    def request(self, session: Session) -> dict[str, Any]:
        """What the predictor is called with for one session: its inputs and demos.

        No demo is of the very session that is asked about: its answer would stand in the prompt.
        """
        context = self.knowledge.context(session)
        own = layout.render_items(session)
        shown = filter(None, map(layout_demo, self.generate.demos))
        demos: list[Any] = [demo for demo in shown if demo["session"] != own]
        similar = ""
        if context.style == "demos":
            for neighbour in context.neighbours:
                other = neighbour.session
                answer = layout.render_answer(other, other.bundles or ())
                items = layout.render_items(other)
                fields = {"patterns": "", "rules": "", "similar": "", "session": items}
                demos.append({**fields, "thought": neighbour.thought, "bundles": answer})
        else:
            similar = layout.render_similar(context.neighbours)
        return {
            "patterns": layout.render_patterns(context.patterns),
            "rules": layout.render_rules(context.rules),
            "similar": similar,
            "session": own,
            "demos": demos,
        }

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with a signature of its own.

        A signature is a class, which copies share, and some of DSPy's optimizers write their
        instructions into it: all candidates of a search would have the last one's.
        """
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__setstate__(deepcopy(self.__getstate__(), memo))
        signature = copied.generate.signature
        copied.generate.signature = signature.with_instructions(signature.instructions)
        return copied

    def messages(self, session: Session) -> list[layout.Message]:
        """The chat messages that would be sent for one session."""
        inputs = self.request(session)
        demos = inputs.pop("demos")
        return self._layout.format(self.generate.signature, demos, inputs)

    def check_lm(self) -> None:
        """Check that the language model that would be asked now can tell all that is asked.

        Raises:
            SettingError: The grouping compares likelihoods, and the model tells none.
        """
        if self.grouping is not None and self.grouping.by_likelihood:
            current_scorer(self.generate)

    def forward(self, session: Session, config: dict[str, Any] | None = None) -> dspy.Prediction:
        """Generate the bundles of one session.

        Args:
            session: The session; its gold bundles are not looked at.
            config: Options of this call for the LM, e.g. ``{"temperature": 0.7}``.

        Raises:
            SettingError: As `check_lm`, before anything is asked.
        """
        self.check_lm()
        with dspy.context(adapter=self._layout):
            try:
                answer = self.generate(**self.request(session), config=config or {})
            except AdapterParseError as error:
                return _unparsed(error.lm_response, "the answer is empty")
            except ContextWindowExceededError as error:
                return _unparsed("", str(error))
        return self._read([answer], session)[0]

    async def aforward(
        self, session: Session, config: dict[str, Any] | None = None
    ) -> dspy.Prediction:
        """As `forward`, without blocking."""
        self.check_lm()
        with dspy.context(adapter=self._layout):
            try:
                answer = await self.generate.acall(**self.request(session), config=config or {})
            except AdapterParseError as error:
                return _unparsed(error.lm_response, "the answer is empty")
            except ContextWindowExceededError as error:
                return _unparsed("", str(error))
        return (await asyncio.to_thread(self._read, [answer], session))[0]

    def draws(self, session: Session, n: int, config: dict[str, Any]) -> list[dspy.Prediction]:
        """Several answers for one session, by one request for n completions.

        Args:
            session: As in `forward`.
            n: Number of answers, at least 1.
            config: As in `forward`; with a temperature above .15, which DSPy else replaces.

        Raises:
            SettingError: As `forward`.
        """
        self.check_lm()
        with dspy.context(adapter=self._layout):
            try:
                answer = self.generate(**self.request(session), config={**config, "n": n})
            except (AdapterParseError, ContextWindowExceededError):
                # One empty completion would cost all others.
                return [self(session, {**config, "rollout_id": k}) for k in range(n)]
        return self._read([answer.completions[k] for k in range(n)], session)

    def _read(self, answers: Sequence[dspy.Prediction], session: Session) -> list[dspy.Prediction]:
        """Predictions of what was written for one session; likelihoods are asked for once."""
        read = [_parsed(completion_of(answer), session) for answer in answers]
        if self.grouping is None:
            return read
        found = [(answer, named_intents(answer, session)) for answer in read if not answer.error]
        named = [(answer, readings) for answer, readings in found if readings]
        if named:
            from routedk.similarity.encoders import default_encoder

            overlaps: Sequence[Any] = [None] * len(named)
            if self.grouping.by_likelihood:
                overlaps = self.overlaps(session, [readings for _, readings in named])
            for (answer, readings), overlap in zip(named, overlaps, strict=True):
                bundles = self.grouping.bundles(session, readings, default_encoder(), overlap)
                answer.bundles, answer.none = list(bundles), not bundles
        return read

    def overlaps(self, session: Session, answers: Sequence[Readings]) -> list[NDArray[np.float64]]:
        """For each answer how much the intents overlap that may be named for each two items.

        Args:
            session: The session.
            answers: What each answer names, see `named_intents`.

        Raises:
            SettingError: The language model tells no likelihoods.
        """
        scorer = current_scorer(self.generate)
        return intent_overlaps(session, answers, self.messages(session), scorer)

    def save(self, path: str | Path) -> None:
        """Write the program as one JSON file, see `routedk.programs.program_file`."""
        from routedk.programs.program_file import save_generator

        save_generator(self, path)

    def load(self, path: str | Path) -> None:
        """Take over knowledge, instruction, demos and trials of a saved program.

        Raises:
            ArtifactError: The file is missing, damaged, or of another kind or version.
        """
        from routedk.programs.program_file import load_generator

        loaded = load_generator(path)
        self.knowledge, self.grouping = loaded.knowledge, loaded.grouping
        self.trials, self.utilization = loaded.trials, loaded.utilization
        self.generate.signature = loaded.generate.signature
        self.generate.demos = loaded.generate.demos


def _parsed(raw: str, session: Session) -> dspy.Prediction:
    try:
        parsed = parse_answer(raw, session)
    except AnswerError as error:
        return _unparsed(raw, str(error))
    return dspy.Prediction(
        bundles=list(parsed.bundles),
        thought=parsed.thought,
        dropped=parsed.dropped,
        lone=parsed.lone,
        none=parsed.none,
        raw=raw,
        error=None,
    )


def _unparsed(raw: str, error: str) -> dspy.Prediction:
    return dspy.Prediction(
        bundles=[], thought="", dropped=(), lone=(), none=False, raw=raw, error=error
    )


def named_intents(answer: dspy.Prediction, session: Session) -> Readings | None:
    """Each item's readings where an answer names intents and nothing else; otherwise None."""
    thought, rest = split_thought(answer.raw)
    if rest or not thought:
        return None
    return read_readings(thought, len(session.items))
