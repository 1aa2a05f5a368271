"""The layouts as ``dspy.Adapter``: DSPy sends what `routedk.programs.prompting.layout` makes."""

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from routedk.errors import AnswerError
from routedk.programs.prompting import layout, naming
from routedk.programs.prompting.asked import Asked, asking
from routedk.programs.prompting.signatures import GenerateBundles, NameBundle
from routedk.programs.prompting.text import split_reasoning
from routedk.types import Session


class BundleLayout(dspy.ChatAdapter):  # type: ignore[misc]  # DSPy is untyped here
    """Renders ``GenerateBundles``, or a signature with the same field names.

    Patterns and rules go into the system message, similar sessions and items into the user
    message; demos are complete user and assistant turns. A completion is not parsed here: whether
    it is valid depends on its session, which an adapter does not know (see `read_answer`). The
    session's items are announced to the engine (see `asked_now`).
    """

    def __init__(self) -> None:
        """No options: a layout with switches would be several layouts."""
        super().__init__(use_json_adapter_fallback=False)

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """Ask the language model, announcing its session's items."""
        with asking(self.asked(inputs)):
            return super().__call__(lm, lm_kwargs, signature, demos, inputs)

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """As `__call__`, without blocking."""
        with asking(self.asked(inputs)):
            return await super().acall(lm, lm_kwargs, signature, demos, inputs)

    def asked(self, inputs: Mapping[str, Any]) -> Asked:
        """What a request with these inputs is about."""
        return Asked(_lines(inputs.get("session")))

    def format(
        self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> list[layout.Message]:
        """All messages of one request."""
        return layout.chat_messages(str(signature.instructions), demos, inputs)

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """The whole completion as ``bundles``; never fails."""
        return {"thought": "", "bundles": completion.strip()}


class NameLayout(BundleLayout):
    """Renders ``NameBundle``, or a signature with the same fields; items are announced as well.

    Args:
        why: Whether the engine should also state why.
    """

    def __init__(self, *, why: bool = False) -> None:
        super().__init__()
        self._heads = (naming.INTENT_HEAD, naming.WHY_HEAD) if why else (naming.INTENT_HEAD,)

    def asked(self, inputs: Mapping[str, Any]) -> Asked:
        """What a request with these inputs is about."""
        return Asked(_lines(inputs.get("titles")), self._heads)

    def format(
        self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> list[layout.Message]:
        """All messages of one request."""
        return naming.naming_messages(str(signature.instructions), demos, inputs)

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """The intent and why, each empty if the completion does not state it.

        Raises:
            AnswerError: It ends inside its reasoning.
        """
        intent, why = naming.read_name(completion)
        return {"intent": intent, "why": why}


def _lines(text: object) -> tuple[str, ...]:
    return tuple(str(text).split("\n")) if text else ()


def layout_demo(demo: Mapping[str, Any]) -> dict[str, str] | None:
    """A demo with a string for every field of `GenerateBundles`.

    DSPy's optimizers make demos from a predictor's own inputs and outputs, which are strings, and
    from raw training examples, which hold a `Session`: its items are then rendered as in every
    prompt, and its gold is the answer. The reasoning of a reasoning model is not shown.

    Args:
        demo: A ``dspy.Example`` or a mapping.

    Returns:
        None if it has no answer: there is nothing to show.
    """
    found = {name: demo.get(name) for name in GenerateBundles.fields}
    session = found["session"]
    if isinstance(session, Session):
        found["session"] = layout.render_items(session)
        if found["bundles"] is None and session.bundles is not None:
            found["bundles"] = layout.render_answer(session, session.bundles)
    try:
        _, found["bundles"] = split_reasoning(str(found["bundles"] or ""))
    except AnswerError:
        return None
    if not found["session"] or not (found["bundles"] or found["thought"]):
        return None
    return {name: "" if value is None else str(value) for name, value in found.items()}


def naming_demo(demo: Mapping[str, Any]) -> dict[str, str] | None:
    """A demo with a string for every field of `NameBundle`; None if it names nothing.

    Args:
        demo: A ``dspy.Example`` or a mapping.
    """
    found = {name: str(demo.get(name) or "") for name in NameBundle.fields}
    return found if found["titles"] and found["intent"] else None
