"""``routedk review``: a page to look at bundles and correct them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

import routedk
from routedk.cli.config_options import with_config_options
from routedk.cli.output import progress
from routedk.cli.sessions import DataPath, Split, load_split
from routedk.data import DataOptions
from routedk.review.run import ReviewConfig
from routedk.types import Answer, Session


@with_config_options
def review(
    data: DataPath,
    config: ReviewConfig,
    options: DataOptions,
    predictions: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Bundles of routedk generate to begin with.")
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="Where the accepted sessions go, as gold.")
    ] = Path("reviewed.jsonl"),
    split: Split = "all",
) -> None:
    """Look at bundles in a browser, correct them and accept them as gold.

    Without --predictions, a session starts with its own bundles or, if it is not annotated, with
    those of the packaged bundler. Every edit is saved at once; to train on what was accepted, give
    the output as --data. The same command resumes the review, and several may share an output.

    Example: routedk review --data sessions.jsonl --predictions bundles.jsonl --output gold.jsonl
    """
    from routedk.review.run import review

    sessions = load_split(data, options, split)
    review(sessions, _proposed(sessions, predictions, config.rules), output, config)


def _proposed(
    sessions: Sequence[Session], predictions: Path | None, rules: Path | None
) -> Iterator[Answer]:
    from routedk.eval.predictions import read_predictions

    if predictions is not None:
        yield from read_predictions(predictions, sessions)
        return
    yield from (Answer(one.id, one.bundles) for one in sessions if one.bundles is not None)
    if unknown := [session for session in sessions if session.bundles is None]:
        with progress() as show:
            for number, answer in enumerate(
                routedk.stream_answers(unknown, routedk.GenerateConfig(rules=rules)), start=1
            ):
                show("sessions", number, len(unknown))
                yield answer
