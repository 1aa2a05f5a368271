"""The stages that a `TrainConfig` comes to, and what its router learns from."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from routedk.adapters.experts.router import ROUTERS
from routedk.adapters.training.stage import Stage
from routedk.errors import SettingError

if TYPE_CHECKING:
    from routedk.adapters.train import TrainConfig

# LD-MoLE's sparsity loss discourages more active experts than this.
MOST_EXPERTS = 2
_ROUTER_RATE = 2e-2


class _RouterDefaults(NamedTuple):
    share: float
    epochs: float
    least_batch: int = 1


# A step of `supervised` runs no model: it can afford all rows, many times, in large batches.
ROUTER_DEFAULTS = {
    "answer": _RouterDefaults(0.1, 2.0),
    "supervised": _RouterDefaults(1.0, 10.0, 32),
    "joint": _RouterDefaults(0.3, 1.0),
}


@dataclass(frozen=True, kw_only=True)
class RouterTraining:
    """How a router is trained; the fields are those of `routedk.adapters.train.TrainConfig`."""

    method: str = "answer"
    temperature: float = 0.1
    balance: float = 0.0
    sparsity: float = 0.0

    def check(self, fusion: str, experts: int) -> None:
        """Check that a fusion of so many experts can be trained so.

        Raises:
            SettingError: It cannot.
        """
        if fusion not in ROUTERS and self != RouterTraining():
            raise SettingError(
                f"fusion {fusion!r} has no router, so nothing of its training can be chosen; "
                f"routers have {', '.join(ROUTERS)}"
            )
        if fusion == "sparsegen" and self.method == "supervised":
            raise SettingError(
                "router training 'supervised': the gates of fusion 'sparsegen' are per token, "
                "which no loss per session teaches: use answer or joint"
            )
        if fusion == "sparsegen" and self.sparsity and experts <= MOST_EXPERTS:
            raise SettingError(
                f"sparsity={self.sparsity}: with sparsegen it discourages more than "
                f"{MOST_EXPERTS} active experts, but there are only {experts}: set it to 0"
            )


def router_training(config: "TrainConfig") -> RouterTraining:
    """What the router learns from."""
    return RouterTraining(
        method=config.router_training,
        temperature=config.temperature,
        balance=config.balance,
        sparsity=config.sparsity,
    )


def expert_stage(config: "TrainConfig", name: str) -> Stage:
    """How an expert is trained; the others take fewer and smaller steps than the base expert."""
    first = name == config.expert_names[0]
    return Stage(
        epochs=config.epochs if first else config.knowledge_epochs,
        learning_rate=config.learning_rate if first else config.learning_rate / 2,
        batch_size=config.batch_size,
        share=1.0 if first else config.knowledge_share,
        bf16=config.bf16,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
    )


def router_stage(config: "TrainConfig") -> Stage:
    """How the router is trained."""
    usual = ROUTER_DEFAULTS[config.router_training]
    joint = config.router_training == "joint"
    return Stage(
        epochs=usual.epochs if config.router_epochs is None else config.router_epochs,
        learning_rate=_ROUTER_RATE,
        expert_learning_rate=config.learning_rate / 4 if joint else None,
        batch_size=max(config.batch_size, usual.least_batch),
        share=usual.share if config.router_share is None else config.router_share,
        bf16=config.bf16,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=config.seed,
    )
