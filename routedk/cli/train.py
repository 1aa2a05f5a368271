"""``routedk train``: grouping, experts and router from sessions and knowledge."""

import typer

import routedk
from routedk.adapters.train import TrainConfig
from routedk.artifacts import check_output, copy_artifact
from routedk.cli.config_options import with_config_options
from routedk.cli.output import OutputFolder, is_main_process, print_table
from routedk.cli.sessions import DataPath, KnowledgeFiles, Split, load_knowledge, load_parts
from routedk.data import DataOptions


@with_config_options
def train(
    data: DataPath,
    knowledge: KnowledgeFiles,
    output: OutputFolder,
    config: TrainConfig,
    options: DataOptions,
    split: Split = "train",
) -> None:
    """Train the grouping of items, three LoRA experts that name bundles, and the router over them.

    The same command resumes an interrupted run from its last checkpoint. Several processes share
    the work under accelerate launch --multi_gpu --num_processes 2 -m routedk train ..., on GPUs or,
    if there are none, on CPUs.

    Example: routedk train --data demo --knowledge knowledge/knowledge.jsonl --output experts
    """
    from routedk.adapters.experts.routing_file import read_routing

    check_output(output)
    parts = load_parts(data, options, split)
    folder = routedk.train(parts[split], load_knowledge(knowledge, parts), config)
    if not is_main_process():
        return
    copy_artifact(folder, output)
    document = read_routing(output)
    print_table("Training", ("stage", "tokens seen"), document["training"]["tokens"].items())
    typer.echo(f"Experts: {', '.join(document['experts'])}; fusion: {document['fusion']}")
    typer.echo(f"Saved in {output}, the loss curve in {output / 'loss.png'}")
