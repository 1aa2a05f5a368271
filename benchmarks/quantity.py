"""How much knowledge is distilled from how many sessions, by sampling strategy and ratio.

    python -m benchmarks.quantity --data demo --output artifacts/quantity

The annotation teacher distills from every sample. The usual limits on knowledge are set so high
here that only the evidence limits it: a pattern needs two bundles, a rule two bundles of its own.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer
from transformers import AutoTokenizer

from benchmarks.command import run_command
from routedk.adapters.student import DEFAULT_STUDENT, find_student
from routedk.cli.config_options import with_config_options
from routedk.cli.output import print_table
from routedk.cli.sessions import DataPath, Split, data_record, load_split
from routedk.data import DataOptions
from routedk.errors import DataError
from routedk.eval.report import versions
from routedk.files import atomic_write, write_json
from routedk.programs.prompting.layout import render_pattern
from routedk.programs.sampling.difficulty import read_scores
from routedk.programs.sampling.sampling import STRATEGIES, sample_sessions
from routedk.programs.teachers.annotation import annotation_knowledge
from routedk.programs.teachers.config import DistillConfig
from routedk.types import KnowledgeBase, Session

RATIOS = tuple(tenth / 10 for tenth in range(1, 11))
KINDS = ("patterns", "rules", "thoughts")
Point = dict[str, Any]


def points(
    pool: Sequence[Session],
    strategies: Sequence[str],
    scores: Mapping[str, float] | None,
    config: DistillConfig,
    tokenizer: Any,
) -> Iterator[Point]:
    """Count what is distilled from each sample; equal samples are distilled only once.

    Args:
        pool: Training sessions with gold, ids distinct.
        strategies: Names of sampling strategies.
        scores: Scores for the strategy difficulty.
        config: Settings of the annotation teacher.
        tokenizer: The student's tokenizer.

    Yields:
        Strategy, ratio, sessions, bundles, seconds, and the count and tokens of each kind.
    """
    known: dict[tuple[str, ...], Point] = {}
    for name in strategies:
        for ratio in RATIOS:
            sample = sample_sessions(pool, name, ratio, seed=config.seed, scores=scores)
            key = tuple(session.id for session in sample)
            if key not in known:
                started = perf_counter()
                counts = _counts(annotation_knowledge(sample, config), tokenizer)
                known[key] = {
                    "sessions": len(sample),
                    "bundles": sum(len(session.bundles or ()) for session in sample),
                    "seconds": perf_counter() - started,
                    **counts,
                }
            yield {"strategy": name, "ratio": ratio, **known[key]}


def _counts(knowledge: KnowledgeBase, tokenizer: Any) -> dict[str, dict[str, int]]:
    texts = {
        "patterns": [render_pattern(pattern) for pattern in knowledge.patterns],
        "rules": [rule.text for rule in knowledge.rules],
        "thoughts": [thought.text for thought in knowledge.thoughts],
    }
    return {
        kind: {
            "count": len(mine),
            "tokens": sum(len(tokenizer(t, add_special_tokens=False)["input_ids"]) for t in mine),
        }
        for kind, mine in texts.items()
    }


def plot(found: Sequence[Point], path: Path) -> None:
    """Draw counts above and tokens below, one column per kind, one line per strategy, as a PNG.

    Args:
        found: What `points` yields.
        path: The file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(KINDS), sharex=True)
    strategies = list(dict.fromkeys(point["strategy"] for point in found))
    for column, kind in enumerate(KINDS):
        for row, measure in enumerate(("count", "tokens")):
            axes = panels[row, column]
            for place, name in enumerate(strategies):
                mine = [point for point in found if point["strategy"] == name]
                axes.plot(
                    [point["ratio"] for point in mine],
                    [point[kind][measure] for point in mine],
                    label=name,
                    color=f"C{place}",
                    marker="osD^vP"[place % 6],
                    markersize=9 - 2 * (place % 4),
                    linewidth=1.2,
                )
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.set_title(kind if measure == "count" else f"tokens of {kind}")
    for axes in panels[-1]:
        axes.set_xlabel("share of training sessions")
        axes.set_xticks([0.2, 0.4, 0.6, 0.8, 1.0])
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    with atomic_write(path, binary=True) as file:
        figure.savefig(file, format="png", dpi=120)


@with_config_options
def main(
    data: DataPath,
    options: DataOptions,
    output: Annotated[Path, typer.Option(help="Gets quantity.json and quantity.png.")],
    scores: Annotated[
        Path | None,
        typer.Option(help="Scores of the sessions, for the strategy difficulty; none: without it."),
    ] = None,
    student: Annotated[str, typer.Option(help="Whose tokens are counted.")] = DEFAULT_STUDENT,
    max_rules: Annotated[int, typer.Option(min=0, help="Most rules.")] = 100_000,
    max_patterns: Annotated[int, typer.Option(min=0, help="Most patterns.")] = 100_000,
    min_support: Annotated[
        float, typer.Option(help="Least share of bundles for a pattern.")
    ] = 1e-6,
    split: Split = "train",
) -> None:
    """Distill from samples of every strategy and ratio, and count."""
    pool = [session for session in load_split(data, options, split) if session.bundles is not None]
    if not pool:
        raise DataError(
            f"the split {split!r} has no annotated session",
            path=data,
            hint="knowledge is distilled from annotated sessions",
        )
    known = None if scores is None else read_scores(scores)
    names = [name for name in STRATEGIES if known is not None or name != "difficulty"]
    settings = DistillConfig(
        seed=options.seed,
        max_rules=max_rules,
        max_patterns=max_patterns,
        min_support=min_support,
    )
    tokenizer = AutoTokenizer.from_pretrained(find_student(student))
    found: list[Point] = []
    started = perf_counter()
    for point in points(pool, names, known, settings, tokenizer):
        found.append(point)
        typer.echo(f"{point['strategy']} {point['ratio']:.1f}: {_words(point)}", err=True)
    config = {
        **data_record(data, options, split),
        "teacher": "annotation",
        "strategies": names,
        "scores": None if scores is None else str(scores),
        "student": student,
        "max_rules": max_rules,
        "max_patterns": max_patterns,
        "min_support": min_support,
    }
    write_json(
        output / "quantity.json",
        {
            "config": config,
            "seconds": perf_counter() - started,
            "points": found,
            "versions": versions(),
        },
    )
    plot(found, output / "quantity.png")
    cells = [
        tuple(f"{point[kind]['count']} ({point[kind]['tokens']})" for kind in KINDS)
        for point in found
    ]
    rows = [
        (point["strategy"], f"{point['ratio']:.1f}", point["sessions"], *mine)
        for point, mine in zip(found, cells, strict=True)
    ]
    print_table("Count (tokens)", ("strategy", "ratio", "sessions", *KINDS), rows)
    typer.echo(f"Written: {output / 'quantity.json'}, {output / 'quantity.png'}")


def _words(point: Point) -> str:
    counts = (f"{point[kind]['count']} {kind}" for kind in KINDS)
    return f"{', '.join(counts)} of {point['sessions']} sessions, {point['seconds']:.1f} s"


if __name__ == "__main__":
    run_command(main)
