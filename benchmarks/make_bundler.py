"""Makes the general bundler that the package carries, from a teacher's recorded answers.

    python -m benchmarks.make_bundler --output routedk/bundler

About half an hour on two cores. ROUTEDK_BUNDLEREC and ROUTEDK_TEACHER name the data.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.command import run_command
from benchmarks.teacher import DOMAINS, Domain, data_folders
from routedk import KnowledgeBase, Session, TrainConfig, train
from routedk.artifacts import check_output, copy_artifact
from routedk.programs import of_domain
from routedk.types import TeacherAnswer

# One expert: there is no other knowledge that all shops share, and the wheel stays small.
CONFIG = TrainConfig(labels="teacher", expert_names=("base",), epochs=1)


def main(
    output: Annotated[Path, typer.Option(help="Folder that the bundler goes to.")],
) -> None:
    """Train the general bundler on the teacher's answers of both domains."""
    check_output(output)
    domains = [Domain(name, *data_folders()) for name in DOMAINS]
    sessions: list[Session] = []
    answers: list[TeacherAnswer] = []
    for domain in domains:
        # Ids are unique only within a data set.
        sessions += [
            replace(one, id=f"{domain.name}:{one.id}", bundles=None)
            for one in domain.split["train"]
        ]
        answers += of_domain(domain.knowledge, domain.name).answers
    folder = train(sessions, KnowledgeBase(answers=tuple(answers)), CONFIG)
    copy_artifact(folder, output)
    size = sum(path.stat().st_size for path in output.rglob("*") if path.is_file())
    typer.echo(f"{output}: {size / 2**20:.1f} MB from {len(sessions)} sessions")


if __name__ == "__main__":
    run_command(main)
