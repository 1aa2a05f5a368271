"""What the router sees: the same in training and in use, once per request."""

import json
from pathlib import Path
from typing import get_args

import pytest
import torch
from torch import Tensor

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.routing_file import ROUTING_FILE, ExpertSettings, RouterInput
from routedk.adapters.prompts import EncodedPrompt, encode_prompt
from routedk.adapters.student import Student
from routedk.adapters.train import TrainConfig
from routedk.adapters.training.examples import TrainingRow
from routedk.adapters.training.rows import prepare
from routedk.adapters.training.stage import router_stage
from routedk.errors import ArtifactError
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.layout import build_prompt, render_items
from routedk.types import Session
from tests.adapters.conftest import copy_of, randomise

ROUTER_INPUTS: tuple[RouterInput, ...] = get_args(RouterInput)
STAGE = router_stage(TrainConfig(bf16=False))


def build(student: Student, name: RouterInput, fusion: str = "softmax") -> RoutedStudent:
    settings = ExpertSettings(r=4, layers=2, router_input=name)
    routed = randomise(RoutedStudent(copy_of(student), settings, fusion))
    routed.freeze()
    return routed


@pytest.fixture
def prompts(loaded: Student, sessions: list[Session]) -> list[EncodedPrompt]:
    """Each session with rules in its prompt."""
    shown = CompiledKnowledge(rules=("tea cup: brewing tea", "usb hub: desk setup"), rules_shown=2)
    return [
        encode_prompt(
            loaded.tokenizer,
            build_prompt(session, shown.context(session)).messages,
            render_items(session).split("\n"),
        )
        for session in sessions
    ]


def expected(student: Student, name: str, prompt: EncodedPrompt) -> Tensor:
    """The mean of the input embeddings that the base model returns."""
    with torch.no_grad():
        states = student.model(torch.tensor([prompt.ids]), output_hidden_states=True).hidden_states
    start, end = (0, len(prompt.ids)) if name == "prompt" else prompt.span
    return states[0][0, start:end].mean(dim=0)


@pytest.mark.parametrize("name", ROUTER_INPUTS)
def test_training_and_use_see_the_same(
    name: RouterInput, loaded: Student, prompts: list[EncodedPrompt], tmp_path: Path
) -> None:
    routed = build(loaded, name)
    lines = (((20, 21, 22), 1), ((30, 31), 1))
    rows = [TrainingRow("s", prompt, lines) for prompt in prompts]
    trained = torch.stack([row.pooled_H for row in prepare(routed, rows, STAGE)])
    used = routed.router_inputs(prompts)
    torch.testing.assert_close(trained, used, rtol=1e-4, atol=1e-5)
    plain = torch.stack([expected(loaded, name, prompt) for prompt in prompts])
    torch.testing.assert_close(used, plain, rtol=1e-4, atol=1e-5)


def test_which_input_sees_the_knowledge(loaded: Student, sessions: list[Session]) -> None:
    """Two prompts of one session, with different rules."""
    both = []
    for rule in ("tea cup: brewing tea", "usb hub: desk setup"):
        shown = CompiledKnowledge(rules=(rule,), rules_shown=1)
        messages = build_prompt(sessions[0], shown.context(sessions[0])).messages
        items = render_items(sessions[0]).split("\n")
        both.append(encode_prompt(loaded.tokenizer, messages, items))
    for name in ROUTER_INPUTS:
        first, second = build(loaded, name).router_inputs(both)
        assert torch.allclose(first, second, atol=1e-4) == (name == "session")


@pytest.mark.parametrize("former", [None, "mean input embedding of the session's tokens"])
def test_files_from_before_there_was_a_choice(
    former: str | None, loaded: Student, tmp_path: Path
) -> None:
    build(loaded, "session").save(tmp_path / "e")
    path = tmp_path / "e" / ROUTING_FILE
    document = json.loads(path.read_text())
    del document["router_input"]
    path.write_text(json.dumps(document | ({"router_input": former} if former else {})))
    again = RoutedStudent.load(tmp_path / "e", student=copy_of(loaded))
    assert again.settings.router_input == "session"
    path.write_text(json.dumps(document | {"router_input": "dice"}))
    with pytest.raises(ArtifactError, match=r"routing.json: router_input='dice': allowed are sess"):
        RoutedStudent.load(tmp_path / "e", student=copy_of(loaded))
