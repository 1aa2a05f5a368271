"""`BundleGenerator`: a DSPy program from a session to its bundles."""

from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any, Self

import dspy

from routedk.artifacts import content_hash
from routedk.errors import ArtifactError, DataError, SettingError
from routedk.files import read_json, write_json
from routedk.programs.batch import in_thread
from routedk.programs.default_lm import lm_of
from routedk.programs.evidence import explained
from routedk.programs.grouping.protocol import Grouping, ruled
from routedk.programs.grouping.similar_intents import SimilarIntents
from routedk.programs.knowledge.compiled import NO_KNOWLEDGE, CompiledKnowledge
from routedk.programs.naming import NO_ANSWER, BundleNamer
from routedk.programs.predictions import ask_bundles, named_bundles, read_bundles, unanswered
from routedk.programs.program_file import ProgramState, SavedGrouping, program_record, read_record
from routedk.programs.prompting import layout
from routedk.programs.prompting.bundle_adapter import BundleLayout, layout_demo
from routedk.programs.prompting.naming import part
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.rules import BundleRules
from routedk.types import Answer, Session


class BundleGenerator(dspy.Module):  # type: ignore[misc]
    """Generates the bundles of a `Session` with any ``dspy.LM``.

    With a `Grouping`, its own or the one that comes with a student, items are grouped first, and
    the language model is asked for the intent of each bundle. Without one it states the bundles.

    The prediction has ``bundles`` (list of `Bundle`), ``thought``, ``item_intents`` (of each
    item, if the answer names intents and nothing else), ``dropped`` (what the parser did not
    use), ``lone`` (ids of items stated as a bundle of one), ``none`` (the student states that there
    is no bundle), ``confidence`` and ``changed`` (from a grouping, see `Answer`), ``raw`` (the
    answer as written) and ``error``. An unparsable answer is data: no bundles, and ``error`` says
    why. A failing LM raises.

    Args:
        knowledge: Patterns, rules and neighbours for the prompt; none by default.
        grouping: A `Grouping`, or how to make bundles from an answer that names each item's intent
            (by default, items with an equal intent form a bundle); None for the grouping of the
            language model that is asked, if it has one.
        why: Whether bundles get explanations, and a student in this process that names bundles
            also states why.

    Attributes:
        trials: The candidates that a compilation tried, with their scores; empty before one.
        utilization: The utilization that it was compiled for; None if the choice was free.
    """

    def __init__(
        self,
        knowledge: CompiledKnowledge = NO_KNOWLEDGE,
        grouping: Grouping | SimilarIntents | None = None,
        *,
        why: bool = False,
    ) -> None:
        """A program around two predictors: ``generate`` states bundles, ``namer.name`` intents."""
        super().__init__()
        self.knowledge = knowledge
        self.grouping: Grouping | SimilarIntents | SavedGrouping | None = grouping
        self.generate = dspy.Predict(GenerateBundles)
        self.namer = BundleNamer(why=why)
        self.trials: list[dict[str, Any]] = []
        self.utilization: str | None = None
        # After the predictors: it also holds their demos, as prompts show them.
        self.record = ProgramState(self)

    def groups_by(self) -> Grouping | None:
        """What groups the items of a session, given the language model that would be asked now.

        Returns:
            None if the language model states the bundles.

        Raises:
            SettingError: The model is a student that was trained to name bundles, and there is no
                grouping; or this program was saved, and a student or grouping is not in its file.
        """
        if isinstance(self.grouping, SimilarIntents):
            return None
        if isinstance(self.grouping, SavedGrouping):
            self.grouping = self.grouping.load()
        if self.grouping is not None:
            return self.grouping
        engine = getattr(lm_of(self.generate), "engine", None)
        found: Grouping | None = getattr(engine, "grouping", None)
        if found is None and getattr(engine, "form", None) == "bundle-intent":
            raise SettingError(
                "this student was trained to name bundles, and there is nothing to group items by: "
                "its folder of experts has no folder 'grouping', and the program no grouping of "
                "its own (train again, or train with the answer form item-intents)"
            )
        return found

    def _asking(self) -> Any:
        """A context in which the packaged student is asked if no language model is set."""
        lm = lm_of(self.generate)
        return nullcontext() if dspy.settings.lm else dspy.context(lm=lm)

    def asked(self) -> Any:
        """The predictor that would be asked now."""
        return self.generate if self.groups_by() is None else self.namer.name

    def prompts(self, session: Session) -> list[layout.Prompt]:
        """All prompts that would be sent for one session: one, or one for each bundle."""
        if (grouping := self.groups_by()) is None:
            return [self.prompt(session)]
        parts = [part(session, bundle) for bundle in grouping.answer(session).bundles]
        return [self.namer.prompt(one, self.knowledge) for one in parts]

    def prompt(self, session: Session) -> layout.Prompt:
        """The prompt that asks for the bundles of one session."""
        request = self._request(session)
        instructions = str(self.generate.signature.instructions)
        messages = layout.chat_messages(instructions, request["demos"], request)
        return layout.Prompt(tuple(messages), layout.item_lines(session))

    def messages(self, session: Session) -> list[layout.Message]:
        """The chat messages that ask for the bundles of one session."""
        return list(self.prompt(session).messages)

    def _request(self, session: Session) -> dict[str, Any]:
        """The arguments of the predictor for one session: its inputs and demos."""
        inputs, neighbours = layout.prompt_fields(session, self.knowledge.context(session))
        demos = filter(None, map(layout_demo, self.generate.demos))
        # A demo of this very session would put its answer into the prompt.
        others = [demo for demo in demos if demo["session"] != inputs["session"]]
        return {**inputs, "demos": [*others, *neighbours]}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy with its own signatures.

        A signature is a class, which copies share, and some of DSPy's optimizers write their
        instructions into it: all candidates of a search would end up with the last one's.
        """
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__setstate__(deepcopy(self.__getstate__(), memo))
        for predictor in copied.predictors():
            signature = predictor.signature
            predictor.signature = signature.with_instructions(signature.instructions)
        return copied

    def _group(self, session: Session, rules: BundleRules | None) -> tuple[Answer, Grouping] | None:
        """The grouped items, and what grouped them; None if a language model states the bundles."""
        grouping = self.groups_by()
        if rules is not None:
            ruling = ruled(grouping)
            return ruling.answer(session, rules), ruling
        return None if grouping is None else (grouping.answer(session), grouping)

    def forward(
        self,
        session: Session,
        config: dict[str, Any] | None = None,
        rules: BundleRules | None = None,
    ) -> dspy.Prediction:
        """Generate the bundles of one session.

        Args:
            session: The session; its gold bundles are ignored.
            config: LM options for this call, e.g. ``{"temperature": 0.7}``.
            rules: The catalogue's rules; no bundle breaks one.

        Raises:
            SettingError: As for `groups_by`, before anything is asked; or there are rules, but no
                `Grouping` that takes them.
        """
        with self._asking():
            if found := self._group(session, rules):
                grouped, by = found
                named = self.namer(session, grouped.bundles, self.knowledge, config, grouping=by)
                return self._explained(named_bundles(named, grouped), session)
            request = {**self._request(session), "config": config or {}}
            return self._grouped(ask_bundles(self.generate, session, request), session)

    async def aforward(
        self,
        session: Session,
        config: dict[str, Any] | None = None,
        rules: BundleRules | None = None,
    ) -> dspy.Prediction:
        """As `forward`, without blocking."""
        with self._asking():
            if found := await in_thread(self._group, session, rules):
                grouped, by = found
                named = await self.namer.acall(
                    session, grouped.bundles, self.knowledge, config, grouping=by
                )
                return await in_thread(self._explained, named_bundles(named, grouped), session)
            request = {**self._request(session), "config": config or {}}
            try:
                with dspy.context(adapter=BundleLayout()):
                    answer = await self.generate.acall(**request)
            except NO_ANSWER as error:
                return unanswered(error)
            return await in_thread(
                lambda: self._grouped(read_bundles(answer.bundles, session), session)
            )

    def _grouped(self, prediction: dspy.Prediction, session: Session) -> dspy.Prediction:
        """The prediction, its bundles made from item intents if `SimilarIntents` is set."""
        if isinstance(self.grouping, SimilarIntents) and prediction.item_intents:
            from routedk.similarity.encoders import default_encoder

            named = prediction.item_intents
            bundles = self.grouping.bundles(session, named, default_encoder())
            prediction.bundles, prediction.none = list(bundles), not bundles
        return self._explained(prediction, session)

    def _explained(self, prediction: dspy.Prediction, session: Session) -> dspy.Prediction:
        """The prediction, its bundles explained if ``why`` is set."""
        if self.namer.why:
            grouping = self.groups_by()
            prediction.bundles = explained(session, prediction.bundles, grouping, self.knowledge)
        return prediction

    def fingerprint(self) -> str:
        """A hash of all that answers depend on: what `save` writes, without trials and folders.

        The language model's own grouping is left out: the model's name identifies it.
        """
        record = {**program_record(self), "trials": []}
        if found := record.pop("grouped_by", None):
            record["grouping"] = found["fingerprint"]
        return content_hash(record)

    def save(
        self,
        path: str | Path,
        save_program: bool = False,
        modules_to_serialize: list[Any] | None = None,
    ) -> None:
        """Write the program as one JSON file, atomically; see `routedk.programs.program_file`.

        It holds neither the LM nor a `Grouping`, only the latter's folder and fingerprint.

        Args:
            path: The file. One that ends in ``.pkl`` is written by DSPy.
            save_program: Write a folder with the pickled program, as DSPy does.
            modules_to_serialize: As in DSPy.
        """
        if save_program or _is_pickle(path):
            super().save(path, save_program, modules_to_serialize)
        else:
            write_json(path, program_record(self))

    def load(
        self,
        path: str | Path,
        allow_pickle: bool = False,
        allow_unsafe_lm_state: bool = False,
    ) -> None:
        """Load a saved program into this one, without an LM; see `load_program`.

        Args:
            path: A file that `save` wrote.
            allow_pickle: As in DSPy, for a file that ends in ``.pkl``.
            allow_unsafe_lm_state: As ``allow_pickle``.

        Raises:
            ArtifactError: As for `load_program`.
        """
        if _is_pickle(path):
            super().load(path, allow_pickle, allow_unsafe_lm_state)
            return
        try:
            record = read_json(path)
        except DataError as error:
            raise ArtifactError(str(error)) from None
        self.set_lm(None)
        read_record(self, record, path)


def _is_pickle(path: str | Path) -> bool:
    return Path(path).suffix == ".pkl"


def load_program(path: str | Path) -> BundleGenerator:
    """Load a program; give it an LM with ``dspy.context(lm=...)`` or ``set_lm``.

    Raises:
        ArtifactError: The file is missing, damaged, of another kind or schema version, or was
            saved under another prompt layout.
    """
    program = BundleGenerator()
    program.load(path)
    return program
