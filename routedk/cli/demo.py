"""``routedk demo``: the five verbs, one after the other, on the embedded sessions."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

import routedk
from routedk.adapters.train import TrainConfig
from routedk.artifacts import check_output, copy_artifact
from routedk.cli.output import OutputFolder, log_progress, quiet_libraries
from routedk.data import DataOptions
from routedk.eval.evaluate import EvaluateConfig
from routedk.files import write_json
from routedk.optimizers.compile import CompileConfig

if TYPE_CHECKING:
    from routedk import Answer, Session

_EXAMPLES = 3


def demo_configs() -> tuple[TrainConfig, CompileConfig]:
    """Sizes for two CPU cores."""
    return (
        TrainConfig(epochs=2.5, knowledge_share=0.08, knowledge_epochs=2.0, router_share=0.03),
        CompileConfig(evaluations=3, max_validation=12),
    )


def demo(output: OutputFolder = Path("artifacts/demo")) -> None:
    """Distill, train, compile, generate and evaluate on the embedded set, and show some bundles.

    What an earlier run made is taken from the artifact store.

    Example: routedk demo --output artifacts/demo
    """
    from routedk.eval.predictions import write_predictions

    log_progress()
    quiet_libraries()
    started = time.monotonic()
    experts, program_file = output / "experts", output / "program.json"
    check_output(experts)
    train_config, compile_config = demo_configs()
    sessions = routedk.load_sessions("demo")
    parts = routedk.split_sessions(sessions, DataOptions())
    train, validation = parts["train"], parts["val"]
    test = [session for session in parts["test"] if session.gold]

    typer.secho("1/5 distill ...", bold=True)
    knowledge = routedk.distill(train)
    routedk.write_knowledge(knowledge, output / "knowledge.jsonl")
    typer.secho("2/5 train ...", bold=True)
    copy_artifact(routedk.train(train, knowledge, train_config), experts)
    typer.secho("3/5 compile ...", bold=True)
    lm = routedk.student_lm(experts)
    program = routedk.compile_program(train, validation, knowledge, compile_config, lm=lm)
    program.save(program_file)
    typer.secho("4/5 generate ...", bold=True)
    answers = routedk.generate(test, program=program, lm=lm)
    write_predictions(output / "bundles.jsonl", answers)
    zero_shot = routedk.generate(test, lm=routedk.student_lm())
    typer.secho("5/5 evaluate ...", bold=True)
    report = routedk.evaluate(
        test,
        answers,
        EvaluateConfig(baselines=True),
        training=train,
        validation=validation,
        catalogue=sessions,
    )
    base = routedk.evaluate(test, zero_shot).system
    assert report.system is not None
    assert base is not None
    report = replace(
        report,
        config={**report.config, "data": "demo", "split": "test"},
        system=replace(report.system, name="routed student"),
        baselines=(*report.baselines, replace(base, name="base model")),
    )
    write_json(output / "result.json", report.to_dict())

    typer.echo(f"\n{report}")
    several = [session for session in test if len(session.gold) > 1]
    by_id = {answer.session_id: answer for answer in answers}
    for session in several[:_EXAMPLES]:
        _show(session, by_id[session.id])
    typer.echo(
        f"\nknowledge {output / 'knowledge.jsonl'} · experts {experts} · program {program_file}\n"
        f"results {output / 'result.json'} · loss curve {experts / 'loss.png'}\n"
        f"{time.monotonic() - started:.0f} s"
    )


def _show(session: "Session", answer: "Answer") -> None:
    typer.secho(f"\n{session.id}", bold=True)
    for number, item in enumerate(session.items, start=1):
        typer.echo(f"  {number} {item.title}")
    for name, bundles in (("generated", answer.bundles), ("gold", session.bundles or ())):
        for bundle in bundles:
            numbers = " ".join(str(session.number(item_id)) for item_id in bundle.item_ids)
            typer.echo(f"  {name}: {numbers} | {bundle.intent}")
        if not bundles:
            typer.echo(f"  {name}: no bundle")
