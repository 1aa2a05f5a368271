"""The layout as a ``dspy.Adapter``: DSPy sends what `routedk.programs.prompting.layout` makes."""

from collections.abc import Mapping
from typing import Any

from routedk.programs.prompting import layout
from routedk.programs.prompting.answers import split_thought
from routedk.programs.prompting.unmarked_chat import UnmarkedChat


def _text(fields: Mapping[str, Any], name: str) -> str:
    return str(fields.get(name) or "")


class BundleLayout(UnmarkedChat):
    """Renders ``GenerateBundles``, or a signature with its field names.

    Patterns and rules stand in the system message of the request, similar sessions and items in
    the user message; demos are complete user and assistant turns. Parsing cuts a thought
    off and accepts anything: whether an answer is valid depends on its session, which an
    adapter does not know. ``format_finetune_data`` of the base class uses the same rendering.
    """

    def system_content(self, signature: Any, inputs: Mapping[str, Any]) -> str:
        """The instructions, then the patterns and rules of ``inputs``."""
        instructions = self.format_system_message(signature)
        return layout.system_content(
            instructions, _text(inputs, "patterns"), _text(inputs, "rules")
        )

    def format_user_message_content(
        self,
        signature: Any,
        inputs: Mapping[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """The user message; DSPy's framing texts are not shown."""
        return layout.user_content(_text(inputs, "session"), _text(inputs, "similar"))

    def format_assistant_message_content(
        self,
        signature: Any,
        outputs: Mapping[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        """The assistant message: a thought, the bundles, or both."""
        return layout.assistant_content(_text(outputs, "bundles"), _text(outputs, "thought"))

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """Split a completion into the signature's output fields; never fails.

        `completion_of` puts them together again, up to white space around the completion.
        """
        text = completion.strip()
        thought, bundles = split_thought(text)
        fields = {"thought": thought, "bundles": bundles}
        # An answer in another form is left whole, so that nothing of it is lost.
        return fields if completion_of(fields) == text else {"thought": "", "bundles": text}


def completion_of(fields: Mapping[str, Any]) -> str:
    """The completion that `BundleLayout.parse` split, as the language model wrote it."""
    thought, bundles = _text(fields, "thought"), _text(fields, "bundles")
    return f"{layout.THOUGHT_PREFIX} {thought}\n{bundles}".strip() if thought else bundles
