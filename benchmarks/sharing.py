"""The gain from shared work: ratios of seconds per session, with the prefix cache and batches.

    python -m benchmarks.sharing --experts artifacts/demo/experts --json sharing.json

- prefix: a compiled prompt of 1,000 tokens before the session, relative to none, with one caller,
  after the prompt was seen with another session; and the same without the prefix cache.
- callers: one caller relative to sixteen, who each ask about one of sixteen sessions at the same
  time.

All in one process, alternating between the arms of a comparison; medians of the rounds' ratios. In
FILE, ``ratios`` = ``{"prefix_vs_none", "prefix_computed_vs_none", "one_vs_sixteen_callers"}``;
``same_answers`` says whether one caller and sixteen got the same answers.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Annotated, Any, get_args

import dspy
import typer

from benchmarks.command import run_command
from routedk.adapters.engine.engine import StudentEngine, engine_lm, student_lm
from routedk.adapters.engine.prefixes import PrefixCache
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.training.examples import Writes
from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.types import Session

CALLERS = 16

Act = Callable[[], object]
# What is done before the clock starts, and what is timed.
Arm = tuple[Act, Act]


def compiled(tokenizer: Any, sessions: Sequence[Session], tokens: int) -> BundleGenerator:
    """A program whose prompt has at least ``tokens`` tokens before the session.

    Args:
        tokenizer: The student's tokenizer.
        sessions: Sessions from which its rules take their words.
        tokens: How many tokens.
    """
    titles = [item.title for session in sessions for item in session.items]
    rules: list[str] = []
    for one, other in zip(titles, titles[1:] + titles[:1], strict=True):
        rules.append(f"Bundle {one} with {other} where one intent asks for both")
        program = BundleGenerator(CompiledKnowledge(rules=tuple(rules)))
        if tokens_before(tokenizer, program, sessions[0]) >= tokens:
            return program
    raise typer.BadParameter(f"the sessions have too few titles for {tokens} tokens of rules")


def tokens_before(tokenizer: Any, program: BundleGenerator, session: Session) -> int:
    """How many tokens a program's prompt has before the session."""
    asked = program.prompt(session)
    return encode_prompt(tokenizer, asked.messages, asked.items).span[0]


def alternate(arms: dict[str, Arm], rounds: int) -> dict[str, list[float]]:
    """Seconds of each arm in each round, after one round that is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(rounds + 1):
        for name, (prepare, act) in arms.items():
            prepare()
            started = perf_counter()
            act()
            if number:
                seconds[name].append(perf_counter() - started)
    return seconds


def ratio(seconds: dict[str, list[float]], one: str, other: str) -> dict[str, float]:
    """The ratios of the rounds, lowest, median and highest."""
    ratios = [a / b for a, b in zip(seconds[one], seconds[other], strict=True)]
    return {"min": min(ratios), "median": median(ratios), "max": max(ratios)}


def measure(
    engine: StudentEngine,
    sessions: Sequence[Session],
    *,
    few: int,
    rounds: int,
    tokens: int,
) -> dict[str, Any]:
    """The two comparisons.

    Args:
        engine: Engine of the student.
        sessions: More than sixteen; the first sixteen are the callers'. The other comparisons take
            the first ``few``, one by one, in each arm of each round.
        few: Number of sessions in the other comparisons.
        rounds: Number of rounds.
        tokens: Tokens of the compiled prompt before the session.
    """
    plain = BundleGenerator()
    generator = engine.generator
    long = compiled(generator.tokenizer, sessions, tokens)
    callers = sessions[:CALLERS]
    answers: dict[int, list[Any]] = {}

    def seen(program: Any) -> Act:
        """Before the clock starts, only what prompts have in common is cached."""

        def prepare() -> None:
            generator.prefixes = PrefixCache()
            for session in sessions[-2:]:
                program(session=session)

        return prepare

    def nothing_seen() -> None:
        generator.prefixes = PrefixCache()

    def one_by_one(program: Any) -> Act:
        def act() -> None:
            for session in sessions[:few]:
                program(session=session)

        return act

    def called_by(threads: int) -> Arm:
        def act() -> None:
            found = generate_all(plain, callers, num_threads=threads)
            answers[threads] = [answer.raw for answer in found]

        return seen(plain), act

    def without_prefixes() -> None:
        for session in sessions[:few]:
            nothing_seen()
            long(session=session)

    found: dict[str, Any] = {"sessions": few, "callers": len(callers), "rounds": rounds}
    found["prefix_tokens"] = tokens_before(generator.tokenizer, long, sessions[0])
    with dspy.context(lm=engine_lm(engine)):
        arms: dict[str, Arm] = {
            "none": (seen(plain), one_by_one(plain)),
            "kept": (seen(long), one_by_one(long)),
            "computed": (nothing_seen, without_prefixes),
        }
        prompts = alternate(arms, rounds)
        called = alternate({"one": called_by(1), "sixteen": called_by(CALLERS)}, rounds)
    spread = {
        "prefix_vs_none": ratio(prompts, "kept", "none"),
        "prefix_computed_vs_none": ratio(prompts, "computed", "none"),
        "one_vs_sixteen_callers": ratio(called, "one", "sixteen"),
    }
    found["ratios"] = {name: mine["median"] for name, mine in spread.items()}
    found["spread"] = spread
    found["same_answers"] = answers[1] == answers[CALLERS]
    found["seconds_per_session"] = {
        name: median(mine) / count
        for count, arms in ((few, prompts), (len(callers), called))
        for name, mine in arms.items()
    }
    return found


def main(
    experts: Annotated[Path | None, typer.Option(help="None: the untrained student.")] = None,
    student: Annotated[str | None, typer.Option(help="Another base than the experts'.")] = None,
    form: Annotated[str | None, typer.Option(help="Another answer form than theirs.")] = None,
    experts_from: Annotated[
        str | None, typer.Option(help="Another setting than theirs, for the timing.")
    ] = None,
    fusion: Annotated[str | None, typer.Option(help="Another fusion than theirs.")] = None,
    dtype: str | None = None,
    sessions: Annotated[int, typer.Option(min=1, help="Of one caller.")] = 4,
    rounds: Annotated[int, typer.Option(min=1)] = 7,
    tokens: Annotated[int, typer.Option(min=16)] = 1000,
    json_file: Annotated[Path | None, typer.Option("--json", help="Writes the table here.")] = None,
) -> None:
    """Print the comparisons as JSON."""
    options = DataOptions()
    chosen = split_sessions(load_sessions("demo", options), options)["test"]
    if not max(sessions, CALLERS) < len(chosen):
        raise typer.BadParameter(
            f"--sessions {sessions}: there are {len(chosen)}, one is set aside"
        )
    if form is not None and form not in get_args(Writes):
        raise typer.BadParameter(f"form {form!r}: allowed are {get_args(Writes)}")
    wanted: Any = form
    lm = student_lm(experts, student, fusion=fusion, form=wanted, dtype=dtype)
    engine: StudentEngine = lm.engine
    routed = engine.generator.routed
    if experts_from is not None and routed is not None:
        routed.settings = replace(routed.settings, experts_from=experts_from)
    found = measure(engine, chosen, few=sessions, rounds=rounds, tokens=tokens)
    found["form"] = engine.form
    found["experts_from"] = None if routed is None else routed.settings.experts_from
    text = json.dumps(found, indent=2)
    typer.echo(text)
    if json_file is not None:
        json_file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    run_command(main)
