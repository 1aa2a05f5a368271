"""Sessions and knowledge, and a student that some of it helps."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import dspy

from routedk.optimizers.compile_config import CompileConfig
from routedk.optimizers.knowledge_injection import KnowledgeInjection
from routedk.optimizers.metric import as_examples
from routedk.programs.generator import BundleGenerator
from routedk.types import Bundle, Item, KnowledgeBase, Provenance, Rule, Session, Thought
from tests.scripted import scripted_lm

MADE = Provenance(teacher="annotation", sessions=("train-0", "train-1"))

Script = Callable[[list[dict[str, str]]], str]


def sessions(prefix: str, count: int, intent: str = "x") -> list[Session]:
    """Sessions of four items, of which the first two are a bundle of this intent."""
    made = []
    for n in range(count):
        items = tuple(Item(f"{prefix}-{n}-{i}", f"thing {i} word{n}") for i in range(4))
        made.append(Session(f"{prefix}-{n}", items, (Bundle((items[0].id, items[1].id), intent),)))
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


def written(texts: Sequence[str]) -> tuple[Path, ...]:
    """Write each instruction to a file of its own."""
    folder = Path(tempfile.mkdtemp())
    paths = [folder / f"{n}.txt" for n in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_text(text)
    return tuple(paths)


def compiled(
    script: Script,
    student: BundleGenerator | None = None,
    *,
    knowledge: KnowledgeBase = KNOWLEDGE,
    instructions: Sequence[str] = (),
    on_trial: Any = None,
    valset: Sequence[Any] | None = VAL,
    **settings: Any,
) -> BundleGenerator:
    lm, _ = scripted_lm(script)
    config = CompileConfig(instruction=written(instructions), **settings)
    with dspy.context(lm=lm):
        return KnowledgeInjection(knowledge, config, on_trial=on_trial).compile(
            student or BundleGenerator(), trainset=TRAIN, valset=valset
        )


def helped_by(*marks: str) -> Script:
    """A script that answers right only if the prompt contains all of these texts."""

    def script(messages: list[dict[str, str]]) -> str:
        prompt = "\n".join(message["content"] for message in messages)
        return "1 2" if all(mark in prompt for mark in marks) else "3 4"

    return script
