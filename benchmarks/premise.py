"""Does mixing knowledge hurt a small student, and what is each kind of knowledge worth?

    python -m benchmarks.premise --domain clothing --output premise

RouteDK's premise, with a large model's recorded answers as the knowledge: its rules, and its
reasons and item intents as thoughts. The student names the intent of each item (the answer form
`item-intents`), so that it groups the items itself. Every expert is trained from the base expert's
weights on the same sessions; `mixed` is one LoRA that is trained on the rows of both. Scores are
against annotators' gold, with paired 95% intervals. Whatever was made is kept in the output folder:
a run that was interrupted resumes. ROUTEDK_BUNDLEREC and ROUTEDK_TEACHER name the data.
"""

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from benchmarks.command import run_command
from benchmarks.teacher import Domain, data_folders, difference
from routedk import Answer, GenerateConfig, Session, TrainConfig, generate, student_lm
from routedk.adapters.train import choose_lessons, shown_knowledge
from routedk.adapters.training.examples import Lesson, seen_by
from routedk.adapters.training.run import TrainingRun
from routedk.eval.protocols import matched_f1
from routedk.files import write_json
from routedk.programs import BundleGenerator
from routedk.programs.grouping.similar_intents import SimilarIntents
from routedk.programs.knowledge.compiled import NO_KNOWLEDGE, CompiledKnowledge
from routedk.programs.labels import Labels, choose_labels
from routedk.programs.prompting.item_intents import compose_bundles

FORM = "item-intents"
SIMILAR = SimilarIntents(weight=0.25, threshold=0.7)


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    Args:
        name: The system.
        shown: The knowledge in its prompt: none, rules or thoughts.
        labels: What its experts were trained on; empty where there are none.
        experts: Their folder.
        fusion: How they are fused; None as they were saved.
    """

    name: str
    shown: str = "none"
    labels: str = ""
    experts: Path | None = None
    fusion: str | None = None


class Premise:
    """The systems of one domain.

    Args:
        domain: Its data.
        sessions: Training sessions, a seeded sample.
        epochs: Passes over them, for every expert.
        store: Keeps what is made.
    """

    def __init__(self, domain: Domain, sessions: int, epochs: float, store: Path) -> None:
        self.domain, self.store = domain, store
        config: Any = {"answer_form": FORM, "max_sessions": sessions, "epochs": epochs}
        self.config = TrainConfig(**config, knowledge_share=1.0, knowledge_epochs=epochs)
        self.knowledge: dict[str, CompiledKnowledge] = {"none": NO_KNOWLEDGE}

    def cells(self) -> Iterator[Cell]:
        """The rows, each after what it needs was trained."""
        experts, mixed = self.train()
        shown = ("none", "rules", "thoughts")
        for kind in shown:
            yield Cell("student, not trained", kind)
        yield Cell("base expert", "none", "teacher", experts, "single:base")
        for kind, expert in (("rules", "rule"), ("thoughts", "thought")):
            for prompt in ("none", kind):
                yield Cell(f"{kind} only", prompt, "teacher", experts, f"single:{expert}")
        for prompt in shown:
            yield Cell("mixed in one LoRA", prompt, "teacher", mixed, "single:rule")
        for prompt in shown:
            yield Cell("routed", prompt, "teacher", experts)
        yield Cell("uniform", "none", "teacher", experts, "uniform")
        for labels in ("gold", "both"):
            yield Cell("base expert", "none", labels, self.train_base(labels), "single:base")

    def lessons(self, labels: Labels) -> list[Lesson]:
        """What is learned from the sampled sessions."""
        known = self.domain.knowledge
        labelled = self.config.sampled(choose_labels(self.domain.split["train"], known, labels))
        learnt = [one for label in labelled for one in label.sessions if one.bundles]
        return choose_lessons(learnt, known, FORM)

    def train(self) -> tuple[Path, Path]:
        """The folders of the routed experts and of the mixed one."""
        lessons = self.lessons("teacher")
        shown = shown_knowledge(lessons, self.domain.knowledge, FORM)
        self.knowledge["rules"] = seen_by("rule", shown["rule"])
        self.knowledge["thoughts"] = seen_by("thought", shown["thought"])
        run = TrainingRun(self.config, self.store)
        rows = run.rows(lessons, shown)
        both = {"base": rows["base"], "rule": [*rows["rule"], *rows["thought"]]}
        mixed = TrainingRun(replace(self.config, expert_names=("base", "rule")), self.store)
        return run.train(rows), mixed.train(both)

    def train_base(self, labels: Labels) -> Path:
        """The folder of a base expert that was trained on other labels."""
        run = TrainingRun(replace(self.config, expert_names=("base",)), self.store)
        return run.train(run.rows(self.lessons(labels), {"base": NO_KNOWLEDGE}))

    def answers(self, cell: Cell, sessions: list[Session]) -> list[Answer]:
        """A system's answers."""
        lm = student_lm(cell.experts, fusion=cell.fusion, form=FORM)
        with closing(lm.engine):
            program = BundleGenerator(self.knowledge[cell.shown], SIMILAR)
            return generate(sessions, GenerateConfig(), program=program, lm=lm, store=self.store)


