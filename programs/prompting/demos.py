"""Demos as the layout shows them, whatever a DSPy optimizer made them of."""

from collections.abc import Mapping
from typing import Any

from routedk.programs.prompting.layout import render_answer, render_items
from routedk.programs.prompting.signatures import GenerateBundles
from routedk.types import Session


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
        found["session"] = render_items(session)
        if found["bundles"] is None and session.bundles is not None:
            found["bundles"] = render_answer(session, session.bundles)
    if not found["session"] or not (found["bundles"] or found["thought"]):
        return None
    return {name: "" if value is None else str(value) for name, value in found.items()}
