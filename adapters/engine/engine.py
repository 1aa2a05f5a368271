"""The student as an engine of ``dspy.LM``, in this process."""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self, get_args

import dspy
from dspy.lm15 import Message, Request, Response, Usage, response_to_events
from dspy.utils.exceptions import ContextWindowExceededError

from routedk.adapters.engine.batcher import Batcher
from routedk.adapters.engine.generator import Generator
from routedk.adapters.engine.grammar import BundleList, ItemIntent
from routedk.adapters.engine.writing import Branch, Writing
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import GROUPING_FOLDER
from routedk.adapters.prompts import EncodedPrompt, encode_prompt
from routedk.adapters.student import DEFAULT_STUDENT, Student, chosen_student, load_student
from routedk.adapters.training import examples
from routedk.errors import SettingError
from routedk.programs.default_lm import STUDENT
from routedk.programs.grouping.protocol import Grouping
from routedk.programs.prompting import layout, naming
from routedk.programs.prompting.asked import asked_now
from routedk.programs.prompting.item_intents import render_item_intents, split_intents

_FREE_TOKENS = 256
_WHY_CHARACTERS = 160
# In a script that a tokenizer does not know, each byte of UTF-8 is a token.
_TOKENS_PER_CHARACTER = 4
_TOKENS_PER_ITEM = 8


class _Engine:
    """What engines of the student have in common."""

    supports_response_schema = False
    supported_params = frozenset({"max_tokens", "temperature", "top_p", "seed", "n"})

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copies of a program share the model."""
        return self


class StudentLM(dspy.LM):  # type: ignore[misc]  # DSPy is untyped here
    """A ``dspy.LM`` of a student in this process; a saved program holds only its name."""

    def dump_state(self) -> dict[str, Any]:
        """The state of an LM that cannot be called, see `routedk.programs.default_lm.lm_of`."""
        state: dict[str, Any] = dspy.LM(self.model, cache=False).dump_state()
        return state

    def __reduce__(self) -> tuple[Any, ...]:
        """A pickled program holds the same."""
        return dspy.LM, (self.model,)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copies of a program ask the same student."""
        return self.copy()


class StudentEngine(_Engine):
    """Serves a student, routed or plain, to DSPy.

    Callers on many threads and event loops share one worker, which runs their requests in batches.
    Requests in a batch that have the same prompt share one computation of it. For a canceled
    caller, nothing more is computed.

    Args:
        student: A routed student, or a plain one.
        form: How a request for the bundles of a session is answered: ``bundles`` (lines of
            numbers and intents), ``thought, then bundles`` (the same, optionally preceded by a
            thought) or ``item-intents`` (a thought that names each item's intents). A student
            trained for ``bundle-intent`` should only be asked for the intents of bundles. Every
            student answers such requests.
        grouping: Groups items for programs without a grouping of their own.
        max_batch: Maximum requests computed together.
        max_queue: Maximum requests in progress. Further ones wait: threads are blocked, tasks
            suspended.

    Raises:
        SettingError: There is no such form, or a number is not allowed.
    """

    def __init__(
        self,
        student: RoutedStudent | Student,
        *,
        form: examples.Writes = "bundles",
        grouping: Grouping | None = None,
        max_batch: int = 16,
        max_queue: int = 1024,
    ) -> None:
        if form not in get_args(examples.Writes):
            raise SettingError(f"answer form {form!r}: allowed are {get_args(examples.Writes)}")
        self.form = form
        self.grouping = grouping
        self.generator = Generator(student)
        self.batcher = Batcher(self.generator.write, max_batch, max_queue)
        config = self.generator.base.model.config
        self._window: int = getattr(config, "max_position_embeddings", None) or sys.maxsize

    def complete(self, request: Request) -> Response:
        """Answer one request; blocks until its batch is done."""
        job = self.job(request)
        try:
            return self.respond(request, job, self.batcher.submit(job).result())
        finally:
            job.future.cancel()

    def stream(self, request: Request) -> Iterator[Any]:
        """The finished answer as DSPy events."""
        yield from response_to_events(self.complete(request))

    def job(self, request: Request) -> Writing:
        """Make the `Writing` for a request, about the items currently asked about."""
        config, asked = request.config, asked_now()
        prompt = self._encode(_messages_of(request), asked.lines)
        room = self._window - len(prompt.ids)
        job = Writing(
            prompt=prompt,
            limit=min(config.max_tokens or _FREE_TOKENS, room),
            temperature=config.temperature or 0.0,
            top_p=1.0 if config.top_p is None else config.top_p,
            seed=config.seed,
        )
        if not asked.lines:
            return job
        begun = asked.heads
        if not begun and self.form == "item-intents":
            begun = tuple(f"{line} |" for line in asked.lines)
        if begun:
            encode = partial(examples.encode_head, self.generator.tokenizer)
            grammar = ItemIntent(_WHY_CHARACTERS) if naming.WHY_HEAD in begun else ItemIntent()
            limit = min(_TOKENS_PER_CHARACTER * grammar.most, room)
            return replace(job, heads=tuple(map(encode, begun)), grammar=grammar, limit=limit)
        count = len(asked.lines)
        listed = BundleList(count, thinks=self.form == examples.THOUGHT_FIRST)
        return replace(job, grammar=listed, limit=_TOKENS_PER_ITEM * (count + 2))

    def respond(self, request: Request, job: Writing, written: list[Branch]) -> Response:
        """Turn what was written for a request into DSPy's response."""
        if heads := asked_now().heads:
            named = zip(heads, written, strict=True)
            text = "\n".join(f"{head} {branch.text.strip()}" for head, branch in named)
        elif isinstance(job.grammar, ItemIntent):
            intents = [split_intents(branch.text) for branch in written]
            text = f"{layout.THOUGHT_PREFIX} {render_item_intents(intents)}"
        else:
            text = self.generator.tokenizer.decode(
                written[0].tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        tokens = sum(len(branch.tokens) for branch in written)
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(text),
            finish_reason="stop" if job.grammar or written[0].ended else "length",
            usage=Usage(input_tokens=len(job.prompt.ids), output_tokens=tokens),
        )

    def prompt_tokens(self, messages: Sequence[layout.Message]) -> int:
        """Number of tokens in a prompt with these messages, the chat template included."""
        return len(encode_prompt(self.generator.tokenizer, messages).ids)

    def close(self) -> None:
        """Finish what is queued and stop."""
        self.batcher.close()

    def _encode(self, messages: Sequence[layout.Message], items: Sequence[str]) -> EncodedPrompt:
        """Encode a prompt; it must leave room for an answer in the context window."""
        prompt = encode_prompt(self.generator.tokenizer, messages, items)
        if len(prompt.ids) >= self._window:
            raise ContextWindowExceededError(
                message=f"a prompt of {len(prompt.ids)} tokens, and the student's context window "
                f"has {self._window}: shorten it, for example by fewer rules or neighbours"
            )
        return prompt


