"""The program of a trial: what of the knowledge its prompt shows, and how its answers are grouped.

The settings say what is shown: nothing is chosen here but the grouping, on the validation sessions,
and that only where experts write item intents. The student as it comes writes bundles.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import dspy

from routedk.artifacts.recipe import content_hash
from routedk.artifacts.store import Artifact
from routedk.optimizers.grouping_search import GroupingSearch
from routedk.optimizers.metric import as_examples
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.stages.common import Common, Ledger
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.program_file import save_program
from routedk.types import KnowledgeBase

PROGRAM = "program.json"


def compiled(
    ledger: Ledger,
    settings: TrialSettings,
    knowledge: KnowledgeBase,
    experts: Artifact | None,
    lm: Any,
) -> Artifact:
    """The program of a trial.

    Args:
        ledger: Of the trial.
        settings: Its settings.
        knowledge: What was distilled, in its formats.
        experts: Its experts; None where none are trained.
        lm: Called for the student with these experts, where it is asked.
    """
    common = ledger.common
    shown = shown_knowledge(common, settings, knowledge)

    def make(out: Path, work: Path) -> None:
        program = BundleGenerator(shown)
        program.utilization = settings.utilization
        if experts is not None:
            with dspy.context(lm=lm()):
                program = GroupingSearch(num_threads=common.threads).compile(
                    program,
                    trainset=as_examples(common.annotated),
                    valset=as_examples(common.validation),
                )
        save_program(program, out / PROGRAM)

    inputs: dict[str, Any] = {}
    if shown.k:
        inputs |= {"train": common.train_hash, "thoughts": content_hash(dict(shown.thoughts))}
    if shown.rules:
        inputs["rules"] = content_hash(shown.rules)
    if shown.patterns:
        inputs["patterns"] = content_hash([asdict(pattern) for pattern in shown.patterns])
    reads: dict[str, Any] = {
        "utilization": settings.utilization,
        "neighbours": shown.k,
        "rules": shown.rules_shown,
        "patterns": shown.patterns_shown,
        "retriever": shown.retriever if shown.k else None,
    }
    if experts is not None:
        inputs |= {
            "experts": experts.key,
            "student": common.fingerprint,
            "train": common.train_hash,
            "validation": common.validation_hash,
        }
        reads["dtype"] = common.precision
    return ledger.obtain("program", make, inputs=inputs, settings=reads)


def shown_knowledge(
    common: Common, settings: TrialSettings, knowledge: KnowledgeBase
) -> CompiledKnowledge:
    """What prompts show: nothing unless the utilization says so.

    Args:
        common: What all trials share.
        settings: The trial's.
        knowledge: What was distilled, in its formats.
    """
    if not settings.use.prompts:
        return CompiledKnowledge()
    # A session that nobody annotated is no example.
    k = min(settings.neighbours, len(common.annotated))
    thoughts = {thought.session_id: thought.text for thought in knowledge.thoughts} if k else {}
    return CompiledKnowledge(
        patterns=knowledge.patterns,
        patterns_shown=common.patterns_shown if knowledge.patterns else None,
        rules=tuple(rule.text for rule in knowledge.rules) if settings.rules else (),
        rules_shown=settings.rules or None,
        k=k,
        sessions=common.annotated if k else (),
        thoughts=thoughts,
        show_thoughts=bool(thoughts),
        retriever=common.retriever,
    )
