"""A ``dspy.Adapter`` for small questions: inputs in, one text out, no field markers.

Small language models copy or break the markers of DSPy's own formats; most questions of a
distiller have one answer, so none are needed.
"""

from collections.abc import Mapping
from typing import Any

from routedk.programs.prompting.unmarked_chat import UnmarkedChat


class PlainText(UnmarkedChat):
    """The instructions are the system message, the inputs blocks of the user message.

    A block is the description of its field, a colon and the value; empty inputs have none. The
    user message ends with the description of the one output field, which the whole completion is.
    """

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
