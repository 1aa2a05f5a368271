"""The steps of AICL by their instructions, and an LM that is safe for many threads."""

from collections.abc import Sequence

from routedk.programs.aicl.program import FindCauses, FindRules, InferIntent
from routedk.programs.prompting.layout import Message, instruction

STEPS = {
    instruction(): "bundles",
    InferIntent.instructions: "intent",
    FindCauses.instructions: "causes",
    FindRules.instructions: "rules",
}
TEXTS = {
    "intent": "desk cables",
    "causes": "A kettle is no cable.",
    "rules": "- Kitchen items are no desk items",
}


def step_of(messages: Sequence[Message]) -> str:
    system = messages[0]["content"]
    return next(step for told, step in STEPS.items() if system.startswith(told))


def by_session(messages: list[Message]) -> str:
    """An LM whose answers depend on nothing but the question: safe for many threads."""
    step = step_of(messages)
    if step != "bundles":
        return TEXTS[step]
    return "1 2 | cables" if "by the feedback" in messages[-1]["content"] else "1 2 3"
