"""Sessions and knowledge, and a student that some of it helps."""

from typing import Any

import dspy

from routedk.optimizers.knowledge_injection import KnowledgeInjection
from routedk.optimizers.metric import as_examples
from routedk.programs.generator import BundleGenerator
from routedk.programs.testing import scripted_lm
from routedk.types import (
    Bundle,
    Item,
    KnowledgeBase,
    Provenance,
    Rule,
    Session,
    Thought,
)

MADE = Provenance(teacher="annotation", sessions=("train-0", "train-1"))


def sessions(prefix: str, count: int) -> list[Session]:
    made = []
    for n in range(count):
        items = tuple(Item(f"{prefix}-{n}-{i}", f"thing {i} word{n}") for i in range(4))
        made.append(Session(f"{prefix}-{n}", items, (Bundle((items[0].id, items[1].id), "x"),)))
    return made


TRAIN, VAL = as_examples(sessions("train", 22)), as_examples(sessions("val", 12))
KNOWLEDGE = KnowledgeBase(
    rules=(
        Rule(text="useless", provenance=MADE),
        Rule(text="the magic rule", provenance=MADE),
        Rule(text="useless, too", provenance=MADE),
    ),
    thoughts=(Thought(session_id="train-0", text="deep thought", provenance=MADE),),
)


def compiled(
    script: Any, student: BundleGenerator | None = None, **settings: Any
) -> BundleGenerator:
    lm, _ = scripted_lm(script)
    with dspy.context(lm=lm):
        return KnowledgeInjection(KNOWLEDGE, **settings).compile(
            student or BundleGenerator(), trainset=TRAIN, valset=VAL
        )


def helped_by(*marks: str) -> Any:
    """A student that is right only where its prompt holds all marks."""

    def script(messages: list[dict[str, str]]) -> str:
        prompt = "\n".join(message["content"] for message in messages)
        return "1 2" if all(mark in prompt for mark in marks) else "3 4"

    return script
