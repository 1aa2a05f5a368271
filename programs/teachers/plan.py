"""The calls of an LM teacher and their cost, estimated before anything is asked."""

from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, Usage

from routedk.programs.journal.budget import Tally, price
from routedk.programs.teachers.answer_distiller import StateBundles
from routedk.programs.teachers.answer_knowledge import StateGeneralRules
from routedk.programs.teachers.rule_distiller import StateCauses, StateRules
from routedk.programs.teachers.thought_distiller import NameIntents

# Prompts to any model are counted with its tokenizer: that of another may not be available.
_COUNTED_BY = "gpt-4o"
# Answers that are never right, so that every follow-up call is made.
_ANSWER = "Items that serve one intent belong together."
_STATEMENT = '{"bundles": []}'
# The tokens of a typical answer to each question, which is recognized by its instructions.
_QUESTIONS = {
    StateBundles.instructions: ("state bundles", 150),
    StateGeneralRules.instructions: ("state rules", 500),
    StateCauses.instructions: ("state causes", 150),
    StateRules.instructions: ("state rules", 90),
    NameIntents.instructions: ("name intents", 60),
}
_BUNDLE = ("bundle", 40)


class PlanEngine:
    """Stands in for a teacher and records what it is asked; ``lm`` is its ``dspy.LM``."""

    supports_response_schema = False
    supported_params: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._prompts: dict[str, tuple[str, int]] = {}
        self.lm: Any = dspy.LM("plan/plan", engine=self, cache=False)

    def complete(self, request: Request) -> Response:
        """Answer one request."""
        prompt = "\n".join([str(request.system), *(turn.text or "" for turn in request.messages)])
        self._prompts[prompt] = step = _QUESTIONS.get(str(request.system), _BUNDLE)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(_STATEMENT if step[0] == "state bundles" else _ANSWER),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1),
        )

    def steps(self, model: str) -> dict[str, Tally]:
        """The recorded calls, by what they ask for.

        Args:
            model: LiteLLM's name.
        """
        import litellm

        steps: dict[str, Tally] = {}
        for prompt, (step, written) in self._prompts.items():
            read = litellm.token_counter(model=_COUNTED_BY, text=prompt)
            call = Tally(1, read, written, price(model, read, written))
            steps[step] = steps.get(step, Tally()) + call
        return steps
