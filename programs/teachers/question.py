"""Asking the language model of the surrounding ``dspy.context`` one question."""

from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from routedk.programs.prompting.plain_text import PlainText


def ask(signature: Any, **inputs: str) -> str:
    """The answer to a signature with one output; empty for an empty completion."""
    try:
        with dspy.context(adapter=PlainText()):
            answer = dspy.Predict(signature)(**inputs)
    except AdapterParseError:
        return ""
    (output,) = signature.output_fields
    return str(answer[output])
