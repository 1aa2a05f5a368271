"""What is asked of the student's engine, and its answers, in DSPy's terms and its own."""

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, Self

from dspy.lm15 import Message, Request, Response, Usage
from dspy.utils.exceptions import ContextWindowExceededError

from routedk.adapters.engine.generation import Completion, Sampling
from routedk.adapters.prompts import EncodedPrompt
from routedk.errors import RouteDKError, SettingError
from routedk.programs.prompting.item_intents import render_candidates, split_intents
from routedk.programs.prompting.layout import THOUGHT_PREFIX

FREE_TOKENS = 256
# Divided by less, scores leave the range of floats; the likeliest token has it all long before.
_COLDEST = 1e-3


class PromptLengthError(RouteDKError, ContextWindowExceededError):  # type: ignore[misc]
    """A prompt fills the student's context window.

    It is DSPy's error of that kind, too, which modules that can shorten their prompts catch.

    Args:
        tokens: Of the prompt.
        window: As many tokens as the student was made for.
    """

    def __init__(self, tokens: int, window: int) -> None:
        ContextWindowExceededError.__init__(
            self,
            message=f"a prompt of {tokens} tokens, and the student's context window has {window}: "
            "shorten it, for example by fewer rules or neighbours",
        )
        self.tokens, self.window = tokens, window

    # DSPy's errors can be neither copied nor sent to another process: they take keywords alone.
    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.tokens, self.window)


@dataclass(frozen=True, eq=False)
class Job:
    """One answer to be written.

    Args:
        prompt: The prompt as tokens.
        items: Item lines of its session; none where it holds no session: then any text is an
            answer.
        max_tokens: New tokens at most, where any text is an answer.
        sampling: How tokens are drawn.
        alone: It shares its batch with no other job.
        more: Further completions of the same request, written in the same batch.
        told: Gets the text so far, from the engine's thread, as it is written.
        given_up: Set by a caller that does not wait any more.
    """

    prompt: EncodedPrompt
    items: tuple[str, ...]
    max_tokens: int
    sampling: Sampling
    alone: bool = False
    more: "tuple[Job, ...]" = ()
    told: Callable[[str], None] | None = None
    given_up: threading.Event = field(default_factory=threading.Event)

    @property
    def kind(self) -> Hashable:
        """Jobs of equal kind share a batch."""
        return (bool(self.items), id(self) if self.alone else None)

    @property
    def all(self) -> "tuple[Job, ...]":
        """It and what is written with it."""
        return (self, *self.more)

    def again(self, draw: int) -> "Job":
        """The same question, for another completion of the same request."""
        sampling = replace(self.sampling, draw=draw)
        return replace(self, sampling=sampling, told=None, given_up=threading.Event())


def apart(together: "Future[Sequence[Completion]]", count: int) -> "list[Future[Completion]]":
    """A future for each of the completions of one; once all are cancelled, so is it."""
    parts: list[Future[Completion]] = [Future() for _ in range(count)]

    def given_up(part: "Future[Completion]") -> None:
        if all(part.cancelled() for part in parts):
            together.cancel()

    def done(_: "Future[Sequence[Completion]]") -> None:
        if together.cancelled():
            for part in parts:
                part.cancel()
            return
        error = together.exception()
        found = [None] * count if error else together.result()
        for part, completion in zip(parts, found, strict=True):
            if part.set_running_or_notify_cancel():
                if completion is None:
                    part.set_exception(error)
                else:
                    part.set_result(completion)

    for part in parts:
        part.add_done_callback(given_up)
    together.add_done_callback(done)
    return parts


class Unsaved:
    """What DSPy needs of an engine to copy and save a program: nothing of the model goes along."""

    supports_response_schema = False
    supported_params = frozenset({"max_tokens", "temperature", "top_p", "seed", "n"})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a program share the model."""
        return self

    def dump_state(self) -> dict[str, Any]:
        """Nothing of the model is written into a program."""
        return {}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> NoReturn:
        """A saved program does not know its student.

        Raises:
            SettingError: Always; it says what to do.
        """
        raise SettingError(
            "the student is not saved with a program: load the program without its LM and run it "
            "under dspy.context(lm=student_lm(...))"
        )


def sampling_of(request: Request, draw: int) -> Sampling:
    """How the tokens of one completion of a request are drawn."""
    config = request.config
    temperature = config.temperature or 0.0
    return Sampling(
        temperature=temperature if temperature > _COLDEST else 0.0,
        top_p=1.0 if config.top_p is None else config.top_p,
        seed=config.seed,
        draw=draw,
    )


def messages_of(request: Request) -> list[dict[str, str]]:
    """The chat messages of a request, the system's first."""
    messages = []
    if request.system is not None:
        system = request.system
        text = system if isinstance(system, str) else "".join(part.text for part in system)
        messages.append({"role": "system", "content": text})
    return messages + [{"role": m.role, "content": m.text or ""} for m in request.messages]


def respond(request: Request, job: Job, completion: Completion) -> Response:
    """A completion as DSPy's response; of n completions the first counts the prompt."""
    return Response(
        id=None,
        model=request.model,
        message=Message.assistant(completion.text),
        finish_reason="stop" if completion.finished else "length",
        usage=Usage(
            input_tokens=0 if job.sampling.draw else len(job.prompt.ids),
            output_tokens=completion.tokens,
        ),
    )


def thought_of(lines: Sequence[Sequence[Completion]]) -> Completion:
    """The readings of each item as one answer."""
    readings = [[split_intents(reading.text) for reading in mine] for mine in lines]
    written = [reading for mine in lines for reading in mine]
    return Completion(
        f"{THOUGHT_PREFIX} {render_candidates(readings)}",
        sum(reading.tokens for reading in written),
        # An intent that is cut at its limit is an intent, and more tokens would not be given.
        True,
    )


def told_lines(
    told: Callable[[str], None] | None,
) -> Callable[[list[list[Completion]]], None] | None:
    """What tells of an answer's first lines as of text; None where nobody is told."""
    return None if told is None else lambda lines: told(thought_of(lines).text)
