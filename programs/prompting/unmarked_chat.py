"""What this package's ``dspy.Adapter`` classes share: chat messages without field markers."""

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from routedk.programs.prompting.layout import Message


class UnmarkedChat(dspy.ChatAdapter):  # type: ignore[misc]
    """A system message, complete turns as demos, and one user message; never asks a second way.

    Subclasses render the contents and parse completions.
    """

    def __init__(self) -> None:
        """No options: a layout with switches would not be one layout."""
        super().__init__(use_json_adapter_fallback=False)

    def format(
        self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> list[Message]:
        """All messages of one request."""
        user = self.format_user_message_content(signature, dict(inputs), main_request=True)
        return [
            {"role": "system", "content": self.format_system_message(signature)},
            *self.format_demos(signature, list(demos)),
            {"role": "user", "content": user},
        ]

    def format_system_message(self, signature: Any) -> str:
        """The signature's instructions and nothing else."""
        return str(signature.instructions)
