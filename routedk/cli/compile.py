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
    """Choose rules and similar sessions for the prompt, and the grouping, by matched F1.

    Neighbours come from the training split, scores from the validation split; the test split is
    not looked at. The plain program stays where no knowledge helps.
    """
    from routedk.programs.knowledge.neighbours import check_retriever
    from routedk.programs.knowledge.utilization import agreed_utilization, utilization_of

    check_retriever(retriever)
    wanted = utilization_of(utilization)
    if wanted is not None and not wanted.trains and experts is not None:
        raise SettingError(
            f"utilization {utilization!r} trains no experts: leave --experts out, name --student "
            "or --lm"
        )
    if experts is not None:
        utilization = agreed_utilization(_trained_for(experts), utilization)
    if source.split != "train":
        raise SettingError(
            f"split is {source.split!r}: compile takes neighbours from train and scores on val, "
            "leave --split out"
        )
    parts = source.load_parts()
    base = load_knowledge(knowledge, chain(*parts.values()), parts["test"])
    warn_untitled([*parts["train"], *parts["val"]])
    program = _compile(
        base,
        parts["train"],
        parts["val"],
        resolve_lm(lm=lm, experts=experts, student=student, dtype=dtype),
        {
            "evaluations": evaluations,
            "max_validation": max_validation,
            "retriever": retriever,
            "utilization": utilization,
            "num_threads": threads,
            "seed": source.options.seed,
        },
    )
    program.save(output)
    columns = ("candidate", "knowledge", "matched F1", "characters", "unparsable", "chosen")
    *candidates, grouping = program.trials
    print_table("Candidates", columns, [_row(trial) for trial in candidates])
    typer.echo(
        f"Grouping: {program.grouping or 'equal intents'}; matched F1 on "
        f"{grouping['sessions']} validation sessions {grouping['grouping_f1']:.3f}, "
        f"by equal intents {grouping['equal_intents_f1']:.3f}"
    )
    typer.echo(f"Program: {output}")


def _trained_for(experts: Path) -> str | None:
    """The utilization that experts were trained for; None where it was left free."""
    from routedk.adapters.routing.routing_file import read_routing

    trained: str | None = read_routing(experts).get("training", {}).get("utilization")
    return trained


def _compile(
    base: KnowledgeBase,
    training: list[Session],
    validation: list[Session],
    model: Any,
    settings: dict[str, Any],
) -> Any:
    import dspy
    from rich.console import Console
    from rich.progress import Progress

    from routedk.optimizers.grouping_search import GroupingSearch
    from routedk.optimizers.knowledge_injection import KnowledgeInjection
    from routedk.optimizers.metric import as_examples
    from routedk.programs.generator import BundleGenerator

    with Progress(console=Console(stderr=True), transient=True) as progress, lm_errors():
        task = progress.add_task("Scoring candidates", total=settings["evaluations"])

        def advance(trial: dict[str, Any]) -> None:
            progress.update(task, advance=1)

        teleprompter = KnowledgeInjection(base, **settings, on_trial=advance)
        with dspy.context(lm=model):
            sets = {"trainset": as_examples(training), "valset": as_examples(validation)}
            informed = teleprompter.compile(BundleGenerator(), **sets)
            return GroupingSearch(num_threads=settings["num_threads"]).compile(informed, **sets)


def _row(trial: dict[str, Any]) -> tuple[object, ...]:
    return (
        trial["number"],
        "as given" if trial["choice"] is None else _knowledge(trial["choice"]),
        trial["matched_f1"],
        round(trial["prompt_characters"]),
        trial["unparsable"],
        trial["chosen"],
    )


def _knowledge(choice: dict[str, Any]) -> str:
    count, shown = len(choice["rules"]), choice["rules_shown"]
    rules = f"{count} rules" if shown is None else f"{shown} of {count} rules"
    thoughts = " + thoughts" * choice["show_thoughts"]
    parts = [
        rules * bool(count),
        f"{choice['patterns']} patterns" * bool(choice["patterns"]),
        f"{choice['k']} {choice['style']}{thoughts}" * bool(choice["k"]),
    ]
    return ", ".join(filter(None, parts))
