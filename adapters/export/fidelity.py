"""How far prototypes are from exact routing, measured on what is written on disk."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from routedk.adapters.engine.engine import StudentEngine
from routedk.adapters.engine.generation import GREEDY
from routedk.adapters.engine.requests import Job
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.prompts import EncodedPrompt
from routedk.adapters.training.examples import Writes, encode_head

_SERVED = "served_prototype"
_FREE_TOKENS = 256


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """What prototypes lose against exact routing, on sessions that they were not made from.

    Args:
        sessions: Sessions whose gates were compared.
        gate_mean: Mean over sessions, layers and experts of the difference of the gates.
        gate_max: The largest such difference.
        sampled: Sessions of them whose answers were compared.
        kl_mean: Mean over these sessions of the Kullback-Leibler divergence, in nats, of the
            prototype's next-token distribution from the exact one, where the answer begins (mean
            over the items where each has an answer of its own).
        kl_max: The largest of them.
        equal_answers: Share of these sessions whose greedy answers are the same text.
    """

    sessions: int
    gate_mean: float
    gate_max: float
    sampled: int
    kl_mean: float
    kl_max: float
    equal_answers: float

    def lines(self) -> dict[str, str]:
        """As lines of a table."""
        return {
            "gate difference": f"mean {self.gate_mean:.4g}, max {self.gate_max:.4g} over "
            f"{self.sessions} held-out sessions",
            "KL of the first answer token": f"mean {self.kl_mean:.4g}, max {self.kl_max:.4g} nats "
            f"over {self.sampled} of them",
            "equal greedy answers": f"{self.equal_answers:.3f} of these",
        }


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A session as it is asked.

    Args:
        prompt: Its prompt.
        items: The item lines that the prompt ends with.
    """

    prompt: EncodedPrompt
    items: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What one session loses: KL divergence in nats, and whether its greedy answer is the same."""

    divergence: float
    equal: bool


@contextmanager
def served(routed: RoutedStudent, folder: Path) -> Iterator[None]:
    """Let the student answer as a stock engine would: with PEFT's own layer and a LoRA from disk.

    Inside the block the student without gates is the student under that LoRA; with gates it is
    the routed one.
    """
    model = routed.model
    active = model.active_adapter
    wanted = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    model.load_adapter(str(folder), adapter_name=_SERVED)
    try:
        model.set_adapter(_SERVED)
        yield
    finally:
        model.set_adapter(active)
        model.delete_adapter(_SERVED)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(wanted[name])


@torch.inference_mode()
def losses(
    routed: RoutedStudent, folders: Mapping[Path, Sequence[Asked]], form: Writes
) -> list[Loss]:
    """What sessions lose to their prototypes.

    Args:
        routed: Routes exactly.
        folders: Of each prototype, as written, with the sessions that it answers.
        form: What a prompt with a session is answered with.
    """
    found = []
    with closing(StudentEngine(routed, form=form, readings=1)) as exact:
        for folder, mine in folders.items():
            # An engine may keep what it computed under a LoRA: each LoRA has an engine of its own.
            plain = StudentEngine(routed.student, form=form, readings=1)
            with closing(plain), served(routed, folder):
                for asked in mine:
                    job = Job(asked.prompt, asked.items, _FREE_TOKENS, GREEDY)
                    answers = [engine.run([job])[0][0].text for engine in (exact, plain)]
                    divergence = _divergence(routed, asked, form)
                    found.append(Loss(divergence=divergence, equal=answers[0] == answers[1]))
    return found


def summary(exact_SX: Tensor, prototype_SX: Tensor, found: Sequence[Loss]) -> Fidelity:
    """Gates and losses of held-out sessions in numbers.

    Args:
        exact_SX: The router's gates, at least one session. *Shape:* (sessions, gates).
        prototype_SX: Those of each session's prototype.
        found: Losses of some of them, at least one.
    """
    difference_SX = (exact_SX.double() - prototype_SX.double()).abs()
    return Fidelity(
        sessions=len(difference_SX),
        gate_mean=float(difference_SX.mean()),
        gate_max=float(difference_SX.max()),
        sampled=len(found),
        kl_mean=fmean(loss.divergence for loss in found),
        kl_max=max(loss.divergence for loss in found),
        equal_answers=fmean(loss.equal for loss in found),
    )


def _divergence(routed: RoutedStudent, asked: Asked, form: Writes) -> float:
    """KL(exact, prototype) where the answer begins, the mean over its beginnings."""
    heads: list[tuple[int, ...]] = [()]
    if form == "item-intents" and asked.items:
        heads = [encode_head(routed.tokenizer, line) for line in asked.items]
    rows = [[*asked.prompt.ids, *head] for head in heads]
    with routed.fused([asked.prompt]):
        exact = [_next(routed, row) for row in rows]
    here = [_next(routed, row) for row in rows]
    found = [
        float((mine.exp() * (mine - other)).sum()) for mine, other in zip(exact, here, strict=True)
    ]
    return max(0.0, fmean(found))  # A rounding error below zero is none.


def _next(routed: RoutedStudent, row: Sequence[int]) -> Tensor:
    """Log-probabilities of the token after a row; *shape* (vocabulary)."""
    ids = torch.tensor([row], device=routed.device)
    scores: Tensor = routed.student.model(input_ids=ids, logits_to_keep=1).logits[0, -1]
    return scores.double().log_softmax(dim=-1)
