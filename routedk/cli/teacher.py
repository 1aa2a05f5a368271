"""The teacher that ``routedk distill`` names: its settings, its journal, its progress."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from routedk.cli.lm import lm_errors
from routedk.cli.output import print_table
from routedk.errors import SettingError
from routedk.types import KnowledgeBase, Session

if TYPE_CHECKING:
    from routedk.programs.journal.journal import Tally
    from routedk.programs.journal.journaled_lm import JournaledLM
    from routedk.programs.teachers.teacher import Format

JOURNAL_FILE = "journal.jsonl"
ANNOTATION = "annotation"

_ANSWER_TOKENS = 1024
# What reasoning models are given, since they think within the limit.
_REASONING_TOKENS = 16_000
# With waits of 1, 2, 4 ... 60 seconds where the server names none: five minutes.
_RETRIES = 10
_TIMEOUT_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class DistillCommand:
    """The options of ``routedk distill`` that make its result.

    Args:
        teacher: ``annotation``, or a LiteLLM model name.
        formats: Kinds of knowledge to make.
        strategy: Sampling strategy.
        ratio: Share of the training sessions, in (0, 1].
        scores: File of scores for the strategy ``difficulty``.
        max_rules: Most rules.
        max_patterns: Most patterns.
        min_support: Least share of bundles for a pattern.
        resume: Go on with a journal that is there.
        max_tokens: Budget of an LM teacher.
        max_cost: The same in US dollars.
        threads: Calls under way at once.
        api_base: Address of the server.
        patterns_feed_rules: Rules are made with patterns in view.
        rules_feed_thoughts: Thoughts are made with rules in view.

    Raises:
        SettingError: An option of LM teachers is given for another.
    """

    teacher: str
    formats: "tuple[Format, ...]"
    strategy: str
    ratio: float
    scores: Path | None
    max_rules: int
    max_patterns: int
    min_support: float
    resume: bool
    max_tokens: int | None
    max_cost: float | None
    threads: int
    api_base: str | None
    patterns_feed_rules: bool
    rules_feed_thoughts: bool

    def __post_init__(self) -> None:
        if self.teacher == ANNOTATION:
            for name in ("max_tokens", "max_cost", "api_base"):
                if getattr(self, name) is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise SettingError(
                        f"{option} is of LM teachers: the annotation teacher calls none"
                    )

    def config(self) -> dict[str, Any]:
        """What the manifest states: all that changes the knowledge."""
        left_out = {"teacher", "resume", "threads", "api_base"}
        config = {name: value for name, value in asdict(self).items() if name not in left_out}
        scores = None if self.scores is None else str(self.scores)
        return {**config, "formats": list(self.formats), "scores": scores}


def distil_with(
    command: DistillCommand, sessions: Sequence[Session], journaled: "JournaledLM | None"
) -> tuple[KnowledgeBase, dict[str, Any]]:
    """The knowledge, and for an LM teacher what its calls came to.

    Args:
        command: The teacher and its settings.
        sessions: The sample, annotated sessions alone.
        journaled: The LM teacher; None for the annotation teacher.
    """
    bounds: dict[str, Any] = {
        "formats": command.formats,
        "max_rules": command.max_rules,
        "max_patterns": command.max_patterns,
        "min_support": command.min_support,
    }
    if journaled is None:
        from routedk.programs.teachers.annotation import AnnotationTeacher

        return AnnotationTeacher(**bounds).distill(sessions), {}
    from routedk.programs.journal.budget import price
    from routedk.programs.teachers.lm_teacher import LMTeacher

    steps: dict[str, int] = {
        name: len(sessions) for name in ("rule", "thought") if name in command.formats
    }
    with lm_errors(), show_progress(steps) as advance:
        distiller = LMTeacher(
            journaled.lm,
            **bounds,
            patterns_feed_rules=command.patterns_feed_rules,
            rules_feed_thoughts=command.rules_feed_thoughts,
            num_threads=command.threads,
            price=lambda read, written: price(command.teacher, read, written),
            on_session=advance,
        )
        knowledge = distiller.distill(sessions)
        spent = journaled.spent
    return knowledge, {
        "spent": {
            "run": _tally(spent.run),
            "journal": _tally(spent.journal),
            "replayed": spent.replayed,
        },
        "report": asdict(distiller.report),
    }


def plan_with(
    command: DistillCommand, sessions: Sequence[Session], scored: Sequence[Session]
) -> None:
    """Print what distilling would come to; nothing is asked.

    Args:
        command: The teacher and its settings.
        sessions: The sample.
        scored: Sessions that must be answered before, to tell which are difficult.
    """
    if command.teacher == ANNOTATION:
        typer.echo("The annotation teacher makes no calls.")
        return
    from routedk.programs.teachers.distill_plan import plan_calls
    from routedk.programs.teachers.patterns import mine_patterns

    patterns = (
        mine_patterns(sessions, min_support=command.min_support, limit=command.max_patterns)
        if command.patterns_feed_rules
        else ()
    )
    steps = plan_calls(command.teacher, sessions, command.formats, patterns, scored)
    rows = [
        (
            step.name,
            "all" if step.certain else "at most",
            step.expected.calls,
            step.expected.input_tokens,
            step.expected.output_tokens,
            "unknown" if step.expected.unpriced else f"{step.expected.cost:.4f}",
        )
        for step in steps
    ]
    columns = ("step", "sessions", "calls", "tokens in", "out", "US dollars")
    print_table(f"Expected of {command.teacher}", columns, rows)
    least = [step.expected for step in steps if step.certain]
    most = [step.expected for step in steps]
    typer.echo(f"In all between {_sum(least)} and {_sum(most)}.")


@contextmanager
def journaled_teacher(command: DistillCommand, output: Path) -> Iterator["JournaledLM | None"]:
    """The LM teacher that a command names, over the journal in its output folder, or None.

    Raises:
        SettingError: A journal is there, and the command is not to go on with it.
    """
    if command.teacher == ANNOTATION:
        yield None
        return
    from routedk.programs.journal.budget import Budget
    from routedk.programs.journal.journaled_lm import journaled_lm

    path = output / JOURNAL_FILE
    if path.exists() and path.stat().st_size and not command.resume:
        raise SettingError(
            f"{path} holds answers of an earlier run: --resume uses them, another --output "
            "begins anew"
        )
    budget = Budget(max_tokens=command.max_tokens, max_cost=command.max_cost)
    # An answer that was cut short is no event: what is made of it is checked.
    logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)
    with journaled_lm(_teacher_lm(command), path, budget=budget) as teacher:
        try:
            yield teacher
        except KeyboardInterrupt:
            typer.echo(f"The answers so far are in {path}: --resume goes on.", err=True)
            raise


def _teacher_lm(command: DistillCommand) -> Any:
    import dspy
    import litellm
    from dspy.utils.exceptions import LMConfigurationError

    litellm.suppress_debug_info = True
    try:
        litellm.get_llm_provider(command.teacher)
    except litellm.exceptions.BadRequestError:
        raise SettingError(
            f"--teacher {command.teacher!r}: annotation, or a model by its LiteLLM name with its "
            "provider, e.g. openai/gpt-4o-mini or hosted_vllm/llama"
        ) from None
    connection: dict[str, Any] = {
        "engine": "litellm",
        "cache": False,
        "num_retries": _RETRIES,
        "timeout": _TIMEOUT_SECONDS,
    }
    if command.api_base is not None:
        connection["api_base"] = command.api_base
    try:
        return dspy.LM(command.teacher, temperature=0.0, max_tokens=_ANSWER_TOKENS, **connection)
    except LMConfigurationError:
        # Reasoning models refuse a temperature and small limits.
        return dspy.LM(
            command.teacher, temperature=None, max_tokens=_REASONING_TOKENS, **connection
        )


@contextmanager
def show_progress(steps: Mapping[str, int]) -> Iterator[Any]:
    """A bar for each step, with rate and time left, on stderr."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        tasks = {
            name: progress.add_task(f"{name}s", total=total, start=False, rate="")
            for name, total in steps.items()
        }

        def advance(step: str) -> None:
            task = tasks[step]
            progress.start_task(task)
            progress.advance(task)
            speed = progress.tasks[task].speed
            progress.update(task, rate=f"{speed:.2f}/s" if speed else "")

        yield advance


def _sum(tallies: Sequence["Tally"]) -> str:
    calls, tokens = sum(t.calls for t in tallies), sum(t.tokens for t in tallies)
    if any(tally.unpriced for tally in tallies):
        return f"{calls} calls, {tokens} tokens"
    return f"{calls} calls, {tokens} tokens, {sum(t.cost for t in tallies):.4f} dollars"


def _tally(tally: "Tally") -> dict[str, Any]:
    return {
        "calls": tally.calls,
        "tokens": tally.tokens,
        "input_tokens": tally.input_tokens,
        "output_tokens": tally.output_tokens,
        "cost": None if tally.unpriced else round(tally.cost, 6),
    }
