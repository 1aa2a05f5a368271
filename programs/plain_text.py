"""A ``dspy.Adapter`` for small questions: inputs in, one text out, no field markers.

Small language models copy or break the markers of DSPy's own formats; most questions of a
distiller have one answer, so none are needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from routedk.programs.layout import Message


class PlainText(dspy.ChatAdapter):  # type: ignore[misc]
    """The instructions are the system message, the inputs blocks of the user message.

    A block is the description of its field, a colon and the value; empty inputs have none. The
    user message ends with the description of the one output field, which the whole completion is.
    """

    def __init__(self) -> None:
        """No options."""
        super().__init__(use_json_adapter_fallback=False)

    def format(
        self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> list[Message]:
        """All messages of one request."""
        user = self.format_user_message_content(signature, dict(inputs), main_request=True)
        return [
            {"role": "system", "content": str(signature.instructions)},
            *self.format_demos(signature, list(demos)),
            {"role": "user", "content": user},
        ]

    def format_user_message_content(
        self,
        signature: Any,
        inputs: Mapping[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """The inputs that are not empty, one block each, then what is asked for."""
        blocks = [
            f"{field.json_schema_extra['desc']}:\n{inputs[name]}"
            for name, field in signature.input_fields.items()
            if inputs.get(name)
        ]
        (output,) = signature.output_fields.values()
        return "\n\n".join([*blocks, f"{output.json_schema_extra['desc']}:"])

    def format_assistant_message_content(
        self,
        signature: Any,
        outputs: Mapping[str, Any],
        missing_field_message: str | None = None,
    ) -> str:
        """The one output."""
        (name,) = signature.output_fields
        return str(outputs.get(name) or "")

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """The completion as it is; never fails."""
        (name,) = signature.output_fields
        return {name: completion.strip()}
