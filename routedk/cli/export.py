"""``routedk export``: routed experts for engines that know nothing of routing."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.cli.output import print_table, quiet_libraries
from routedk.errors import DataError, SettingError

Form = Literal["lora", "full", "prototypes"]


@takes_sessions(split="train", default="")
def export(
    source: SessionSource,
    experts: Annotated[Path, typer.Option(metavar="DIR", help="Experts that routedk train wrote.")],
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Where the export goes: a new folder.")
    ],
    fusion: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Gates that are the same for every session: merged (the router's mean, the "
            "default), static, uniform or single:EXPERT. With --form prototypes the router's own.",
        ),
    ] = None,
    gates: Annotated[
        str | None,
        typer.Option(metavar="NAME=SHARE,...", help="Gates of your own, instead of --fusion."),
    ] = None,
    form: Annotated[
        Form,
        typer.Option(
            help="lora: one plain LoRA. full: the student with the experts in its weights. "
            "prototypes: a few plain LoRAs, and which session is answered by which."
        ),
    ] = "lora",
    full: Annotated[bool, typer.Option("--full", help="The same as --form full.")] = False,
    k: Annotated[int | None, typer.Option("--k", min=1, help="Number of prototypes.")] = None,
    program: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="program.json, under whose prompts prototypes are measured; none: session only.",
        ),
    ] = None,
    sample: Annotated[
        int, typer.Option(min=1, help="Held-out sessions whose answers prototypes are measured on.")
    ] = 20,
    max_rank: Annotated[
        int | None,
        typer.Option(min=1, help="Refuse a LoRA of a higher rank; a server may have a limit."),
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut it down to --max-rank by SVD instead.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Results of routedk evaluate, for the card."),
    ] = None,
) -> None:
    """Write the experts as one plain PEFT LoRA, as full weights, or as prototypes.

    Any engine that serves LoRAs or causal LMs can then serve the student; the card, README.md,
    says how it is served and asked. In a LoRA or full weights, sessions are no longer routed each
    in its own way: evaluate before you serve it. Prototypes, for servers of many LoRAs, keep the
    routing roughly: --data names the sessions whose gates are clustered into --k of them, and
    what is lost is measured on the validation split, or on the test split where that is empty.
    """
    from routedk.adapters.experts.routed import RoutedStudent, read_routing
    from routedk.adapters.export.card import result_facts, training_facts
    from routedk.adapters.export.export import check_new

    quiet_libraries()
    if full and form == "prototypes":
        raise SettingError("give --full or --form prototypes, not both")
    chosen: Form = "full" if full else form
    _check_options(
        chosen,
        source,
        fusion=fusion,
        gates=gates,
        k=k,
        max_rank=max_rank,
        truncate=truncate,
        program=program,
    )
    check_new(output)
    given = None if gates is None else parse_gates(gates)
    card: dict[str, Any] = training_facts(read_routing(experts))
    if results is not None:
        card |= result_facts(results)
    options = {
        "--experts": experts.name,
        "--fusion": fusion,
        "--gates": gates,
        "--form": None if chosen == "lora" else chosen,
        "--k": k,
        "--data": Path(source.path).name or None,
        "--program": program and program.name,
        "--sample": sample if chosen == "prototypes" else None,
        "--results": results and results.name,
        "--split": source.split if chosen == "prototypes" else None,
        "--seed": source.options.seed if chosen == "prototypes" else None,
        "--max-rank": max_rank,
    }
    shown = " ".join(f"{name} {value}" for name, value in options.items() if value is not None)
    card["command"] = f"routedk export {shown}{' --truncate' * truncate} --output {output.name}"
    if chosen == "prototypes":
        limits = {"max_rank": max_rank, "truncate": truncate, "sample": sample}
        _export_prototypes(source, experts, output, k or 0, program, limits, card)
        return
    # Gates of one's own need no router.
    loaded = "uniform" if given is not None else fusion or "merged"
    routed = RoutedStudent.load(experts, fusion=loaded)
    what = "with gates of your own" if given is not None else f"with fusion {loaded}"
    _export_one(routed, output, chosen, given, {"max_rank": max_rank, "truncate": truncate}, card)
    typer.echo(
        f"Exported {'full weights' if chosen == 'full' else 'a plain LoRA'} {what} to {output}"
    )


def parse_gates(text: str) -> dict[str, float]:
    """Gates as they stand on the command line, ``base=.5,rule=.5``.

    Raises:
        SettingError: They are not of that form, or name an expert twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = (piece.strip() for piece in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not name or name in found or value < 0:
            raise SettingError(
                f"--gates {text}: {part!r} is no NAME=SHARE of its own; write e.g. base=.5,rule=.5"
            )
        found[name] = value
    return found


def _check_options(
    form: Form,
    source: SessionSource,
    *,
    fusion: str | None,
    gates: str | None,
    k: int | None,
    max_rank: int | None,
    truncate: bool,
    program: Path | None,
) -> None:
    if form == "prototypes" and (not source.path or k is None):
        raise SettingError(
            "--form prototypes: give --data PATH and --k NUMBER; the router's gates over these "
            "sessions are clustered into so many"
        )
    if form == "prototypes" and (fusion or gates):
        raise SettingError("--form prototypes takes the router's own gates: no --fusion, --gates")
    if form != "prototypes" and k is not None:
        raise SettingError(f"--k {k}: is of --form prototypes")
    if fusion and gates:
        raise SettingError("give --fusion or --gates, not both")
    if form == "full" and (truncate or max_rank is not None):
        raise SettingError("--max-rank, --truncate: full weights have no rank, leave them out")
    if form != "prototypes" and (program or source.path):
        raise SettingError("--data, --program: are of --form prototypes")


def _export_one(
    routed: Any,
    output: Path,
    form: Form,
    gates: dict[str, float] | None,
    limits: dict[str, Any],
    card: dict[str, Any],
) -> None:
    from routedk.adapters.export.export import export_lora, export_model

    if form == "full":
        export_model(routed, output, card, gates=gates)
    else:
        export_lora(routed, output, card, gates=gates, **limits)


def _export_prototypes(
    source: SessionSource,
    experts: Path,
    output: Path,
    k: int,
    program: Path | None,
    limits: dict[str, Any],
    card: dict[str, Any],
) -> None:
    from routedk.adapters.experts.routed import RoutedStudent, read_routing
    from routedk.adapters.export.prototype_export import PrototypeSettings, export_prototypes
    from routedk.adapters.training.examples import DEFAULT_FORM, written_by
    from routedk.programs.generator import BundleGenerator
    from routedk.programs.program_file import load_program

    sessions = source.load()
    mine = {session.id for session in sessions}
    parts = source.load_parts()
    left = [
        [session for session in parts[name] if session.id not in mine] for name in ("val", "test")
    ]
    held_out = left[0] or left[1]
    if not sessions or not held_out:
        raise DataError(
            f"the split {source.split!r} leaves no session to cluster, or none to measure on",
            path=source.path,
            hint="take --split train, and data with a validation or test split",
        )
    warn_untitled([*sessions, *held_out])
    document = read_routing(experts)
    answers = (document.get("training") or {}).get("answer_form", DEFAULT_FORM)
    if answers == "verification":
        raise SettingError(
            f"{experts}: prototypes are compared with exact routing by what they answer, and "
            "experts that verify answer nothing: export them as a LoRA with --gates"
        )
    runner = load_program(program) if program is not None else BundleGenerator()
    runner.knowledge = runner.knowledge.without(session.id for session in held_out)
    found = export_prototypes(
        RoutedStudent.load(experts),
        output,
        {session.id: runner.messages(session) for session in sessions},
        {session.id: runner.messages(session) for session in held_out},
        PrototypeSettings(
            k=k, seed=source.options.seed, form=written_by(document["experts"], answers), **limits
        ),
        card,
    )
    print_table("Fidelity", ("against exact routing", ""), list(found.lines().items()))
    typer.echo(f"Exported {k} prototypes to {output}")