class AsyncStudentEngine(_Engine):
    """The same engine for ``dspy.LM.acall``: no thread waits while a batch is computed."""

    def __init__(self, engine: StudentEngine) -> None:
        self.engine = engine

    async def complete(self, request: Request) -> Response:
        """Answer one request."""
        job = self.engine.job(request)
        future = await self.engine.batcher.submit_async(job)
        return self.engine.respond(request, job, await asyncio.wrap_future(future))

    async def stream(self, request: Request) -> AsyncIterator[Any]:
        """The finished answer as DSPy events."""
        for event in response_to_events(await self.complete(request)):
            yield event

    async def aclose(self) -> None:
        """Finish what is queued and stop."""
        await asyncio.to_thread(self.engine.close)


def _messages_of(request: Request) -> list[layout.Message]:
    """The chat messages of a request, the system message first."""
    system = request.system or ""
    text = system if isinstance(system, str) else "".join(part.text for part in system)
    first = [] if request.system is None else [{"role": "system", "content": text}]
    return first + [{"role": m.role, "content": m.text or ""} for m in request.messages]


def engine_lm(engine: StudentEngine) -> dspy.LM:
    """Make a ``dspy.LM`` over an engine, with DSPy's cache off.

    Its name holds a hash of weights, precision, routing, answer form and grouping: everything that
    an answer depends on besides the request.
    """
    base, routed = engine.generator.base, engine.generator.routed
    routing = "" if routed is None else routed.fingerprint()
    grouping = "" if engine.grouping is None else engine.grouping.fingerprint()
    what = (base.fingerprint, base.model.dtype, engine.form, routing, grouping)
    digest = hashlib.sha256(":".join(map(str, what)).encode()).hexdigest()
    return StudentLM(
        f"{STUDENT}{digest[:16]}",
        engine=engine,
        async_engine=AsyncStudentEngine(engine),
        temperature=0.0,
        cache=False,
    )


def student_lm(
    experts: str | Path | None = None,
    student: str | None = None,
    *,
    fusion: str | None = None,
    form: examples.Writes | None = None,
    grouping: Grouping | None = None,
    dtype: str | None = None,
    max_batch: int = 16,
    max_queue: int = 1024,
) -> dspy.LM:
    """Load the student as a ``dspy.LM`` in this process.

    Args:
        experts: Folder of trained experts; None for the student without experts.
        student: Folder or name of the base; None or ``default``: the one that the experts were
            trained on, or without experts the embedded student.
        fusion: A fusion other than the one saved with the experts.
        form: An answer form other than the one the experts were trained to write, which
            ``routing.json`` states.
        grouping: A grouping other than the one saved with experts that name bundles.
        dtype: Precision of the student's weights and products, see `load_student`.
        max_batch: Maximum requests computed together.
        max_queue: Maximum requests in progress, see `StudentEngine`.
    """
    loaded: RoutedStudent | Student
    student = chosen_student(student)
    if experts is None:
        loaded = load_student(student or DEFAULT_STUDENT, dtype=dtype)
    else:
        base = load_student(student, dtype=dtype) if student else None
        loaded = RoutedStudent.load(experts, fusion=fusion, student=base, dtype=dtype)
        trained = loaded.training.get("answer_form", examples.FORMER_FORM)
        form = form or examples.written_by(loaded.settings.experts, trained)
        folder = Path(experts) / GROUPING_FOLDER
        if grouping is None and form == "bundle-intent" and folder.is_dir():
            from routedk.programs.grouping.encoder import EncoderGrouping

            grouping = EncoderGrouping.load(folder)
    engine = StudentEngine(
        loaded,
        form=form or "bundles",
        grouping=grouping,
        max_batch=max_batch,
        max_queue=max_queue,
    )
    return engine_lm(engine)
