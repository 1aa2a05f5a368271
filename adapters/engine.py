"""The routed student as an engine of ``dspy.LM``: in process, batched, constrained."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self, get_args

from dspy.lm15 import Message, Request, Response, Usage, response_to_events

import routedk
from routedk.adapters.batcher import Batcher
from routedk.adapters.examples import (
    DEFAULT_FORM,
    ROLES,
    THOUGHT_FIRST,
    Writes,
    written_by,
)
from routedk.adapters.generation import Completion, Generator, Sampling
from routedk.adapters.likelihoods import Scored, ScoringJob
from routedk.adapters.prompts import EncodedPrompt, encode_prompt
from routedk.adapters.routed import ROUTING_FILE, RoutedStudent, read_routing
from routedk.adapters.student import DEFAULT_STUDENT, Student, load_student
from routedk.errors import ArtifactError, SettingError
from routedk.programs.item_intents import render_readings, split_labels
from routedk.programs.layout import THOUGHT_PREFIX
from routedk.programs.reading import session_lines

if TYPE_CHECKING:
    import dspy

_FREE_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Job:
    """One answer to be written.

    Args:
        prompt: The prompt as tokens.
        items: Item lines of its session; none where it holds no session: then any text is an
            answer.
        max_tokens: New tokens at most, where any text is an answer.
        sampling: How tokens are drawn.
    """

    prompt: EncodedPrompt
    items: tuple[str, ...]
    max_tokens: int
    sampling: Sampling

    @property
    def kind(self) -> Hashable:
        """Jobs of equal kind share a batch; a seeded draw stands alone."""
        alone = id(self) if self.sampling.seed is not None else None
        return (bool(self.items), self.sampling, alone)


class _Unsaved:
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


class StudentEngine(_Unsaved):
    """Serves a student, routed or plain, to DSPy.

    Args:
        student: A routed student, or one as it is.
        form: What a prompt with a session is answered with: ``bundles`` (lines of numbers and
            intents), ``thought, then bundles`` (the same, a thought may stand before them) or
            ``item-intents`` (a thought that names each item's intent, from which the parser
            composes the bundles).
        readings: Readings of each item in an ``item-intents`` answer, the likeliest first: what
            the student goes on to write after each of its likeliest first tokens. A sampled
            answer has one.
        max_batch: Most requests computed together.

    Raises:
        SettingError: There is no such form, or less than one reading.
    """

    def __init__(
        self,
        student: RoutedStudent | Student,
        *,
        form: Writes = "bundles",
        readings: int = 3,
        max_batch: int = 16,
    ) -> None:
        if form not in get_args(Writes):
            raise SettingError(f"answer form {form!r}: allowed are {get_args(Writes)}")
        if readings < 1:
            raise SettingError(f"readings={readings}: at least 1")
        self.form = form
        self.readings = readings
        self.generator = Generator(student)
        self._batcher: Batcher[Job | ScoringJob, Any] = Batcher(
            self.run, lambda job: job.kind, max_batch=max_batch
        )

    def complete(self, request: Request) -> Response:
        """Answer one request; blocks until its batch is done."""
        job, future = self.submit(request)
        return respond(request, job, future.result())

    def stream(self, request: Request) -> Iterator[Any]:
        """The answer as events, all at once."""
        yield from response_to_events(self.complete(request))

    def submit(self, request: Request) -> tuple[Job, "Future[Completion]"]:
        """Queue one request without waiting for it."""
        messages = _messages(request)
        config = request.config
        lines = session_lines(messages[-1]["content"])
        job = Job(
            prompt=encode_prompt(self.generator.tokenizer, messages),
            items=tuple(lines.split("\n")) if lines else (),
            max_tokens=config.max_tokens or _FREE_TOKENS,
            sampling=Sampling(
                temperature=config.temperature or 0.0,
                top_p=1.0 if config.top_p is None else config.top_p,
                seed=config.seed,
            ),
        )
        return job, self._batcher.submit(job)

    def score(self, job: ScoringJob) -> "Future[Scored]":
        """Queue completions whose likelihood is asked for."""
        return self._batcher.submit(job)

    def close(self) -> None:
        """Finish what is queued and stop."""
        self._batcher.close()

    def run(self, jobs: Sequence[Job | ScoringJob]) -> list[Any]:
        """Answer jobs of one kind as one batch.

        Args:
            jobs: At least one, all of the same kind.
        """
        scoring = [job for job in jobs if isinstance(job, ScoringJob)]
        if scoring:
            return self.generator.score(scoring)
        return self._write([job for job in jobs if isinstance(job, Job)])

    def _write(self, jobs: Sequence[Job]) -> list[Completion]:
        prompts, first = [job.prompt for job in jobs], jobs[0]
        if not first.items:
            limits = [job.max_tokens for job in jobs]
            return self.generator.complete(prompts, [None] * len(jobs), limits, first.sampling)
        items = [job.items for job in jobs]
        if self.form != "item-intents":
            thinks = self.form == THOUGHT_FIRST
            sizes = list(map(len, items))
            return self.generator.bundles(prompts, sizes, first.sampling, thinks=thinks)
        readings = self.readings if first.sampling.temperature <= 0 else 1
        found = self.generator.item_lines(prompts, items, first.sampling, readings)
        return [_thought(lines) for lines in found]


class AsyncStudentEngine(_Unsaved):
    """The same engine for ``dspy.LM.acall``: no thread waits while a batch is computed."""

    def __init__(self, engine: StudentEngine) -> None:
        self.engine = engine

    async def complete(self, request: Request) -> Response:
        """Answer one request."""
        job, future = self.engine.submit(request)
        return respond(request, job, await asyncio.wrap_future(future))

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """The answer as events, all at once."""
        for event in response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """Finish what is queued and stop."""
        await asyncio.to_thread(self.engine.close)


def respond(request: Request, job: Job, completion: Completion) -> Response:
    """A completion as DSPy's response."""
    return Response(
        id=None,
        model=request.model,
        message=Message.assistant(completion.text),
        finish_reason="stop" if completion.finished else "length",
        usage=Usage(input_tokens=len(job.prompt.ids), output_tokens=completion.tokens),
    )


