"""In-context learning in one table: neighbours times knowledge, and AICL, on the same sessions.

    python -m benchmarks.icl --data demo --knowledge artifacts/demo/knowledge/knowledge.jsonl \
        --output icl.json

The results are written after every condition; a run that was interrupted resumes.
"""

import hashlib
import random
from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.command import run_command
from benchmarks.conditions import Condition, digest, result_table, run_conditions
from routedk.adapters.lm import resolve_lm
from routedk.cli.config_options import with_config_options
from routedk.cli.sessions import (
    DataPath,
    Split,
    data_record,
    refuse_test_sessions,
    warn_untitled,
)
from routedk.data import DataOptions, load_sessions, select_split, split_sessions
from routedk.data.knowledge_file import read_knowledge
from routedk.errors import SettingError
from routedk.programs.aicl.program import AICL
from routedk.programs.generator import BundleGenerator
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import LAYOUT
from routedk.types import KnowledgeBase, Session

BASE = "0 neighbours, none"
AICL_NAME = "AICL, 1 neighbour"
SHOWN = 3
FORMATS = ("none", "patterns", "rules", "thoughts", "all")


def conditions(
    base: KnowledgeBase,
    training: Sequence[Session],
    neighbours: Sequence[int],
    retriever: str,
    lm: Any,
) -> Iterator[Condition]:
    """Every number of neighbours with every format, and AICL.

    Thoughts are shown with neighbours only.

    Args:
        base: Patterns, rules and thoughts.
        training: Sessions to find neighbours among.
        neighbours: Numbers of neighbours, in the order of the table.
        retriever: Name of the retriever.
        lm: The language model of all.
    """
    rules = tuple(rule.text for rule in base.rules)
    thoughts = {thought.session_id: thought.text for thought in base.thoughts}
    for k in neighbours:
        for what in FORMATS:
            if what == "thoughts" and not k:
                continue
            chosen: dict[str, Any] = {}
            if what in ("patterns", "all"):
                chosen |= {"patterns": base.patterns, "patterns_shown": SHOWN}
            if what in ("rules", "all"):
                chosen |= {"rules": rules, "rules_shown": SHOWN}
            if k:
                chosen |= {"k": k, "sessions": tuple(training), "retriever": retriever}
                if what in ("thoughts", "all"):
                    chosen |= {"thoughts": thoughts, "show_thoughts": True}
            yield Condition(f"{_neighbours(k)}, {what}", partial(_plain, lm, chosen))
    yield Condition(AICL_NAME, lambda: (lm, AICL(training, k=1, retriever=retriever)))


def _plain(lm: Any, chosen: dict[str, Any]) -> tuple[Any, BundleGenerator]:
    return lm, BundleGenerator(CompiledKnowledge(**chosen))


def _neighbours(k: int) -> str:
    return f"{k} neighbour{'' if k == 1 else 's'}"


def _numbers(text: str) -> tuple[int, ...]:
    try:
        found = tuple(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        found = (-1,)
    if min(found) < 0:
        raise SettingError(f"--neighbours {text!r}: give whole numbers like 0,1,3")
    return found


@with_config_options
def main(
    data: DataPath,
    options: DataOptions,
    knowledge: Annotated[Path, typer.Option(help="The knowledge.jsonl of distill.")],
    output: Annotated[Path, typer.Option(help="Where the results go, as JSON.")],
    limit: Annotated[int, typer.Option(min=1, help="Sessions, the first in a seeded order.")] = 60,
    neighbours: Annotated[str, typer.Option(help="Numbers of similar sessions.")] = "0,1,3",
    only: Annotated[list[str] | None, typer.Option(help="Run these conditions alone.")] = None,
    retriever: Annotated[str, typer.Option(help="How similar sessions are found.")] = "tfidf",
    threads: Annotated[int, typer.Option(min=1, help="Calls to the model at once.")] = 16,
    lm: Annotated[str | None, typer.Option(help="A model by its LiteLLM name.")] = None,
    student: Annotated[str | None, typer.Option(help="Folder or name of a causal LM.")] = None,
    dtype: Annotated[str | None, typer.Option(help="The student's.")] = None,
    split: Split = "test",
) -> None:
    """Score plain in-context learning under every condition, and AICL, on the same sessions."""
    everything = load_sessions(data, options)
    parts = split_sessions(everything, options)
    tested = [s for s in select_split(everything, options, split) if s.gold]
    sessions = random.Random(options.seed).sample(tested, len(tested))[:limit]
    asked = {session.id for session in sessions}
    training = [s for s in parts["train"] if s.bundles is not None and s.id not in asked]
    base = read_knowledge(knowledge)
    refuse_test_sessions(str(knowledge), base, sessions)
    deque(warn_untitled([*training, *sessions]), maxlen=0)
    model = resolve_lm(lm=lm, student=student, dtype=dtype)
    listed = list(conditions(base, training, _numbers(neighbours), retriever, model))
    names = [condition.name for condition in listed]
    if unknown := set(only or ()) - set(names):
        raise SettingError(f"no condition is called {min(unknown)!r}: choose among {names}")
    wanted = [c for c in listed if not only or c.name in only]
    config = {
        **data_record(data, options, split),
        "limit": limit,
        "sessions": len(sessions),
        "sessions_hash": digest(sessions),
        "training_hash": digest(training),
        "knowledge_hash": hashlib.sha256(knowledge.read_bytes()).hexdigest()[:16],
        "lm": lm or student,
        "dtype": dtype,
        "model": model.model,
        "layout": LAYOUT,
        "retriever": retriever,
    }
    records = run_conditions(
        wanted,
        sessions,
        output,
        config,
        names=names,
        base=BASE,
        threads=threads,
        seed=options.seed,
    )
    console = Console(width=200)
    console.print(result_table(records))
    console.print(
        f"{len(sessions)} sessions of {split}; model {model.model}.",
        highlight=False,
    )
    if silent := sum(record["cost"]["unmetered_calls"] for record in records.values()):
        console.print(f"{silent} answers came without token counts.", highlight=False)


if __name__ == "__main__":
    run_command(main)
