"""``routedk train``: experts and router from sessions and knowledge."""

import random
from dataclasses import replace
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
from routedk.cli.output import log_progress, print_table, silence_libraries
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
    router_training: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What the router learns from: answer (its cross-entropy, experts frozen), "
            "supervised (what each expert alone loses on each prompt) or joint (the answer, with "
            "the experts).",
        ),
    ] = "answer",
    router_share: Annotated[
        float | None,
        typer.Option(
            help="Share of rows that the router is trained on.",
            show_default="answer .1, joint .3, supervised 1",
        ),
    ] = None,
    router_epochs: Annotated[
        float | None,
        typer.Option(
            help="Passes over these rows.", show_default="answer 2, joint 1, supervised 10"
        ),
    ] = None,
    experts_from: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="From where in a prompt experts are active: start, or session (its first token; "
            "what stands before is then computed once for all sessions).",
        ),
    ] = "start",
    router_input: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What the router sees: the mean embedding of the session or of the whole prompt, "
            "or the mean hidden state below the experts: session-hidden, prompt-hidden.",
        ),
    ] = "session",
    temperature: Annotated[
        float, typer.Option(help="Of supervised router training, in nats per token.")
    ] = 0.1,
    balance: Annotated[
        float, typer.Option(help="Weight of the loss that has all experts used alike.")
    ] = 0.0,
    sparsity: Annotated[
        float, typer.Option(help="Weight of the loss that has few experts used at a time.")
    ] = 0.0,
    experts: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Experts that are trained already: only a router is, over a copy of them. Their "
            "shape and answer form are kept.",
        ),
    ] = None,
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
    one_by_one: Annotated[
        bool,
        typer.Option("--one-by-one", help="Train the knowledge experts in a run of its own each."),
    ] = False,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option("--gradient-checkpointing", help="Take less memory and more time."),
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Sessions per step and process.")] = 4,
    max_sessions: Annotated[
        int | None, typer.Option(min=1, help="Train on a seeded sample of this many sessions.")
    ] = None,
) -> None:
    """Train three LoRA experts under the frozen student, then the router over them.

    A run that was killed goes on where its last checkpoint was when the same command is given
    again. Several processes share the work under accelerate launch --multi_gpu --num_processes 2
    -m routedk train ..., on GPUs or, where there are none, on CPUs.
    """
    from routedk.adapters.experts.routed import check_replaceable
    from routedk.adapters.experts.routing_file import ExpertSettings, read_routing, settings_of
    from routedk.adapters.student import DEFAULT_STUDENT, load_student
    from routedk.adapters.training.examples import check_form
    from routedk.adapters.training.fit import fit
    from routedk.adapters.training.plan import TrainingPlan
    from routedk.adapters.training.processes import is_main, join, warn_alone
    from routedk.programs.knowledge.utilization import check_trains

    form = check_form(answer_form)
    check_trains(utilization)
    shape = ExpertSettings(
        r=r,
        lora_alpha=lora_alpha,
        layers=layers or None,
        router_input=router_input,
        experts_from=experts_from,
    )
    if experts is not None:
        document = read_routing(experts)
        shape = replace(settings_of(document), router_input=router_input)
        form = check_form((document.get("training") or {}).get("answer_form", form))

    join()
    if is_main():
        log_progress()
        warn_alone()
    else:
        silence_libraries()
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

    plan = TrainingPlan(
        epochs=epochs,
        learning_rate=learning_rate,
        knowledge_share=knowledge_share,
        knowledge_epochs=knowledge_epochs,
        router_training=router_training,
        router_share=router_share,
        router_epochs=router_epochs,
        temperature=temperature,
        balance=balance,
        sparsity=sparsity,
        batch_size=batch_size,
        gradient_checkpointing=gradient_checkpointing,
    )
    settings = plan.fit_settings(
        shape,
        fusion=fusion,
        one_by_one=one_by_one,
        answer_form=form,
        utilization=utilization,
        seed=seed,
    )
    parts = source.load_parts()
    test = parts["test"] if source.split == "train" else []
    base_of_knowledge = load_knowledge(knowledge, chain(*parts.values()), test)
    check_replaceable(output)
    base_student = load_student(student or DEFAULT_STUDENT)
    routed = fit(base_student, sessions, base_of_knowledge, output, settings, experts=experts)
    if not is_main():
        return
    rows = [
        (stage, f"{tokens:,}")
        for stage, tokens in read_routing(output)["training"]["tokens"].items()
    ]
    print_table("Training", ("stage", "tokens seen"), rows)
    typer.echo(f"Experts: {', '.join(routed.adapters)}; fusion: {routed.fusion_name}")
    typer.echo(f"Saved in {output}, the loss curve in {output / 'loss.png'}")
