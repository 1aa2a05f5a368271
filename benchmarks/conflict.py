"""Does knowledge mixed naively into one small student hurt it, and does routing help?

    python -m benchmarks.conflict --data bundlerec/electronic --extra-titles titles.csv \
        --split-file split.json --knowledge be/knowledge/knowledge.jsonl --output conflict.json

The premise of RouteDK (arXiv 2508.17250), measured. Four systems over the same student are
trained on the same number of tokens, of prompts too: ``rules`` (one LoRA, prompts with the rules
nearest to the session), ``thoughts`` (one LoRA, prompts with the nearest training session and its
thought), ``mixed`` (one LoRA, half of the tokens of each kind) and ``routed`` (an expert per kind,
an equal share of the tokens each, then the softmax router, whose tokens count). Each is scored
under every kind of prompt that it can be asked with, by equal intents and by one fixed grouping of
similar intents, in pairs on the same sessions.

What is finished is kept in the folder; a run that was cut goes on there.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import Annotated, Any

import dspy
import numpy as np
import typer
from benchmarks.conflict_report import GROUPINGS, SHOWN, differences, intervals, show
from benchmarks.conflict_systems import RECIPES, Budget, key_of, row_tokens, train_system
from torch import Tensor

from benchmarks.command import run_command
from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.prompts import encode_prompt
from routedk.adapters.student import DEFAULT_STUDENT, load_student
from routedk.adapters.training.examples import DEFAULT_FORM, ROLES, training_rows
from routedk.cli.options import SessionSource, takes_sessions, warn_untitled
from routedk.cli.output import log_progress
from routedk.data.knowledge_file import read_knowledge, sources_of
from routedk.errors import SettingError
from routedk.eval import matched_f1
from routedk.eval.baselines import whole
from routedk.eval.bootstrap import bootstrap
from routedk.eval.report import versions
from routedk.files import read_json, write_json
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.grouping import SimilarIntents
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import render_items
from routedk.programs.usage import Usage, metered
from routedk.similarity import default_encoder
from routedk.types import KnowledgeBase, Session, bundle_sets

GROUPING = SimilarIntents(weight=0.25, threshold=0.7)


def score(
    experts: Path, knowledge: CompiledKnowledge, sessions: Sequence[Session], dtype: str | None
) -> dict[str, Any]:
    """Ask one system about every session, under one kind of prompt.

    Args:
        experts: Folder of the system.
        knowledge: What its prompts hold.
        sessions: With gold.
        dtype: Of the student.

    Returns:
        Matched F1 of each session by grouping, unparsable answers, and what generation cost.
    """
    routed = RoutedStudent.load(experts, dtype=dtype)
    engine = StudentEngine(routed, form=DEFAULT_FORM)
    program = BundleGenerator(knowledge)

    def ask(session: Session) -> tuple[Any, Usage]:
        with metered() as meter:
            return program(session=session), meter.usage

    started = perf_counter()
    with dspy.context(lm=engine_lm(engine)):
        found = generate_all(ask, sessions)
    seconds = perf_counter() - started
    engine.close()
    prompts = [
        encode_prompt(routed.tokenizer, program.messages(s), render_items(s).split("\n"))
        for s in sessions
    ]
    gates = routed.gates(prompts)
    usage = sum((usage for _, usage in found), Usage())
    made = usage.calls
    answers = [answer for answer, _ in found]
    return {
        "equal": [
            matched_f1(session.gold, bundle_sets(answer.bundles))
            for session, answer in zip(sessions, answers, strict=True)
        ],
        "similar": [
            matched_f1(session.gold, _similar(session, answer))
            for session, answer in zip(sessions, answers, strict=True)
        ],
        "unparsable": sum(answer.error is not None for answer in answers),
        "mean_gates": None if not isinstance(gates, Tensor) else gates.mean(dim=0).tolist(),
        "input_tokens_per_session": usage.input_tokens / len(sessions),
        "output_tokens_per_session": usage.output_tokens / len(sessions),
        # Of answers that were not in DSPy's cache from a run that was cut.
        "seconds_per_session": seconds / made if made else None,
        "seconds": seconds,
    }


def _similar(session: Session, answer: Any) -> list[frozenset[str]]:
    named = answer.candidates
    if not named:
        return bundle_sets(answer.bundles)
    return bundle_sets(GROUPING.bundles(session, named, default_encoder()))


def references(sessions: Sequence[Session], seed: int) -> dict[str, dict[str, float]]:
    """What no student is needed for: the whole session, and the grouping by titles alone."""
    encoder = default_encoder()
    values_NM = np.array(
        [
            (
                matched_f1(session.gold, whole(session)),
                matched_f1(
                    session.gold,
                    bundle_sets(GROUPING.bundles(session, [[]] * len(session.items), encoder)),
                ),
            )
            for session in sessions
        ]
    )
    found = bootstrap(values_NM, np.ones_like(values_NM), seed=seed)
    names = ("whole-session", "titles alone, similar grouping")
    return {name: interval.to_dict() for name, interval in zip(names, found, strict=True)}


def load(
    source: SessionSource, base: KnowledgeBase, trained: int, validation: int, seed: int
) -> tuple[list[Session], list[Session], list[Session]]:
    """Sessions to train on, sessions that may be neighbours, and sessions to score.

    Raises:
        SettingError: The knowledge was made from sessions outside the training split, or too few
            sessions have gold.
    """
    parts = source.load_parts()
    held_out = {session.id for part in ("val", "test") for session in parts[part]}
    if seen := sorted(sources_of(base) & held_out):
        raise SettingError(
            f"the knowledge was made from {len(seen)} sessions outside the training split, e.g. "
            f"{seen[0]!r}: distil from the training split"
        )
    thoughts = {thought.session_id for thought in base.thoughts}
    pool = [session for session in parts["train"] if session.gold]
    able = [session for session in pool if session.id in thoughts]
    scored = [session for session in parts["val"] if session.gold]
    if not able or not scored:
        raise SettingError(
            f"{len(able)} training sessions have gold and a thought, {len(scored)} validation "
            "sessions have gold: at least one of each is needed"
        )
    warn_untitled([*pool, *scored])
    rng = random.Random(seed)
    return (
        rng.sample(able, min(trained, len(able))),
        pool,
        scored if validation >= len(scored) else rng.sample(scored, validation),
    )


@takes_sessions(split="train")
def main(
    source: SessionSource,
    knowledge: Annotated[Path, typer.Option(help="knowledge.jsonl of routedk distill.")],
    output: Annotated[Path, typer.Option(help="Where the results go, as JSON.")],
    sessions: Annotated[int, typer.Option(min=1, help="Training sessions, a sample.")] = 150,
    validation: Annotated[int, typer.Option(min=1, help="Most sessions scored.")] = 90,
    tokens: Annotated[int, typer.Option(min=1, help="Training tokens of each system.")] = 120_000,
    r: Annotated[int, typer.Option(min=1, help="Rank of each expert.")] = 8,
    layers: Annotated[int, typer.Option(min=0, help="Uppermost layers; 0 for all.")] = 8,
    dtype: Annotated[
        str | None, typer.Option(help="Of the student when it generates; trained in float32.")
    ] = None,
    student: Annotated[str, typer.Option(help="Folder or name of a causal LM.")] = DEFAULT_STUDENT,
    folder: Annotated[
        Path | None, typer.Option(help="Keeps what is finished; by default beside the results.")
    ] = None,
) -> None:
    """Train every system, score it under every prompt, and compare in pairs."""
    log_progress()
    budget = Budget(tokens=tokens, r=r, layers=layers or None, seed=source.options.seed)
    base = read_knowledge(knowledge)
    trained, pool, scored = load(source, base, sessions, validation, budget.seed)
    shown = CompiledKnowledge(
        rules=tuple(rule.text for rule in base.rules),
        sessions=tuple(pool),
        thoughts={thought.session_id: thought.text for thought in base.thoughts},
    )
    base_student = load_student(student)
    kinds = ("rule", "thought")
    made = training_rows(base_student.tokenizer, trained, shown, kinds)
    rows = {kind: [row for row in made if row.expert == n] for n, kind in enumerate(kinds)}
    kept = (folder or output.with_suffix("")) / key_of(base_student.fingerprint, rows, budget)
    asked = key_of(shown, scored, dtype)
    del base_student

    systems: dict[str, Any] = {}
    records: dict[tuple[str, str], dict[str, Any]] = {}
    for name, recipe in RECIPES.items():
        typer.echo(f"{name}: training on {tokens} tokens", err=True)
        systems[name] = train_system(recipe, student, rows, kept / name, budget)
        for prompt in recipe.prompts:
            file = kept / f"{name}.{prompt}.{asked}.json"
            if not file.exists():
                seen = ROLES[DEFAULT_FORM][prompt].sees(shown)
                typer.echo(f"{name}: asking with {SHOWN[prompt]}", err=True)
                write_json(file, score(kept / name, seen, scored, dtype))
            record: Any = read_json(file)
            records[name, prompt] = record
    scores = {
        (name, prompt, grouping): record[grouping]
        for (name, prompt), record in records.items()
        for grouping in GROUPINGS
    }
    document = {
        "config": {
            **source.config(),
            "knowledge": str(knowledge),
            "student": student,
            "dtype": dtype,
            "sessions": {"trained": len(trained), "neighbours": len(pool), "scored": len(scored)},
            "budget": asdict(budget),
            "row_tokens": {kind: fmean(map(row_tokens, mine)) for kind, mine in rows.items()},
            "grouping": asdict(GROUPING),
            "versions": versions(),
        },
        "systems": systems,
        "matched_f1": list(intervals(scores, budget.seed)),
        "differences": list(differences(scores, budget.seed)),
        "references": references(scored, budget.seed),
        "generation": [
            {"system": name, "prompt": prompt, **_without_scores(record)}
            for (name, prompt), record in records.items()
        ],
        "scores": [
            {"system": name, "prompt": prompt, "sessions": [s.id for s in scored], **_only(record)}
            for (name, prompt), record in records.items()
        ],
    }
    write_json(output, document)
    show(document)


def _without_scores(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in GROUPINGS}


def _only(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in GROUPINGS}


if __name__ == "__main__":
    run_command(main)
