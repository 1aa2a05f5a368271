"""``routedk export``: routed experts for engines that know nothing of routing."""

from pathlib import Path
from typing import Annotated

import typer

from routedk.cli.output import quiet_libraries


def export(
    experts: Annotated[Path, typer.Option(metavar="DIR", help="Experts that routedk train wrote.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the export goes: a new folder.")
    ],
    fusion: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Gates that are the same for every session: merged (the router's mean), static, "
            "uniform or single:EXPERT.",
        ),
    ] = "merged",
    full: Annotated[
        bool, typer.Option("--full", help="Fold the experts into the student's own weights.")
    ] = False,
) -> None:
    """Write the experts as one plain PEFT LoRA, or the student with them as full weights.

    Any engine that serves LoRAs or causal LMs can then serve the student; the model card says how
    it is to be asked. With merged, sessions are no longer routed each in its own way: evaluate
    before you serve it.
    """
    from routedk.adapters.export import check_new, export_lora, export_model
    from routedk.adapters.routed import RoutedStudent, read_routing

    quiet_libraries()
    check_new(output)
    routed = RoutedStudent.load(experts, fusion=fusion)
    training = read_routing(experts).get("training") or {}
    facts = {
        "answer form": training.get("answer_form"),
        "training sessions": training.get("sessions"),
        "tokens seen": training.get("tokens"),
        "command": f"routedk export --experts {experts.name} --fusion {fusion}{' --full' * full}",
    }
    card = {name: fact for name, fact in facts.items() if fact is not None}
    (export_model if full else export_lora)(routed, output, card)
    what = "full weights" if full else "a plain LoRA"
    typer.echo(f"Exported {what} with fusion {fusion} to {output}")
