"""Log-likelihoods that a student in this process gives to completions of a prompt."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from routedk.adapters.engine.engine import StudentEngine
from routedk.adapters.engine.likelihoods import Continuation, Likelihood, Scored
from routedk.errors import SettingError
from routedk.programs.prompting.layout import Message

if TYPE_CHECKING:
    import dspy

__all__ = ["Continuation", "Likelihood", "Scored", "Scorer", "scorer_of"]


@dataclass(frozen=True, slots=True)
class Scorer:
    """Scores completions with a student, under the gates of each prompt's session.

    Calls of many threads run as batches of the engine's one worker, between its answers.

    Args:
        engine: Of the student.
    """

    engine: StudentEngine

    def __call__(
        self, messages: Sequence[Message], continuations: Sequence[Continuation]
    ) -> Scored:
        """Score completions of one prompt, which is computed once for all of them.

        Args:
            messages: The chat messages before the completions.
            continuations: The completions; the same one twice is allowed.

        Returns:
            Their likelihoods in their order, and the tokens that were read.
        """
        return self.many([(messages, continuations)])[0]

    def many(
        self, requests: Sequence[tuple[Sequence[Message], Sequence[Continuation]]]
    ) -> list[Scored]:
        """Score completions of several prompts as one batch; one result per request."""
        futures = [
            self.engine.score(messages, wanted) if wanted else None for messages, wanted in requests
        ]
        return [Scored((), 0) if future is None else future.result() for future in futures]


def scorer_of(lm: "dspy.LM") -> Scorer:
    """The scorer of a student that is a ``dspy.LM``.

    Args:
        lm: What `student_lm` or `engine_lm` made.

    Raises:
        SettingError: It is another language model, which tells no likelihoods.
    """
    engine: Any = getattr(lm, "engine", None)
    if not isinstance(engine, StudentEngine):
        raise SettingError(
            f"the language model {getattr(lm, 'model', lm)!r} tells no likelihoods of given text: "
            "use a student in this process, made by routedk.adapters.student_lm or engine_lm"
        )
    return Scorer(engine)
