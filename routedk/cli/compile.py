"""``routedk compile``: knowledge into a program's prompt, chosen by score on validation."""

from pathlib import Path
from typing import Any

import typer

import routedk
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OutputFile, print_table, progress, quiet_libraries, refuse_foreign
from routedk.cli.sessions import DataPath, KnowledgeFiles, load_knowledge, warn_untitled
from routedk.data import DataOptions, load_sessions, split_sessions
from routedk.files import read_json
from routedk.optimizers.compile import CompileConfig


@with_config_options
def compile(
    data: DataPath,
    knowledge: KnowledgeFiles,
    output: OutputFile,
    config: CompileConfig,
    options: DataOptions,
) -> None:
    """Choose instruction, knowledge and similar sessions for the prompt, and the grouping.

    Neighbours come from the training split, scores (matched F1) from the validation split; the
    test split is not used. The plain program stays where nothing is better than it session by
    session beyond chance.

    Example: routedk compile --data demo --knowledge knowledge/knowledge.jsonl --experts experts
    --output program.json
    """
    quiet_libraries()
    refuse_foreign(output, _is_program)
    parts = split_sessions(load_sessions(data, options), options)
    base = load_knowledge(knowledge, parts)
    warn_untitled([*parts["train"], *parts["val"]])
    with progress() as show:

        def on_trial(trial: dict[str, Any]) -> None:
            show("candidates", trial["number"] + 1, config.evaluations)

        program = routedk.compile_program(
            parts["train"], parts["val"], base, config, on_trial=on_trial
        )
    program.save(output)
    *candidates, grouping = program.trials
    columns = ("candidate", "prompt", "matched F1", "p", "tokens", "unparsable", "chosen")
    print_table("Candidates", columns, [_row(trial) for trial in candidates])
    if len(candidates) > 1:
        _tell_level(config, candidates[0]["sessions"])
    typer.echo(
        f"Grouping: {program.grouping or 'equal intents'}; matched F1 on "
        f"{grouping['sessions']} validation sessions {grouping['grouping_f1']:.3f}, "
        f"by equal intents {grouping['equal_intents_f1']:.3f}"
    )
    typer.echo(f"Program: {output}")


def _is_program(path: Path) -> bool:
    document = read_json(path)
    return isinstance(document, dict) and document.get("kind") == "routedk.program"


def _tell_level(config: CompileConfig, sessions: int) -> None:
    """The p-value that a candidate needs, and whether there are sessions enough to reach it."""
    from routedk.eval.paired import sessions_needed

    each = config.level / (config.evaluations - 1)
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
    shown = "as given" if trial["choice"] is None else _knowledge(trial["choice"])
    figures = ("matched_f1", "p", "prompt_tokens", "unparsable", "chosen")
    return (trial["number"], shown, *("" if trial[f] is None else trial[f] for f in figures))


def _knowledge(choice: dict[str, Any]) -> str:
    thoughts = " + thoughts" * choice["show_thoughts"]
    parts = [
        "another instruction" * bool(choice["instruction"]),
        f"{choice['rules']} rules" * bool(choice["rules"]),
        f"{choice['patterns']} patterns" * bool(choice["patterns"]),
        f"{choice['k']} {choice['style']}{thoughts}" * bool(choice["k"]),
    ]
    return ", ".join(filter(None, parts))
