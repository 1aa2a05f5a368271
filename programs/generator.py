"""`BundleGenerator`: a DSPy program from a session to its bundles."""

import asyncio
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import fields
from pathlib import Path
from typing import Any, Self

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from routedk.artifacts import content_hash
from routedk.errors import AnswerError
from routedk.files import write_json
from routedk.programs.grouping.similar_intents import SimilarIntents
from routedk.programs.knowledge.compiled import NO_KNOWLEDGE, CompiledKnowledge
from routedk.programs.program_file import program_record, read_program
from routedk.programs.prompting import layout
from routedk.programs.prompting.answers import ParsedAnswer, read_answer
from routedk.programs.prompting.bundle_adapter import BundleLayout, layout_demo
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.types import Session

# A completion without text, and a prompt too long for the model.
_NO_ANSWER = (AdapterParseError, ContextWindowExceededError)


class BundleGenerator(dspy.Module):  # type: ignore[misc]
    """Generates the bundles of a `Session` with any ``dspy.LM``.

    The prediction has ``bundles`` (list of `Bundle`), ``thought``, ``item_intents`` (of each
    item, where the answer names intents and nothing else), ``dropped`` (what the parser did not
    use), ``lone`` (ids of items stated as a bundle of one), ``none`` (the student states that there
    is no bundle), ``raw`` (the answer as written) and ``error``. An unparsable answer is data: no
    bundles, and ``error`` says why. A failing LM raises.

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

    def prompt(self, session: Session) -> layout.Prompt:
        """The prompt that would be sent for one session."""
        request = self._request(session)
        instructions = str(self.generate.signature.instructions)
        messages = layout.chat_messages(instructions, request["demos"], request)
        return layout.Prompt(tuple(messages), layout.item_lines(session))

    def messages(self, session: Session) -> list[layout.Message]:
        """The chat messages that would be sent for one session."""
        return list(self.prompt(session).messages)

    def _request(self, session: Session) -> dict[str, Any]:
        """The arguments of the predictor for one session: its inputs and demos."""
        inputs, neighbours = layout.prompt_fields(session, self.knowledge.context(session))
        demos = filter(None, map(layout_demo, self.generate.demos))
        # The answer of a demo of this very session would stand in its prompt.
        others = [demo for demo in demos if demo["session"] != inputs["session"]]
        return {**inputs, "demos": [*others, *neighbours]}

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

    def forward(self, session: Session, config: dict[str, Any] | None = None) -> dspy.Prediction:
        """Generate the bundles of one session.

        Args:
            session: The session; its gold bundles are not looked at.
            config: Options of this call for the LM, e.g. ``{"temperature": 0.7}``.
        """
        request = {**self._request(session), "config": config or {}}
        return self._grouped(ask_bundles(self.generate, session, request), session)

    async def aforward(
        self, session: Session, config: dict[str, Any] | None = None
    ) -> dspy.Prediction:
        """As `forward`, without blocking."""
        try:
            with dspy.context(adapter=BundleLayout()):
                answer = await self.generate.acall(**self._request(session), config=config or {})
        except _NO_ANSWER as error:
            return _unanswered(error)
        return await asyncio.to_thread(
            lambda: self._grouped(_read(answer.bundles, session), session)
        )

    def _grouped(self, prediction: dspy.Prediction, session: Session) -> dspy.Prediction:
        """The prediction with its bundles made by the grouping, where there is one."""
        if self.grouping is not None and prediction.item_intents:
            from routedk.similarity.encoders import default_encoder

            named = prediction.item_intents
            bundles = self.grouping.bundles(session, named, default_encoder())
            prediction.bundles, prediction.none = list(bundles), not bundles
        return prediction

    def fingerprint(self) -> str:
        """A hash of everything that the answers depend on: what `save` writes, without trials."""
        return content_hash({**program_record(self), "trials": []})

    def save(self, path: str | Path) -> None:
        """Write the program as one JSON file, atomically; see `routedk.programs.program_file`."""
        write_json(path, program_record(self))

    def load(self, path: str | Path) -> None:
        """Load the program of a file into this one, without an LM; see `load_program`.

        Raises:
            ArtifactError: The file is missing, damaged, or of another kind or version.
        """
        self.__dict__.update(load_program(path).__dict__)


def load_program(path: str | Path) -> BundleGenerator:
    """Read a program; give it an LM with ``dspy.context(lm=...)`` or ``set_lm``.

    Raises:
        ArtifactError: The file is missing, damaged, of another kind or schema version, or was
            saved under another prompt layout.
    """
    knowledge, saved = read_program(path)
    program = BundleGenerator(knowledge, saved.grouping)
    predictor = program.generate
    predictor.signature = predictor.signature.with_instructions(saved.instruction)
    predictor.demos = list(saved.demos)
    program.trials = list(saved.trials)
    program.utilization = saved.utilization
    return program


def ask_bundles(predictor: Any, session: Session, request: Mapping[str, Any]) -> dspy.Prediction:
    """Ask a predictor of `GenerateBundles` for one session's bundles.

    Args:
        predictor: What is asked.
        session: The session.
        request: The predictor's arguments: the signature's inputs, demos and config.

    Returns:
        The fields that `BundleGenerator` states.
    """
    try:
        with dspy.context(adapter=BundleLayout()):
            answer = predictor(**request)
    except _NO_ANSWER as error:
        return _unanswered(error)
    return _read(answer.bundles, session)


def _read(raw: str, session: Session) -> dspy.Prediction:
    try:
        return _prediction(read_answer(raw, session), raw, None)
    except AnswerError as error:
        return _prediction(ParsedAnswer(), raw, str(error))


def _unanswered(error: Exception) -> dspy.Prediction:
    if isinstance(error, AdapterParseError):
        return _prediction(ParsedAnswer(), error.lm_response, "the answer is empty")
    return _prediction(ParsedAnswer(), "", str(error))


def _prediction(read: ParsedAnswer, raw: str, error: str | None) -> dspy.Prediction:
    found = {field.name: getattr(read, field.name) for field in fields(read)}
    return dspy.Prediction(**{**found, "bundles": list(read.bundles)}, raw=raw, error=error)
