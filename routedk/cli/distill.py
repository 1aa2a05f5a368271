"""``routedk distill``: knowledge from training sessions, in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from routedk.artifacts import copy_artifact
from routedk.cli.lm import lm_errors
from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.cli.output import log_progress, print_table
from routedk.files import read_json
from routedk.programs.distill import REPORT, DistillConfig, distill_artifact, plan_distill

_DEFAULTS = DistillConfig()


@takes_sessions(split="train")
def distill(
    source: SessionSource,
    output: Annotated[Path, typer.Option("--output", metavar="DIR", help="Gets knowledge.jsonl.")],
    teacher: Annotated[str, typer.Option(metavar="NAME")] = _DEFAULTS.teacher,
    formats: Annotated[list[str], typer.Option()] = _DEFAULTS.formats,  # type: ignore[assignment]
    strategy: Annotated[str, typer.Option(metavar="NAME")] = _DEFAULTS.strategy,
    ratio: Annotated[float, typer.Option()] = _DEFAULTS.ratio,
    scores: Annotated[Path | None, typer.Option(metavar="FILE")] = None,
    max_rules: Annotated[int, typer.Option()] = _DEFAULTS.max_rules,
    max_patterns: Annotated[int, typer.Option()] = _DEFAULTS.max_patterns,
    min_support: Annotated[float, typer.Option()] = _DEFAULTS.min_support,
    max_tokens: Annotated[int | None, typer.Option()] = None,
    max_cost: Annotated[float | None, typer.Option()] = None,
    threads: Annotated[int, typer.Option()] = _DEFAULTS.threads,
    api_base: Annotated[str | None, typer.Option(metavar="URL")] = None,
    patterns_feed_rules: Annotated[bool, typer.Option()] = True,
    rules_feed_thoughts: Annotated[bool, typer.Option()] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what is expected.")
    ] = False,
) -> None:
    """Distill patterns, rules and thoughts from the gold bundles of training sessions."""
    config = DistillConfig(
        teacher=teacher,
        formats=tuple(formats),  # type: ignore[arg-type]
        strategy=strategy,  # type: ignore[arg-type]
        ratio=ratio,
        scores=scores,
        max_rules=max_rules,
        max_patterns=max_patterns,
        min_support=min_support,
        max_tokens=max_tokens,
        max_cost=max_cost,
        threads=threads,
        api_base=api_base,
        patterns_feed_rules=patterns_feed_rules,
        rules_feed_thoughts=rules_feed_thoughts,
        seed=source.options.seed,
    )
    sessions = source.load()
    warn_untitled(sessions)
    if dry_run:
        _print_plan(plan_distill(sessions, config))
        return
    if config.strategy == "difficulty" and config.scores is None and teacher == _DEFAULTS.teacher:
        from routedk.adapters.engine.engine import student_lm
        from routedk.programs.sampling.difficulty import score_sessions

        config = replace(config, scores=score_sessions(sessions, student_lm()))
    log_progress()
    with lm_errors(), _progress() as on_step:
        artifact = distill_artifact(sessions, config, on_step=on_step)
    copy_artifact(artifact, output)
    told: Any = read_json(artifact.folder / REPORT)
    print_table("Knowledge", ("kind", "count"), list(told["counts"].items())[2:])
    typer.echo(f"Knowledge: {output / 'knowledge.jsonl'}")


def _print_plan(steps: dict[str, Any]) -> None:
    if not steps:
        typer.echo("The annotation teacher makes no calls.")
        return
    rows = [
        (
            name,
            tally.calls,
            tally.input_tokens,
            tally.output_tokens,
            "unknown" if tally.cost is None else f"{tally.cost:.4f}",
        )
        for name, tally in steps.items()
    ]
    print_table("At most", ("step", "calls", "tokens in", "out", "US dollars"), rows)


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar for each step, on stderr; yields what `distill` calls after each session."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        bars: dict[str, Any] = {}

        def on_step(step: str, done: int, total: int) -> None:
            if step not in bars:
                bars[step] = progress.add_task(f"{step}s", total=total)
            progress.advance(bars[step])

        yield on_step
