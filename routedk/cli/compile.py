"""``routedk compile``: knowledge into a program's prompt, chosen by score on validation."""

from typing import Any

import typer

import routedk
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OutputFile, print_table, progress, refuse_foreign
from routedk.cli.sessions import DataPath, KnowledgeFiles, load_knowledge, load_parts
from routedk.data import DataOptions
from routedk.optimizers.compile_config import CompileConfig

_NAMES = {"k": "neighbours", "show_thoughts": "thoughts"}


@with_config_options
def compile(
    data: DataPath,
    knowledge: KnowledgeFiles,
    output: OutputFile,
    config: CompileConfig,
    options: DataOptions,
) -> None:
    """Choose instruction, knowledge and similar sessions for the prompt, and the grouping.

    Neighbours come from the training split, scores from the validation split; the test split is not
    used. Scores are matched F1 or, if items are grouped before bundles are named, the similarity of
    intents. The plain program stays unless another is significantly better, session by session.

    Example: routedk compile --data demo --knowledge knowledge/knowledge.jsonl --experts experts
    --output program.json
    """
    refuse_foreign(output, lambda document: document.get("kind") == "routedk.program")
    parts = load_parts(data, options)
    train, validation = parts["train"], parts["val"]
    base = load_knowledge(knowledge, parts)
    with progress() as show:

        def on_trial(trial: dict[str, Any]) -> None:
            show("candidates", trial["number"] + 1, config.evaluations)

        program = routedk.compile_program(train, validation, base, config, on_trial=on_trial)
    program.save(output)
    *candidates, grouping = program.trials
    named = any("intent_similarity" in trial for trial in candidates)
    score = "intents" if named else "matched F1"
    columns = ("candidate", "prompt", score, "p", "tokens", "unparsable", "chosen")
    if candidates:
        print_table("Candidates", columns, [_row(trial) for trial in candidates])
    if len(candidates) > 1:
        _tell_level(config.level_each, candidates[0]["sessions"])
    equal = grouping["equal_intents_f1"]
    by_equal = "" if equal is None else f", by equal intents {equal:.3f}"
    how = "items are grouped before bundles are named" if equal is None else None
    typer.echo(
        f"Grouping: {how or _in_words(program.grouping)}; matched F1 on "
        f"{grouping['sessions']} validation sessions {grouping['grouping_f1']:.3f}{by_equal}"
    )
    typer.echo(f"Program: {output}")


def _in_words(grouping: Any) -> str:
    """How items are grouped, in words."""
    if grouping is None:
        return "items with the same intent"
    return (
        f"items with similar intents (weight {grouping.weight:g}, titles have the rest), bundled "
        f"up to distance {grouping.threshold:g}"
    )


def _tell_level(level: float, sessions: int) -> None:
    """Print the p-value that a candidate needs, and whether there are enough sessions for it."""
    from routedk.eval.paired import sessions_needed

    typer.echo(
        f"A candidate replaces the one kept so far at p <= {level:.4f} (tokens: longest prompt)"
    )
    if sessions < (needed := sessions_needed(level)):
        typer.echo(
            f"note: on {sessions} sessions no candidate can reach it, {needed} are needed (raise "
            "--max-validation, or lower --evaluations)",
            err=True,
        )


def _row(trial: dict[str, Any]) -> tuple[object, ...]:
    choice = trial["choice"] or {}
    for name, word in (("instruction", "changed"), ("show_thoughts", "shown")):
        if choice.get(name):
            choice = {**choice, name: word}
    prompt = ", ".join(f"{_NAMES.get(n, n)} {value}" for n, value in choice.items() if value)
    score = "intent_similarity" if "intent_similarity" in trial else "matched_f1"
    figures = (trial[name] for name in (score, "p", "prompt_tokens", "unparsable", "chosen"))
    return (trial["number"], prompt or "as given", *("" if f is None else f for f in figures))
