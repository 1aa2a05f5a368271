"""`BundleNamer`: a DSPy module that states the intent of each bundle."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import dspy
from dspy.utils.exceptions import AdapterParseError, ContextWindowExceededError

from routedk.errors import AnswerError
from routedk.programs.batch import call_all, in_thread
from routedk.programs.default_lm import lm_of
from routedk.programs.grouping.protocol import Grouping
from routedk.programs.knowledge.compiled import NO_KNOWLEDGE, CompiledKnowledge
from routedk.programs.prompting.bundle_adapter import NameLayout, naming_demo
from routedk.programs.prompting.grounding import grounded, ranked_intents
from routedk.programs.prompting.layout import Prompt
from routedk.programs.prompting.naming import (
    naming_fields,
    naming_messages,
    part,
    render_name,
    title_lines,
)
from routedk.programs.prompting.signatures import NameBundle
from routedk.similarity.encoders import default_encoder
from routedk.types import Bundle, Session

_MOST_AT_ONCE = 8
# From a bundle's titles to intents with weights, or None; see `Grouping.known_intents`.
_Known: TypeAlias = Callable[[Sequence[str]], Mapping[str, float] | None]
# An empty completion, one that ends inside its reasoning, a prompt too long for the model.
NO_ANSWER = (AdapterParseError, AnswerError, ContextWindowExceededError)


class BundleNamer(dspy.Module):  # type: ignore[misc]  # DSPy is untyped here
    """Asks a language model for the intent of each bundle, all of a session's at once.

    The prediction has ``bundles``, the given ones with intents that labelled bundles and their
    items' titles support (see `ranked_intents` and `grounded`), ``raw``, the answers as read,
    joined by line ends, and ``dropped``, the answers that could not be read. Kind and confidence
    are unchanged. If the model states no intent, it is made from the titles' words.

    Args:
        why: Whether a student in this process also states why. Other models are always asked to.
    """

    def __init__(self, *, why: bool = False) -> None:
        """A program around one predictor, ``name``."""
        super().__init__()
        self.why = why
        self.name = dspy.Predict(NameBundle)

    def prompt(self, session: Session, knowledge: CompiledKnowledge = NO_KNOWLEDGE) -> Prompt:
        """Build the prompt that would be sent for one `part`."""
        request = self._request(session, knowledge)
        instructions = str(self.name.signature.instructions)
        messages = naming_messages(instructions, request["demos"], request)
        return Prompt(tuple(messages), title_lines(session.items))

    def _request(self, session: Session, knowledge: CompiledKnowledge) -> dict[str, Any]:
        fields, neighbours = naming_fields(session, knowledge.of_bundles.context(session))
        demos = filter(None, map(naming_demo, self.name.demos))
        # A demo of this very bundle would put its answer into the prompt.
        others = [demo for demo in demos if demo["titles"] != fields["titles"]]
        return {**fields, "demos": [*others, *neighbours]}

    def _known_intents(self, grouping: Grouping | None) -> _Known:
        engine = getattr(lm_of(self.name), "engine", None)
        trained = getattr(engine, "form", None) == "bundle-intent"
        return grouping.known_intents if grouping is not None and trained else lambda _: {}

    def forward(
        self,
        session: Session,
        bundles: Sequence[Bundle],
        knowledge: CompiledKnowledge = NO_KNOWLEDGE,
        config: dict[str, Any] | None = None,
        *,
        grouping: Grouping | None = None,
    ) -> dspy.Prediction:
        """Name the bundles of one session.

        Args:
            session: The session of the bundles.
            bundles: Any number; their own intents are ignored.
            knowledge: What prompts show.
            config: LM options for these calls, e.g. ``{"temperature": 0.7}``.
            grouping: What made them. For a student that was trained to name bundles, its known
                intents are candidates, too; if they are None (see `Grouping.known_intents`), the
                student is not asked, and the intent is made from the titles' words.
        """
        known = self._known_intents(grouping)

        def ask(one: Session) -> Any:
            if (others := known([item.title for item in one.items])) is None:
                return None, {}
            try:
                with dspy.context(adapter=NameLayout(why=self.why)):
                    return self.name(**self._request(one, knowledge), config=config or {}), others
            except NO_ANSWER as error:
                return error, others

        parts = [part(session, bundle) for bundle in bundles]
        threads = max(1, min(len(parts), _MOST_AT_ONCE))
        return _named(parts, call_all(ask, parts, num_threads=threads))

    async def aforward(
        self,
        session: Session,
        bundles: Sequence[Bundle],
        knowledge: CompiledKnowledge = NO_KNOWLEDGE,
        config: dict[str, Any] | None = None,
        *,
        grouping: Grouping | None = None,
    ) -> dspy.Prediction:
        """As `forward`, without blocking."""
        known = self._known_intents(grouping)
        limit = asyncio.Semaphore(_MOST_AT_ONCE)

        async def ask(one: Session) -> Any:
            async with limit:
                titles = [item.title for item in one.items]
                if (others := await in_thread(known, titles)) is None:
                    return None, {}
                try:
                    with dspy.context(adapter=NameLayout(why=self.why)):
                        request = self._request(one, knowledge)
                        return await self.name.acall(**request, config=config or {}), others
                except NO_ANSWER as error:
                    return error, others

        parts = [part(session, bundle) for bundle in bundles]
        answers = await asyncio.gather(*map(ask, parts))
        return await in_thread(_named, parts, answers)


def _named(parts: Sequence[Session], answers: Sequence[Any]) -> dspy.Prediction:
    """The bundles of the parts, named by their answers.

    Args:
        parts: One per bundle.
        answers: For each, a prediction or why there is none, and the known intents to choose from.
    """
    named, raw, dropped = [], [], []
    for one, (answer, others) in zip(parts, answers, strict=True):
        (bundle,) = one.bundles or ()
        answered = isinstance(answer, dspy.Prediction)
        stated, why = (answer.intent, answer.why) if answered else ("", "")
        if isinstance(answer, AnswerError):
            dropped.append(f"no intent of {', '.join(bundle.item_ids)}: {answer}")
        titles, encoder = [item.title for item in one.items], default_encoder()
        intent = grounded(ranked_intents(stated, others, titles, encoder), titles, encoder)
        # If the items do not support the stated intent, its reason does not hold for them either.
        true = why and grounded([stated], titles, encoder) == stated
        named.append(replace(bundle, intent=intent, why=why if true else ""))
        raw.append(render_name(stated, why))
    return dspy.Prediction(bundles=named, raw="\n".join(raw), dropped=tuple(dropped))
