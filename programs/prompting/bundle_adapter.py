"""The layout as a ``dspy.Adapter``: DSPy sends what `routedk.programs.prompting.layout` makes."""

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from routedk.programs.prompting import layout
from routedk.programs.prompting.asked import asking
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.types import Session


class BundleLayout(dspy.ChatAdapter):  # type: ignore[misc]  # DSPy is untyped here
    """Renders ``GenerateBundles``, or a signature with its field names.

    Patterns and rules stand in the system message of the request, similar sessions and items in
    the user message; demos are complete user and assistant turns. A completion is not
    parsed here: whether it is valid depends on its session, which an adapter does not know (see
    `read_answer`). The session's items are announced to the engine (see `asked_items`).
    """

    def __init__(self) -> None:
        """No options: a layout with switches would not be one layout."""
        super().__init__(use_json_adapter_fallback=False)

    def __call__(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """Ask the language model, announcing its session's items."""
        with asking(_items(inputs)):
            return super().__call__(lm, lm_kwargs, signature, demos, inputs)

    async def acall(self, lm: Any, lm_kwargs: Any, signature: Any, demos: Any, inputs: Any) -> Any:
        """As `__call__`, without blocking."""
        with asking(_items(inputs)):
            return await super().acall(lm, lm_kwargs, signature, demos, inputs)

    def format(
        self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> list[layout.Message]:
        """All messages of one request."""
        return layout.chat_messages(str(signature.instructions), demos, inputs)

    def format_assistant_message_content(
        self,
        signature: Any,
        outputs: Mapping[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        """The assistant message: a thought, the bundles, or both."""
        return layout.assistant_content(outputs.get("bundles") or "", outputs.get("thought") or "")

    def format_finetune_data(self, signature: Any, demos: Any, inputs: Any, outputs: Any) -> Any:
        """DSPy's training data: the messages, and the session's numbered lines as ``items``."""
        data = super().format_finetune_data(signature, demos, inputs, outputs)
        return {**data, "items": list(_items(inputs))}

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """The whole completion as ``bundles``; never fails."""
        return {"thought": "", "bundles": completion.strip()}


def _items(inputs: Mapping[str, Any]) -> tuple[str, ...]:
    lines = str(inputs.get("session") or "")
    return tuple(lines.split("\n")) if lines else ()


def layout_demo(demo: Mapping[str, Any]) -> dict[str, str] | None:
    """A demo with a text for every field of `GenerateBundles`.

    DSPy's optimizers make demos of a predictor's own inputs and outputs, which are texts, and of
    training examples as they are, which hold a `Session`: its items are then rendered as in every
    prompt, and its gold is the answer.

    Args:
        demo: A ``dspy.Example`` or a mapping.

    Returns:
        None where it has no answer: there is nothing to show.
    """
    found = {name: demo.get(name) for name in GenerateBundles.fields}
    session = found["session"]
    if isinstance(session, Session):
        found["session"] = layout.render_items(session)
        if found["bundles"] is None and session.bundles is not None:
            found["bundles"] = layout.render_answer(session, session.bundles)
    if not found["session"] or not (found["bundles"] or found["thought"]):
        return None
    return {name: "" if value is None else str(value) for name, value in found.items()}
