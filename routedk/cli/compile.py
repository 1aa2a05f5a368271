"""``routedk compile``: knowledge into a program's prompt, chosen by score on validation."""

from itertools import chain
from pathlib import Path
from typing import Annotated, Any

import typer

from routedk.cli.lm import Dtype, Experts, LmName, Student, lm_errors, resolve_lm
from routedk.cli.options import (
    KnowledgeFiles,
    SessionSource,
    UtilizationName,
    load_knowledge,
    takes_sessions,
    warn_untitled,
)
from routedk.cli.output import print_table
from routedk.errors import SettingError
from routedk.types import KnowledgeBase, Session


@takes_sessions(split="train")
def compile(
    source: SessionSource,
    knowledge: KnowledgeFiles,
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="Where the program goes, as JSON.")
    ],
    lm: LmName = None,
    experts: Experts = None,
    student: Student = None,
    dtype: Dtype = None,
    evaluations: Annotated[
        int, typer.Option(min=1, help="Candidates scored, the plain program among them.")
    ] = 6,
    level: Annotated[
        float,
        typer.Option(
            metavar="P",
            help="How often at most chance alone should make the plain program be left, above 0 "
            "and below 1; shared among the candidates.",
        ),
    ] = 0.05,
    instruction: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A text file with an instruction to try beside the usual one; several times.",
        ),
    ] = None,
    token_budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Most tokens of a prompt on the validation sessions; longer candidates are not "
            "tried.",
        ),
    ] = None,
    max_validation: Annotated[
        int,
        typer.Option(
            min=1,
            help="Most validation sessions a candidate is scored on; the grouping sees all.",
        ),
    ] = 32,
    retriever: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How similar sessions are found: tfidf, minilm, or the name or folder of a "
            "sentence-transformers model.",
        ),
    ] = "tfidf",
    utilization: UtilizationName = None,
    threads: Annotated[int, typer.Option(min=1, help="Calls to the model at once.")] = 16,
) -> None:
    """Choose instruction, knowledge and similar sessions for the prompt, and the grouping.

    Neighbours come from the training split, scores (matched F1) from the validation split; the
    test split is not looked at. The plain program stays where nothing is better than it session
    by session beyond chance.
    """
    from routedk.optimizers.compile import CompileConfig

    config = CompileConfig(
        evaluations=evaluations,
        level=level,
        instruction=tuple(instruction or ()),
        token_budget=token_budget,
        max_validation=max_validation,
        retriever=retriever,
        utilization=utilization,  # type: ignore[arg-type]
        threads=threads,
        seed=source.options.seed,
        lm=lm,
        experts=experts,
        student=student,
        dtype=dtype,
    )
    if source.split != "train":
        raise SettingError(
            f"split is {source.split!r}: compile takes neighbours from train and scores on val, "
            "leave --split out"
        )
    parts = source.load_parts()
    base = load_knowledge(knowledge, chain(*parts.values()), parts["test"])
    warn_untitled([*parts["train"], *parts["val"]])
    program = _compile(base, parts["train"], parts["val"], config)
    program.save(output)
    columns = ("candidate", "prompt", "matched F1", "p", "tokens", "unparsable", "chosen")
    *candidates, grouping = program.trials
    print_table("Candidates", columns, [_row(trial) for trial in candidates])
    _say_level(level, evaluations, candidates[0]["sessions"])
    typer.echo(
        f"Grouping: {program.grouping or 'equal intents'}; matched F1 on "
        f"{grouping['sessions']} validation sessions {grouping['grouping_f1']:.3f}, "
        f"by equal intents {grouping['equal_intents_f1']:.3f}"
    )
    typer.echo(f"Program: {output}")


def _compile(
    base: KnowledgeBase, training: list[Session], validation: list[Session], config: Any
) -> Any:
    from rich.console import Console
    from rich.progress import Progress

    from routedk.optimizers.compile import compile_program

    progress = Progress(console=Console(stderr=True), transient=True)
    task = progress.add_task("Scoring candidates", total=config.evaluations)

    def advance(trial: dict[str, Any]) -> None:
        progress.update(task, advance=1)

    names = {"lm": config.lm, "experts": config.experts, "student": config.student}
    model = resolve_lm(**names, dtype=config.dtype)
    with progress, lm_errors():
        return compile_program(training, validation, base, config, lm=model, on_trial=advance)


def _say_level(level: float, evaluations: int, sessions: int) -> None:
    """What a candidate needs, and whether there are sessions enough for any to have it."""
    from routedk.eval.paired import sessions_needed

    each = level / max(1, evaluations - 1)
    typer.echo(
        f"A candidate replaces the one kept so far at p <= {each:.4f} (tokens: longest prompt)"
    )
    if sessions < (needed := sessions_needed(each)):
        typer.echo(
            f"note: on {sessions} sessions no candidate can reach it, {needed} are needed (raise "
            "--max-validation, or lower --evaluations)",
            err=True,
        )


def _row(trial: dict[str, Any]) -> tuple[object, ...]:
    return (
        trial["number"],
        "as given" if trial["choice"] is None else _knowledge(trial["choice"]),
        trial["matched_f1"],
        "" if trial["p"] is None else trial["p"],
        trial["prompt_tokens"],
        trial["unparsable"],
        trial["chosen"],
    )


def _knowledge(choice: dict[str, Any]) -> str:
    count, shown = len(choice["rules"]), choice["rules_shown"]
    rules = f"{count} rules" if shown is None else f"{shown} of {count} rules"
    thoughts = " + thoughts" * choice["show_thoughts"]
    parts = [
        "another instruction" * bool(choice["instruction"]),
        rules * bool(count),
        f"{choice['patterns']} patterns" * bool(choice["patterns"]),
        f"{choice['k']} {choice['style']}{thoughts}" * bool(choice["k"]),
    ]
    return ", ".join(filter(None, parts))
