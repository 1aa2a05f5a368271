"""The routed student as an engine of ``dspy.LM``: in process, batched, constrained."""

import asyncio
import hashlib
import queue
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from dspy.lm15 import Request, Response

from routedk import __version__
from routedk.adapters.engine.batcher import Batcher
from routedk.adapters.engine.draws import AnnounceDraws, current_draws
from routedk.adapters.engine.generation import Completion, Generator, Watch
from routedk.adapters.engine.likelihoods import Continuation, Scored, ScoringJob, scoring_job
from routedk.adapters.engine.prefixes import DEFAULT_BYTES, PrefixCache
from routedk.adapters.engine.requests import (
    FREE_TOKENS,
    Job,
    PromptLengthError,
    Unsaved,
    apart,
    messages_of,
    respond,
    sampling_of,
    thought_of,
    told_lines,
)
from routedk.adapters.engine.streaming import TextStream
from routedk.adapters.experts.routed import RoutedStudent, read_routing
from routedk.adapters.prompts import EncodedPrompt, encode_prompt
from routedk.adapters.student import DEFAULT_STUDENT, Student, load_student
from routedk.adapters.training.examples import (
    DEFAULT_FORM,
    THOUGHT_FIRST,
    Writes,
    written_by,
)
from routedk.adapters.training.verdicts import VerifierError
from routedk.errors import SettingError
from routedk.programs.intent_overlap import LineScores
from routedk.programs.prompting.layout import Message
from routedk.programs.prompting.reading import session_lines

if TYPE_CHECKING:
    import dspy


