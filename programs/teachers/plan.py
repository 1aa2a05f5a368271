"""What an LM teacher may be asked and what that may cost, before it is asked anything."""

from typing import Any

import dspy
from dspy.lm15 import Message, Request, Response, Usage

from routedk.programs.journal.budget import Tally, price
from routedk.programs.teachers.rule_distiller import StateCauses, StateRules
from routedk.programs.teachers.thought_distiller import NameIntents

# OpenAI's rule of thumb for English; used where the model's tokenizer is not known.
_CHARACTERS_PER_TOKEN = 4
# An answer that is never right, so that every further call is made.
_ANSWER = "Items that serve one intent belong together."
# The tokens of a typical answer to each question, which is told by its instructions.
_QUESTIONS = {
    StateCauses.instructions: ("state causes", 150),
    StateRules.instructions: ("state rules", 90),
    NameIntents.instructions: ("name intents", 60),
}
_BUNDLE = ("bundle", 40)


class PlanEngine:
    """Stands in for a teacher and notes what it is asked; ``lm`` is the ``dspy.LM`` of it."""

    supports_response_schema = False
    supported_params: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self._prompts: dict[str, tuple[str, int]] = {}
        self.lm: Any = dspy.LM("plan/plan", engine=self, cache=False)

    def complete(self, request: Request) -> Response:
        """Answer one request."""
        prompt = "\n".join([str(request.system), *(turn.text or "" for turn in request.messages)])
        self._prompts[prompt] = _QUESTIONS.get(str(request.system), _BUNDLE)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(_ANSWER),
            finish_reason="stop",
            usage=Usage(input_tokens=1, output_tokens=1),
        )

    def steps(self, model: str) -> dict[str, Tally]:
        """The calls that were noted, by what is asked in them.

        Args:
            model: LiteLLM's name; the tokens of a model without a price are estimated.
        """
        known = price(model, 1, 1) is not None
        steps: dict[str, Tally] = {}
        for prompt, (step, written) in self._prompts.items():
            read = _tokens(model, prompt) if known else -(-len(prompt) // _CHARACTERS_PER_TOKEN)
            call = Tally(1, read, written, price(model, read, written))
            steps[step] = steps.get(step, Tally()) + call
        return steps


def _tokens(model: str, prompt: str) -> int:
    import litellm

    return int(litellm.token_counter(model=model, text=prompt))
