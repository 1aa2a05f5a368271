"""``routedk export``: routed experts for servers without routing."""

from pathlib import Path
from typing import Annotated

import typer

from routedk.adapters.export.export import ExportConfig
from routedk.cli.config_options import with_config_options


@with_config_options
def export(
    experts: Annotated[Path, typer.Option(metavar="DIR", help="Experts that routedk train wrote.")],
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the export.")],
    config: ExportConfig,
) -> None:
    """Write the experts as one plain PEFT LoRA, or as full weights.

    Any server for LoRAs or causal LMs can then serve the student; the card, README.md, says how
    to serve and prompt it. All sessions are then answered with the same gates: evaluate the
    export before you serve it.

    Example: routedk export --experts experts --fusion merged --output lora
    """
    from routedk.adapters.export.export import export_experts

    export_experts(experts, output, config)
    what = "with your own gates" if config.gates else f"with fusion {config.fusion or 'merged'}"
    form = "full weights" if config.full else "a plain LoRA"
    typer.echo(f"Exported {form} {what} to {output}")
