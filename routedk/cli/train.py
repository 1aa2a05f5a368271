"""``routedk train``: experts and router from sessions and knowledge."""

import random
from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from routedk.cli.options import (
    KnowledgeFiles,
    SessionSource,
    UtilizationName,
    load_knowledge,
    takes_sessions,
    warn_untitled,
)
from routedk.cli.output import log_progress, print_table
from routedk.errors import DataError


@takes_sessions(split="train")
def train(
    source: SessionSource,
    knowledge: KnowledgeFiles,
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the experts and the router go.")
    ],
    student: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Folder or hub name of a causal LM; embedded if unset."),
    ] = None,
    r: Annotated[int, typer.Option(min=1, help="Rank of each expert.")] = 8,
    lora_alpha: Annotated[int, typer.Option(min=1, help="LoRA scaling is lora_alpha / r.")] = 16,
    layers: Annotated[
        int, typer.Option(min=0, help="Uppermost layers that get experts; 0 for all.")
    ] = 8,
    epochs: Annotated[float, typer.Option(help="Passes of the base expert over its rows.")] = 6.0,
    learning_rate: Annotated[float, typer.Option(help="Peak for the base expert.")] = 2e-3,
    knowledge_share: Annotated[
        float, typer.Option(help="Share of rows that the rule and thought experts are trained on.")
    ] = 0.3,
    knowledge_epochs: Annotated[float, typer.Option(help="Passes over these rows.")] = 3.0,
    router_share: Annotated[
        float, typer.Option(help="Share of rows that the router is trained on.")
    ] = 0.1,
    router_epochs: Annotated[float, typer.Option(help="Passes over these rows.")] = 2.0,
    fusion: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="How experts are fused: softmax, static, top1, layerwise, sparsegen, uniform or "
            "single:EXPERT.",
        ),
    ] = "softmax",
    answer_form: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What experts learn to write: item-intents; bundles, which the thought expert "
            "writes after its thought; or verification, yes or no to a candidate bundle.",
        ),
    ] = "item-intents",
    utilization: UtilizationName = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Sessions per step.")] = 4,
    max_sessions: Annotated[
        int | None, typer.Option(min=1, help="Train on a seeded sample of this many sessions.")
    ] = None,
) -> None:
    """Train three LoRA experts under the frozen student, then the router over them.

    A run that was killed goes on where its last checkpoint was when the same command is given
    again.
    """
    from routedk.adapters.examples import check_form
    from routedk.adapters.fit import FitSettings, fit
    from routedk.adapters.routed import ExpertSettings, check_replaceable, read_routing
    from routedk.adapters.student import DEFAULT_STUDENT, load_student
    from routedk.adapters.training import TrainingSettings
    from routedk.programs.utilization import check_trains

    form = check_form(answer_form)
    check_trains(utilization)

    log_progress()
    sessions = [session for session in source.load() if session.bundles]
    if not sessions:
        raise DataError(
            f"the split {source.split!r} has no session with gold bundles",
            path=source.path,
            hint="experts are trained on annotated sessions",
        )
    warn_untitled(sessions)
    seed = source.options.seed
    if max_sessions is not None and max_sessions < len(sessions):
        sessions = random.Random(seed).sample(sessions, max_sessions)

    def stage(passes: float, rate: float, share: float = 1.0) -> TrainingSettings:
        return TrainingSettings(
            share=share, epochs=passes, learning_rate=rate, batch_size=batch_size, seed=seed
        )

    settings = FitSettings(
        experts=ExpertSettings(r=r, lora_alpha=lora_alpha, layers=layers or None),
        base=stage(epochs, learning_rate),
        knowledge=stage(knowledge_epochs, learning_rate / 2, knowledge_share),
        router=stage(router_epochs, 2e-2, router_share),
        fusion=fusion,
        answer_form=form,
        utilization=utilization,
        seed=seed,
    )
    parts = source.load_parts()
    test = parts["test"] if source.split == "train" else []
    base_of_knowledge = load_knowledge(knowledge, chain(*parts.values()), test)
    check_replaceable(output)
    routed = fit(
        load_student(student or DEFAULT_STUDENT), sessions, base_of_knowledge, output, settings
    )
    rows = [
        (stage, f"{tokens:,}")
        for stage, tokens in read_routing(output)["training"]["tokens"].items()
    ]
    print_table("Training", ("stage", "tokens seen"), rows)
    typer.echo(f"Experts: {', '.join(routed.adapters)}; fusion: {routed.fusion_name}")
    typer.echo(f"Saved in {output}, the loss curve in {output / 'loss.png'}")