def _thought(lines: Sequence[Sequence[Completion]]) -> Completion:
    readings = [[split_labels(reading.text) for reading in mine] for mine in lines]
    written = [reading for mine in lines for reading in mine]
    return Completion(
        f"{THOUGHT_PREFIX} {render_readings(readings)}",
        sum(reading.tokens for reading in written),
        # A less likely reading that was cut short cuts nothing off the answer.
        all(mine[0].finished for mine in lines),
    )


def _messages(request: Request) -> list[dict[str, str]]:
    messages = []
    if request.system is not None:
        system = request.system
        text = system if isinstance(system, str) else "".join(part.text for part in system)
        messages.append({"role": "system", "content": text})
    return messages + [{"role": m.role, "content": m.text or ""} for m in request.messages]


def engine_lm(engine: StudentEngine) -> "dspy.LM":
    """A ``dspy.LM`` over an engine, named by what it would answer with.

    DSPy's cache knows a model by its name alone, so the name holds a hash of weights, precision,
    routing, answer form and this package's version.
    """
    import dspy

    generator = engine.generator
    model = (generator.base.fingerprint, str(generator.base.model.dtype))
    what = (*model, engine.form, str(engine.readings), routedk.__version__)
    digest = hashlib.sha256(":".join(what).encode())
    if generator.routed is not None:
        digest.update(generator.routed.fingerprint().encode())
    name = f"local/routedk-{digest.hexdigest()[:16]}"
    return dspy.LM(name, engine=engine, async_engine=AsyncStudentEngine(engine), temperature=0.0)


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
    if form not in ROLES:
        raise ArtifactError(
            f"{experts / ROUTING_FILE}: answer form {form!r}, this version knows {', '.join(ROLES)}"
        )
    return written_by(document["experts"], form)