class StudentEngine(Unsaved):
    """Serves a student, routed or plain, to DSPy.

    Callers of many threads and event loops share one worker, which runs what they ask for as
    batches. The n completions of one request, and requests of one prompt that meet in a batch,
    share one computation of the prompt; it is kept for further requests of that prompt, and so is
    what prompts have in common before their sessions. A caller that gives up (a cancelled task, a
    stream no longer read) has nothing more computed for it.

    A seeded draw is the same in every batch. In lower precision than float32, where scores
    depend on the batch, the draws of one request are a batch of their own; there one may depend
    on how many they are.

    Args:
        student: A routed student, or one as it is.
        form: What a prompt with a session is answered with: ``bundles`` (lines of numbers and
            intents), ``thought, then bundles`` (the same, a thought may stand before them) or
            ``item-intents`` (a thought that names each item's intent, from which the parser
            composes the bundles). With ``verification`` it is not answered, only judged, see
            `routedk.adapters.engine.judges`.
        readings: Readings of each item in an ``item-intents`` answer, the likeliest first: what
            the student goes on to write after each of its likeliest first tokens. A sampled
            answer has one.
        max_batch: Most requests computed together.
        max_queue: Most requests that wait. Further ones wait for room: threads are blocked,
            tasks suspended.
        prefix_bytes: Most memory of keys and values kept from request to request.

    Raises:
        SettingError: There is no such form, or a number is not allowed.
    """

    # Asked for n completions, it computes them together: worth one request instead of n.
    draws_together = True

    def __init__(
        self,
        student: RoutedStudent | Student,
        *,
        form: Writes = "bundles",
        readings: int = 3,
        max_batch: int = 16,
        max_queue: int = 1024,
        prefix_bytes: int = DEFAULT_BYTES,
    ) -> None:
        if form not in get_args(Writes):
            raise SettingError(f"answer form {form!r}: allowed are {get_args(Writes)}")
        if readings < 1:
            raise SettingError(f"readings={readings}: at least 1")
        self.form = form
        self.readings = readings
        self.generator = Generator(student, PrefixCache(prefix_bytes))
        config = self.generator.base.model.config
        self._window: int = getattr(config, "max_position_embeddings", None) or sys.maxsize
        self._max_batch = max_batch
        self._batcher: Batcher[Job | ScoringJob, Any] = Batcher(
            self.run,
            lambda job: job.kind,
            size=lambda job: len(job.prompt.ids),
            max_batch=max_batch,
            max_queue=max_queue,
        )

    def complete(self, request: Request) -> Response:
        """Answer one request; blocks until its batch is done."""
        job, future = self._ask(request)
        with _wanted(job, future):
            return respond(request, job, future.result())

    def stream(self, request: Request) -> Iterator[Any]:
        """The answer as events, text as it is written.

        Answers of bundles and free text come token by token. The lines of an ``item-intents``
        answer are written side by side: an item's entry comes as soon as it and all before it
        are whole.
        """
        pieces: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        job, future = self._ask(request, pieces.put)
        with _wanted(job, future):
            future.add_done_callback(lambda _: pieces.put(None))
            text = TextStream(request.model)
            yield text.start()
            while (piece := pieces.get()) is not None:
                yield from text.grow(piece)
            yield from text.end(respond(request, job, future.result()))

    def job(
        self, request: Request, told: Callable[[str], None] | None = None, draw: int = 0
    ) -> Job:
        """What one request asks for.

        Args:
            request: As DSPy makes it.
            told: Gets the text so far, from the engine's thread, as it is written.
            draw: Which of several completions of the request it is.
        """
        messages = messages_of(request)
        config = request.config
        items = _items_of(messages)
        if items and self.form == "verification":
            raise VerifierError
        prompt, room = self._encode(messages)
        return Job(
            prompt=prompt,
            items=items,
            max_tokens=min(config.max_tokens or FREE_TOKENS, room),
            sampling=sampling_of(request, draw),
            alone=config.seed is not None and not self.generator.known.exact,
            told=told,
        )

    def submit(self, job: Job) -> "list[Future[Completion]]":
        """Queue a job without waiting for its answers; blocks while the queue is full."""
        return apart(self._batcher.submit(job), len(job.all))

    async def asubmit(self, job: Job) -> "list[Future[Completion]]":
        """As `submit`, but a full queue suspends the task and not its event loop."""
        return apart(await self._batcher.asubmit(job), len(job.all))

    def score(
        self, messages: Sequence[Message], continuations: Sequence[Continuation]
    ) -> "Future[Scored]":
        """Queue completions of one prompt, at least one, whose likelihood is asked for."""
        prompt, _ = self._encode(messages)
        return self._batcher.submit(scoring_job(self.generator.tokenizer, prompt, continuations))

    def score_lines(
        self, messages: Sequence[Message], lines: Sequence[str], texts: Sequence[str]
    ) -> LineScores:
        """See `routedk.programs.intent_overlap.LineScorer`."""
        wanted = [Continuation(f" {text}", f"{line} |") for line in lines for text in texts]
        found = self.score(messages, wanted).result()
        totals = np.array([one.total for one in found.likelihoods])
        return LineScores(totals.reshape(len(lines), len(texts)), found.tokens)

    def _encode(self, messages: Sequence[Message]) -> tuple[EncodedPrompt, int]:
        """A prompt, and how many tokens the context window has beyond it, at least one."""
        prompt = encode_prompt(self.generator.tokenizer, messages, _items_of(messages))
        if len(prompt.ids) >= self._window:
            raise PromptLengthError(len(prompt.ids), self._window)
        return prompt, self._window - len(prompt.ids)

    def prompt_tokens(self, messages: Sequence[Message]) -> int:
        """Tokens of a prompt with these messages, those of the chat template included."""
        return len(encode_prompt(self.generator.tokenizer, messages).ids)

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._batcher.close()

    def jobs(self, request: Request, told: Callable[[str], None] | None = None) -> list[Job]:
        """What is to be queued for a request: all its completions when the first is asked for.

        Args:
            request: As DSPy makes it.
            told: Gets the first one's text so far, from the engine's thread.
        """
        draws = current_draws()
        first = self.job(request, told, draws.given)
        more = range(draws.given + 1, draws.n)
        draws.given = max(draws.given + 1, draws.n)
        drawn = [first, *map(first.again, more)]
        if not first.alone:
            return drawn
        chunks = [drawn[k : k + self._max_batch] for k in range(0, len(drawn), self._max_batch)]
        return [replace(chunk[0], more=tuple(chunk[1:])) for chunk in chunks]

    def _ask(
        self, request: Request, told: Callable[[str], None] | None = None
    ) -> "tuple[Job, Future[Completion]]":
        waiting = current_draws().waiting
        if not waiting:
            for job in self.jobs(request, told):
                waiting.extend(zip(job.all, self.submit(job), strict=True))
        return waiting.popleft()

    def run(self, jobs: Sequence[Job | ScoringJob]) -> list[Any]:
        """Answer jobs of one kind as one batch.

        Args:
            jobs: At least one, all of the same kind.

        Returns:
            For each job what it asks for: a `Scored`, or the completions of `Job.all`.
        """
        scoring = [job for job in jobs if isinstance(job, ScoringJob)]
        if scoring:
            return self.generator.score(scoring)
        writing = [job for job in jobs if isinstance(job, Job)]
        written = iter(self._write([one for job in writing for one in job.all]))
        return [[next(written) for _ in job.all] for job in writing]

    def _write(self, jobs: Sequence[Job]) -> list[Completion]:
        prompts = [job.prompt for job in jobs]
        samplings = [job.sampling for job in jobs]
        items = [job.items for job in jobs]
        watches = [Watch(job.told, job.given_up.is_set) for job in jobs]
        if not jobs[0].items:
            limits = [job.max_tokens for job in jobs]
            free = [None] * len(jobs)
            return self.generator.complete(prompts, free, limits, samplings, watches=watches)
        if self.form != "item-intents":
            thinks = self.form == THOUGHT_FIRST
            sizes = list(map(len, items))
            return self.generator.bundles(prompts, sizes, samplings, thinks=thinks, watches=watches)
        readings = [1 if sampling.temperature > 0 else self.readings for sampling in samplings]
        lines = [Watch(told_lines(job.told), job.given_up.is_set) for job in jobs]
        found = self.generator.item_lines(prompts, items, samplings, readings, watches=lines)
        return [thought_of(mine) for mine in found]


