"""``routedk distill``: knowledge from training sessions, as one JSONL with its manifest."""

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

import routedk
from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.cli.output import print_table
from routedk.cli.sample import known_scores, make_scores, training_sample
from routedk.cli.teacher import DistillCommand, distil_with, journaled_teacher, plan_with
from routedk.errors import DataError
from routedk.files import read_bytes, write_json, write_jsonl_records

KNOWLEDGE_FILE = "knowledge.jsonl"
MANIFEST_FILE = "manifest.json"
QUARANTINE_FILE = "quarantine.jsonl"

_LM = "LM teachers"


@takes_sessions(split="train")
def distill(
    source: SessionSource,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="DIR", help="Where knowledge.jsonl and manifest.json go."),
    ],
    teacher: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="annotation (offline, from gold alone), or a model by its LiteLLM name.",
        ),
    ] = "annotation",
    formats: Annotated[
        str, typer.Option(metavar="LIST", help="Of pattern, rule, thought, with commas.")
    ] = "pattern,rule,thought",
    strategy: Annotated[
        str,
        typer.Option(metavar="NAME", help="Sampling: random, length, diversity or difficulty."),
    ] = "random",
    ratio: Annotated[float, typer.Option(help="Share of training sessions, in (0, 1].")] = 1.0,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Scores for --strategy difficulty; without it the LM teacher, or the student, "
            "answers every training session first.",
        ),
    ] = None,
    max_rules: Annotated[int, typer.Option(min=0, help="Most rules.")] = 24,
    max_patterns: Annotated[int, typer.Option(min=0, help="Most patterns.")] = 50,
    min_support: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least share of bundles for a pattern.")
    ] = 0.01,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on: no answered call is made again.", rich_help_panel=_LM
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Print calls, tokens and cost expected.", rich_help_panel=_LM
        ),
    ] = False,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Stop before this many tokens in all.", rich_help_panel=_LM),
    ] = None,
    max_cost: Annotated[
        float | None,
        typer.Option(help="Stop before this many US dollars in all.", rich_help_panel=_LM),
    ] = None,
    threads: Annotated[
        int, typer.Option(min=1, help="Calls under way at once.", rich_help_panel=_LM)
    ] = 8,
    api_base: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Address of the server.", rich_help_panel=_LM),
    ] = None,
    patterns_feed_rules: Annotated[
        bool, typer.Option(help="Make rules with patterns in view.", rich_help_panel=_LM)
    ] = True,
    rules_feed_thoughts: Annotated[
        bool, typer.Option(help="Make thoughts with rules in view.", rich_help_panel=_LM)
    ] = True,
) -> None:
    """Distil patterns, rules and thoughts from the gold bundles of training sessions.

    The annotation teacher needs no network and no language model, and gives the same knowledge
    for the same sessions. Answers of an LM teacher are journaled in DIR as they come: after a
    cut, --resume goes on and pays for none twice.
    """
    from routedk.data.knowledge_file import write_knowledge
    from routedk.programs.teachers.teacher import check_formats

    command = DistillCommand(
        teacher=teacher,
        formats=check_formats([name.strip() for name in formats.split(",")]),
        strategy=strategy,
        ratio=ratio,
        scores=scores,
        max_rules=max_rules,
        max_patterns=max_patterns,
        min_support=min_support,
        resume=resume,
        max_tokens=max_tokens,
        max_cost=max_cost,
        threads=threads,
        api_base=api_base,
        patterns_feed_rules=patterns_feed_rules,
        rules_feed_thoughts=rules_feed_thoughts,
    )
    pool = [session for session in source.load() if session.bundles is not None]
    if not any(session.bundles for session in pool):
        raise DataError(
            f"the split {source.split!r} has no session with gold bundles",
            path=source.path,
            hint="knowledge is distilled from annotated sessions",
        )
    warn_untitled(pool)
    seed, known = source.options.seed, known_scores(command)
    unknown = strategy == "difficulty" and known is None
    if dry_run:
        # Which sessions are difficult is not known before they are answered: any stand for them.
        planned = replace(command, strategy="random") if unknown else command
        sample = training_sample(planned, pool, known, seed)
        plan_with(command, sample, pool if unknown else ())
        return
    with journaled_teacher(command, output) as journaled:
        if unknown:
            known = make_scores(pool, journaled, output, threads)
        sessions = training_sample(command, pool, known, seed)
        knowledge, told = distil_with(command, sessions, journaled)
    write_knowledge(knowledge, output / KNOWLEDGE_FILE)
    counts = {
        "sessions": len(sessions),
        "sessions_with_bundles": sum(bool(session.bundles) for session in sessions),
        "patterns": len(knowledge.patterns),
        "rules": len(knowledge.rules),
        "thoughts": len(knowledge.thoughts),
    }
    manifest: dict[str, Any] = {
        "kind": "routedk.knowledge",
        "teacher": teacher,
        "config": {**source.config(), **command.config()},
        "counts": counts,
        **told,
        "sessions": [session.id for session in sessions],
        "sha256": hashlib.sha256(read_bytes(output / KNOWLEDGE_FILE)).hexdigest(),
        "versions": {"routedk": routedk.__version__},
    }
    write_json(output / MANIFEST_FILE, manifest)
    print_table("Knowledge", ("kind", "count"), [(kind, counts[kind]) for kind in list(counts)[2:]])
    for rule in knowledge.rules:
        typer.echo(f"- {rule.text}")
    _tell(told, output)
    typer.echo(f"Knowledge: {output / KNOWLEDGE_FILE}")


def _tell(told: dict[str, Any], output: Path) -> None:
    """What an LM teacher's run came to; what went wrong goes to stderr and into a file."""
    path = output / QUARANTINE_FILE
    path.unlink(missing_ok=True)
    if not told:
        return
    spent, report = told["spent"], told["report"]
    in_all = spent["journal"]
    typer.echo(
        f"Calls: {spent['run']['calls']} made, {spent['replayed']} answered from the journal; in "
        f"all {in_all['calls']} calls, {in_all['tokens']} tokens, cost "
        f"{'unknown' if in_all['cost'] is None else in_all['cost']}"
    )
    dropped, failed = report["dropped_thoughts"], report["quarantined"]
    if dropped:
        typer.echo(f"Thoughts dropped, since gold does not follow: {len(dropped)}")
    if failed:
        write_jsonl_records(path, failed)
        steps = Counter(record["step"] for record in failed)
        counts = ", ".join(f"{count} of {step}s" for step, count in steps.items())
        typer.echo(f"Warning: sessions were left out, {counts}: see {path}", err=True)
    if report["stopped"]:
        typer.echo(f"Warning: not all calls were made: {report['stopped']}", err=True)
