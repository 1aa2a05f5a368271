"""A ``dspy.Adapter`` for small questions: inputs in, one string out, no field markers.

Small language models copy or break the markers of DSPy's own formats; most of a distiller's
questions have one answer, so no markers are needed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from routedk.programs.prompting.layout import Message
from routedk.programs.prompting.text import split_reasoning


class PlainText(dspy.ChatAdapter):  # type: ignore[misc]  # DSPy is untyped here
    """The instructions are the system message, the inputs are blocks of the user message.

    A block is the description of its field, a colon and the value; empty inputs have no block. The
    user message ends with the description of the only output field; the whole completion is its
    value. Demos are complete user and assistant turns.
    """

    def __init__(self) -> None:
        """No options: a question is only ever asked in one way."""
        super().__init__(use_json_adapter_fallback=False)

    def format(
        self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]
    ) -> list[Message]:
        """All messages of one request."""
        (output,) = signature.output_fields
        messages = [{"role": "system", "content": str(signature.instructions)}]
        for demo in demos:
            messages += [_question(signature, demo), {"role": "assistant", "content": demo[output]}]
        return [*messages, _question(signature, inputs)]

    def parse(self, signature: Any, completion: str) -> dict[str, str]:
        """The completion without its reasoning.

        Raises:
            AnswerError: It ends inside its reasoning.
        """
        (name,) = signature.output_fields
        return {name: split_reasoning(completion)[1]}


def _question(signature: Any, inputs: Mapping[str, Any]) -> Message:
    blocks = [
        f"{field.json_schema_extra['desc']}:\n{inputs[name]}"
        for name, field in signature.input_fields.items()
        if inputs.get(name)
    ]
    (output,) = signature.output_fields.values()
    blocks.append(f"{output.json_schema_extra['desc']}:")
    return {"role": "user", "content": "\n\n".join(blocks)}


def ask(predictor: Any, **inputs: Any) -> str:
    """The answer of a predictor with a single string output; empty for an empty completion.

    Raises:
        AnswerError: It ends inside its reasoning.
    """
    try:
        with dspy.context(adapter=PlainText()):
            answer = predictor(**inputs)
    except AdapterParseError:
        return ""
    (output,) = predictor.signature.output_fields
    return str(answer[output])
