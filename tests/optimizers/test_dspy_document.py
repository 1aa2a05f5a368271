"""The snippets of docs/dspy.md run as they stand there, but those that train the real student."""

import re
from pathlib import Path
from typing import Any

import dspy

from tests.scripted import scripted_lm

DOCUMENT = Path(__file__).parents[2] / "docs" / "dspy.md"


def script(messages: list[dict[str, str]]) -> str:
    """Answers better with similar sessions in its prompt, and reflects in JSON."""
    if "Respond with a JSON object" in messages[-1]["content"]:
        return '{"new_instruction": "Be exact."}'
    return "1 2 3" if len(messages) > 2 else "none"


def test_the_snippets_run() -> None:
    prompts, _, _ = DOCUMENT.read_text("utf-8").partition("\n## Weights\n")
    blocks = re.findall(r"```python\n(.*?)```", prompts, re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {}
    lm, engine = scripted_lm(script)
    with dspy.context(lm=lm):
        for number, block in enumerate(blocks):
            exec(compile(block, f"{DOCUMENT.name}, block {number}", "exec"), names)
    session = names["parts"]["test"][0]
    assert len(names["few_shot"].messages(session)) == 2 + 2 * 4
    assert names["informed"].knowledge.k
    assert names["both"].knowledge == names["informed"].knowledge
    assert len(names["both"].generate.demos) == 4
    assert any("Missed: " in str(messages) for messages in engine.requests)
    assert names["bundles"]
