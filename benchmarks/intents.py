"""What the known intents of labelled bundles add to the student's own.

    python -m benchmarks.intents --output intents.json [--limit 60]

The packaged bundler names the bundles of BundleRec's test sessions, with and without the vote of
known intents. Intents are compared, by cosine of their embeddings, with those of the most similar
bundle of the teacher and of gold, if its Jaccard is at least one half; differences are paired, with
95% intervals. The file holds both intents of every bundle, for a person to read.
ROUTEDK_BUNDLEREC and ROUTEDK_TEACHER name the data.
"""

import random
from copy import copy
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.command import run_command
from benchmarks.teacher import DOMAINS, Domain, data_folders, difference
from routedk import BundleGenerator, generate
from routedk.files import write_json
from routedk.programs.default_lm import default_lm
from routedk.similarity.encoders import default_encoder
from routedk.types import Bundle, Session

_LEAST_OVERLAP = 0.5


def alike(bundle: Bundle, others: list[Bundle]) -> str:
    """The intent of the most similar of other bundles; empty if none is similar enough."""
    overlaps = [
        (len(bundle.items & one.items) / len(bundle.items | one.items), one.intent)
        for one in others
    ]
    overlap, intent = max(overlaps, default=(0.0, ""))
    return intent if overlap >= _LEAST_OVERLAP else ""


def named(sessions: list[Session], store: Path) -> list[tuple[Session, Bundle, str]]:
    """Each bundle of the sessions, with its intent as the student alone states it."""
    voting = default_lm().engine.grouping
    alone = copy(voting)
    alone.intents, alone.record = None, {**voting.record, "intents": None}
    answers = generate(sessions, program=BundleGenerator(grouping=voting), store=store)
    others = generate(sessions, program=BundleGenerator(grouping=alone), store=store)
    return [
        (session, bundle, own.intent)
        for session, answer, other in zip(sessions, answers, others, strict=True)
        for bundle, own in zip(answer.bundles, other.bundles, strict=True)
    ]


def main(
    output: Annotated[Path, typer.Option(help="JSON file for the table and all intents.")],
    limit: Annotated[int | None, typer.Option(help="Sessions a domain, sampled.")] = None,
    store: Annotated[Path, typer.Option(help="Keeps the answers.")] = Path(".routedk"),
) -> None:
    """Name the bundles both ways and compare."""
    rows: list[dict[str, Any]] = []
    for name in DOMAINS:
        domain = Domain(name, *data_folders())
        tested = [session for session in domain.split["test"] if session.gold]
        if limit is not None:
            tested = random.Random(0).sample(tested, min(limit, len(tested)))
        stated = {answer.session_id: list(answer.bundles) for answer in domain.stated}
        for session, bundle, own in named(tested, store):
            rows.append(
                {
                    "domain": name,
                    "session": session.id,
                    "titles": [session.item(item).title for item in bundle.item_ids],
                    "intent": bundle.intent,
                    "own": own,
                    "teacher": alike(bundle, stated.get(session.id, [])),
                    "gold": alike(bundle, list(session.bundles or ())),
                }
            )
    encoder = default_encoder()

    def cosines(way: str, reference: str) -> list[float]:
        pairs = [(row[way], row[reference]) for row in rows if row[reference]]
        return [float(a @ b) for a, b in (encoder.encode(list(pair)) for pair in pairs)]

    table = {}
    for reference in ("teacher", "gold"):
        voted, own = cosines("intent", reference), cosines("own", reference)
        table[reference] = {
            "bundles": len(voted),
            "own": difference(own, [0.0] * len(own)),
            "voted": difference(voted, [0.0] * len(voted)),
            "voted less own": difference(voted, own),
        }
        typer.echo(f"{reference}: {table[reference]}")
    write_json(output, {"bundles": len(rows), "table": table, "rows": rows})


if __name__ == "__main__":
    run_command(main)
