"""``routedk distill``: knowledge from training sessions, as one JSONL with its manifest."""

import hashlib
from pathlib import Path
from typing import Annotated

import typer

import routedk
from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.cli.output import print_table
from routedk.errors import DataError
from routedk.files import read_bytes, write_json

KNOWLEDGE_FILE = "knowledge.jsonl"
MANIFEST_FILE = "manifest.json"


@takes_sessions(split="train")
def distill(
    source: SessionSource,
    output: Annotated[
        Path,
        typer.Option("--output", metavar="DIR", help="Where knowledge.jsonl and manifest.json go."),
    ],
    max_rules: Annotated[int, typer.Option(min=0, help="Most rules.")] = 24,
    max_patterns: Annotated[int, typer.Option(min=0, help="Most patterns.")] = 50,
    min_support: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Least share of bundles for a pattern.")
    ] = 0.01,
) -> None:
    """Distil patterns, rules and thoughts from the gold bundles of training sessions.

    The annotation teacher needs no network and no language model, and gives the same knowledge
    for the same sessions.
    """
    from routedk.programs.annotation import TEACHER, AnnotationTeacher
    from routedk.programs.knowledge_file import write_knowledge

    sessions = source.load()
    if not any(session.bundles for session in sessions):
        raise DataError(
            f"the split {source.split!r} has no session with gold bundles",
            path=source.path,
            hint="knowledge is distilled from annotated sessions",
        )
    warn_untitled(sessions)
    teacher = AnnotationTeacher(
        max_rules=max_rules, max_patterns=max_patterns, min_support=min_support
    )
    knowledge = teacher.distill(sessions)
    write_knowledge(knowledge, output / KNOWLEDGE_FILE)
    counts = {
        "sessions": len(sessions),
        "sessions_with_bundles": sum(bool(session.bundles) for session in sessions),
        "patterns": len(knowledge.patterns),
        "rules": len(knowledge.rules),
        "thoughts": len(knowledge.thoughts),
    }
    manifest = {
        "kind": "routedk.knowledge",
        "teacher": TEACHER,
        "config": {
            **source.config(),
            "max_rules": max_rules,
            "max_patterns": max_patterns,
            "min_support": min_support,
        },
        "counts": counts,
        "sha256": hashlib.sha256(read_bytes(output / KNOWLEDGE_FILE)).hexdigest(),
        "versions": {"routedk": routedk.__version__},
    }
    write_json(output / MANIFEST_FILE, manifest)
    print_table("Knowledge", ("kind", "count"), [(kind, counts[kind]) for kind in list(counts)[2:]])
    for rule in knowledge.rules:
        typer.echo(f"- {rule.text}")
    typer.echo(f"Knowledge: {output / KNOWLEDGE_FILE}")