def scores(sessions: list[Session], answers: list[Answer], *, equal: bool) -> list[float]:
    """Matched F1 of each session, of bundles by equal intents or by similar ones."""
    return [
        matched_f1(
            session.gold,
            [b.items for b in compose_bundles(answer.item_intents, session)]
            if equal
            else answer.items,
        )
        for session, answer in zip(sessions, answers, strict=True)
    ]


def main(
    domain: Annotated[str, typer.Option(help="electronic or clothing.")],
    output: Annotated[Path, typer.Option(help="Folder for the store and the table.")],
    sessions: Annotated[int, typer.Option(help="Training sessions.")] = 100,
    epochs: Annotated[float, typer.Option(help="Passes over them.")] = 1.0,
    test: Annotated[int | None, typer.Option(help="Test sessions, a seeded sample.")] = None,
) -> None:
    """Train, answer and score every system of a domain."""
    data = Domain(domain, *data_folders())
    tested = [session for session in data.split["test"] if session.gold]
    if test is not None:
        tested = random.Random(0).sample(tested, test)
    premise = Premise(data, sessions, epochs, output / "store")
    table: list[dict[str, Any]] = []
    found: dict[str, list[float]] = {}
    for cell in premise.cells():
        answers = premise.answers(cell, tested)
        name = f"{cell.name} | {cell.labels or 'none'} | {cell.shown}"
        row: dict[str, Any] = {"system": cell.name, "labels": cell.labels, "prompt": cell.shown}
        for way in ("equal", "similar"):
            f1 = scores(tested, answers, equal=way == "equal")
            row[way] = difference(f1, [0.0] * len(f1))
            found[f"{name} | {way}"] = f1
        row["tokens"] = round(fmean(a.input_tokens + a.output_tokens for a in answers), 1)
        table.append(row)
        typer.echo(f"{domain}: {name}: {row['equal']} {row['similar']} {row['tokens']}")
        document = {"sessions": sessions, "epochs": epochs, "test": len(tested), "rows": table}
        write_json(output / f"{domain}.json", {**document, "scores": found})
    for one, other, prompts in (
        ("mixed in one LoRA", "rules only", ("none", "rules")),
        ("mixed in one LoRA", "thoughts only", ("none", "thoughts")),
        ("routed", "mixed in one LoRA", ("none", "rules", "thoughts")),
        ("routed", "uniform", ("none",)),
    ):
        for way in ("equal", "similar"):
            pairs = [
                [fmean(values) for values in zip(*(found[key] for key in keys), strict=True)]
                for keys in (
                    [f"{system} | teacher | {prompt} | {way}" for prompt in prompts]
                    for system in (one, other)
                )
            ]
            typer.echo(f"{one} - {other}, {way}: {difference(*pairs)}")


if __name__ == "__main__":
    run_command(main)
