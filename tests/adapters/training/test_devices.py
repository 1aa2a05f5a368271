"""The whole way on one device: trained there, saved, loaded again, asked."""

from dataclasses import replace
from pathlib import Path

import dspy
import pytest
import torch

from routedk.adapters.engine.engine import StudentEngine, engine_lm
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.student import load_student
from routedk.adapters.train import train
from routedk.programs.batch import generate_all
from routedk.programs.generator import BundleGenerator
from routedk.programs.prompting.answers import read_answer
from routedk.types import KnowledgeBase, Session
from tests.adapters.conftest import SMALL, encoded

CONFIG = replace(SMALL, experts_from="session", epochs=2, router_share=1.0)


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    found: str = request.param
    return found


@pytest.mark.parametrize("fusion", ["softmax", "sparsegen"])
def test_trained_and_asked(
    fusion: str,
    device: str,
    student_folder: Path,
    sessions: list[Session],
    knowledge: KnowledgeBase,
    tmp_path: Path,
) -> None:
    name = str(student_folder)
    folder = train(
        sessions, knowledge, replace(CONFIG, student=name, fusion=fusion), store=tmp_path
    )
    for dtype in ("float32", "bfloat16"):
        student = load_student(name, device=device, dtype=dtype)
        routed = RoutedStudent.load(folder, student=student)
        lm = engine_lm(StudentEngine(routed, form="item-intents"))
        with dspy.context(lm=lm):
            answers = generate_all(BundleGenerator(), sessions)
        lm.engine.close()
        for answer, session in zip(answers, sessions, strict=True):
            assert answer.error is None
            assert read_answer(answer.raw, session).dropped == ()
    there, here = (
        RoutedStudent.load(folder, student=load_student(name, device=where, dtype="float32"))
        for where in (device, "cpu")
    )
    assert there.device.type == device
    assert there.fingerprint() == here.fingerprint()
    for session in sessions:
        torch.testing.assert_close(
            _scores(there, session), _scores(here, session), rtol=1e-3, atol=1e-3
        )


def _scores(routed: RoutedStudent, session: Session) -> torch.Tensor:
    prompt = encoded(routed.student, session)
    with torch.no_grad(), routed.gating([prompt])([0]):
        ids = torch.tensor([prompt.ids], device=routed.device)
        scores: torch.Tensor = routed.model(input_ids=ids).logits
    return scores.cpu()