class AsyncStudentEngine(Unsaved):
    """The same engine for ``dspy.LM.acall``: no thread waits while a batch is computed.

    Where the engine's queue is full, a request's task is suspended until there is room.
    """

    draws_together = True

    def __init__(self, engine: StudentEngine) -> None:
        self.engine = engine

    async def complete(self, request: Request) -> Response:
        """Answer one request."""
        job, future = await self._ask(request)
        with _wanted(job, future):
            return respond(request, job, await asyncio.wrap_future(future))

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """The answer as events, as `StudentEngine.stream` gives them."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def put(piece: str | None) -> None:
            # The engine's thread must not fail for a caller whose loop is closed.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(pieces.put_nowait, piece)

        job, future = await self._ask(request, put)
        with _wanted(job, future):
            future.add_done_callback(lambda _: put(None))
            text = TextStream(request.model)
            yield text.start()
            while (piece := await pieces.get()) is not None:
                for event in text.grow(piece):
                    yield event
            for event in text.end(respond(request, job, future.result())):
                yield event

    async def aclose(self) -> None:
        """Finish what is queued and stop."""
        await asyncio.to_thread(self.engine.close)

    async def _ask(
        self, request: Request, told: Callable[[str], None] | None = None
    ) -> "tuple[Job, Future[Completion]]":
        waiting = current_draws().waiting
        if not waiting:
            for job in self.engine.jobs(request, told):
                waiting.extend(zip(job.all, await self.engine.asubmit(job), strict=True))
        return waiting.popleft()


def _items_of(messages: Sequence[Message]) -> tuple[str, ...]:
    lines = session_lines(messages[-1]["content"])
    return tuple(lines.split("\n")) if lines else ()


@contextmanager
def _wanted(job: Job, future: "Future[Completion]") -> Iterator[None]:
    """Give a job up where its caller leaves before the answer is there."""
    try:
        yield
    except BaseException:
        job.given_up.set()
        future.cancel()
        raise


def engine_lm(engine: StudentEngine) -> "dspy.LM":
    """A ``dspy.LM`` over an engine, named by what it would answer with.

    DSPy's cache knows a model by its name alone, so the name holds a hash of weights, precision,
    routing, answer form and code: what other code answered is not this one's answer.
    """
    import dspy

    generator = engine.generator
    model = (generator.base.fingerprint, str(generator.base.model.dtype))
    what = (*model, engine.form, str(engine.readings), __version__)
    digest = hashlib.sha256(":".join(what).encode())
    if generator.routed is not None:
        digest.update(generator.routed.fingerprint().encode())
    name = f"local/routedk-{digest.hexdigest()[:16]}"
    return dspy.LM(
        name,
        engine=engine,
        async_engine=AsyncStudentEngine(engine),
        callbacks=[AnnounceDraws()],
        temperature=0.0,
    )


def student_lm(
    experts: str | Path | None = None,
    student: str | None = None,
    *,
    fusion: str | None = None,
    form: Writes | None = None,
    dtype: str | None = None,
    max_batch: int = 16,
) -> "dspy.LM":
    """The student as a ``dspy.LM``, in this process.

    Args:
        experts: Folder of trained experts; None for the student as it is.
        student: Folder or name of the base; by default the one the experts were trained on, or
            the embedded student.
        fusion: Another fusion than the one saved with the experts.
        form: Another answer form than the one the experts were trained to write, which
            ``routing.json`` says.
        dtype: Of the student's weights and products, see `load_student`.
        max_batch: Most requests computed together.
    """
    if experts is None:
        base = load_student(student or DEFAULT_STUDENT, dtype=dtype)
        return engine_lm(StudentEngine(base, form=form or "bundles", max_batch=max_batch))
    loaded = load_student(student, dtype=dtype) if student else None
    routed = RoutedStudent.load(experts, fusion=fusion, student=loaded, dtype=dtype)
    form = form or _form_of(Path(experts))
    return engine_lm(StudentEngine(routed, form=form, max_batch=max_batch))


def _form_of(experts: Path) -> Writes:
    document = read_routing(experts)
    form = (document.get("training") or {}).get("answer_form", DEFAULT_FORM)
    return written_by(document["experts"], form)
