"""Students trained on equally many tokens: one kind of knowledge, both mixed, or both routed."""

import hashlib
import random
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch

from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent, read_routing
from routedk.adapters.experts.routing_file import ROUTING_FILE
from routedk.adapters.student import load_student
from routedk.adapters.training.examples import DEFAULT_FORM, TrainingRow
from routedk.adapters.training.fit import mean_gates
from routedk.adapters.training.stages import (
    PreparedRow,
    TrainingSettings,
    prepare,
    train_experts,
    train_router,
)
from routedk.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What one system is made of.

    Args:
        experts: Names of its LoRA experts; more than one are routed.
        rows: For each kind of training prompt the place of the expert that learns from it.
    """

    experts: tuple[str, ...]
    rows: Mapping[str, int]

    @property
    def prompts(self) -> tuple[str, ...]:
        """The kinds of prompt it can be asked with: the session alone, and what it has seen."""
        return ("base", *self.rows)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "rules": Recipe(experts=("rule",), rows={"rule": 0}),
        "thoughts": Recipe(experts=("thought",), rows={"thought": 0}),
        "mixed": Recipe(experts=("mixed",), rows={"rule": 0, "thought": 0}),
        "routed": Recipe(experts=("rule", "thought"), rows={"rule": 0, "thought": 1}),
    }
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every system gets, the same for all.

    Args:
        tokens: Training tokens in all, those of prompts included; kinds of rows share alike.
        router_share: Share of the tokens that the router is trained on, where there is one.
        r: Rank of each expert; its scaling is 2.
        layers: Uppermost layers that get experts; None for all.
        learning_rate: Peak for the experts.
        router_learning_rate: Peak for the router.
        batch_size: Rows per step of the experts; the router has half as many.
        seed: Seed of weights, rows and their order.
    """

    tokens: int = 120_000
    router_share: float = 0.15
    r: int = 8
    layers: int | None = 8
    learning_rate: float = 2e-3
    router_learning_rate: float = 2e-2
    batch_size: int = 4
    seed: int = 0

    @property
    def experts(self) -> TrainingSettings:
        """How the experts are trained."""
        return TrainingSettings(
            learning_rate=self.learning_rate, batch_size=self.batch_size, seed=self.seed
        )

    @property
    def router(self) -> TrainingSettings:
        """How the router is."""
        return TrainingSettings(
            learning_rate=self.router_learning_rate,
            batch_size=max(1, self.batch_size // 2),
            warmup_steps=2,
            seed=self.seed,
        )


def row_tokens(row: TrainingRow) -> int:
    """Tokens of a row as training counts them: its prompt and all its lines."""
    return len(row.prompt) + sum(len(ids) for ids, _ in row.lines)


def within(rows: Sequence[TrainingRow], tokens: int, seed: int) -> list[TrainingRow]:
    """Rows in shuffled passes, as many as the tokens allow.

    Args:
        rows: What to take from; all of them are taken before any is taken again. In the last
            pass rows that are too long are passed over.
        tokens: Tokens at most.
        seed: Seed of the order.

    Raises:
        SettingError: The tokens are not enough for one row.
    """
    rng, taken, left, full = random.Random(seed), list[TrainingRow](), tokens, False
    while not full:
        for row in rng.sample(list(rows), len(rows)):
            if row_tokens(row) <= left:
                left -= row_tokens(row)
                taken.append(row)
            else:
                full = True
    if not taken:
        raise SettingError(f"{tokens} tokens are not enough for one row: give more")
    return taken


def train_system(
    recipe: Recipe,
    student: str,
    rows: Mapping[str, Sequence[TrainingRow]],
    folder: Path,
    budget: Budget,
) -> dict[str, Any]:
    """Train one system and save it, unless it is there.

    All LoRA experts begin with the same weights. Weights and training are as in
    ``routedk train``: a float32 student, with products in bfloat16 where the CPU is made for it.

    Args:
        recipe: What the system is made of.
        student: Folder or name of the student.
        rows: The training rows of each kind.
        folder: For the experts.
        budget: What it gets.

    Returns:
        What ``routing.json`` says of the training: tokens, rows, steps, seconds.
    """
    routed_by_all = len(recipe.experts) > 1
    if not (folder / ROUTING_FILE).exists():
        with torch.random.fork_rng():
            torch.manual_seed(budget.seed)
            shape = ExpertSettings(
                experts=recipe.experts, r=budget.r, lora_alpha=2 * budget.r, layers=budget.layers
            )
            fusion = "softmax" if routed_by_all else "uniform"
            routed = RoutedStudent(load_student(student), shape, fusion)
        routed.copy_expert(recipe.experts[0], recipe.experts[1:])
        routed.save(folder, {"training": _train(recipe, routed, rows, folder, budget)})
    training: dict[str, Any] = read_routing(folder)["training"]
    return training


def _train(
    recipe: Recipe,
    routed: RoutedStudent,
    rows: Mapping[str, Sequence[TrainingRow]],
    folder: Path,
    budget: Budget,
) -> dict[str, Any]:
    work = folder.parent / f".{folder.name}.work"
    started = time.monotonic()
    kinds = len(recipe.rows)
    for_router = round(budget.router_share * budget.tokens) if len(recipe.experts) > 1 else 0
    chosen: dict[str, list[TrainingRow]] = {"experts": [], "router": []}
    for kind, place in recipe.rows.items():
        mine = [replace(row, expert=place) for row in rows[kind]]
        chosen["experts"] += within(mine, (budget.tokens - for_router) // kinds, budget.seed)
        if for_router:
            chosen["router"] += within(mine, for_router // kinds, budget.seed + 1)
    prepared = _prepared(routed, chosen["experts"], work / "experts", budget.experts)
    curves = {"experts": train_experts(routed, prepared, work / "experts", budget.experts)}
    if for_router:
        prepared = _prepared(routed, chosen["router"], work / "router", budget.router)
        curves["router"] = train_router(routed, prepared, work / "router", budget.router)
        routed.mean_gates = mean_gates(routed, prepared)
    routed.freeze()
    shutil.rmtree(work)
    return {
        "tokens": {stage: int(curve[-1]["tokens"]) for stage, curve in curves.items()},
        "rows": {stage: len(mine) for stage, mine in chosen.items()},
        "distinct_rows": {stage: len(set(mine)) for stage, mine in chosen.items()},
        "steps": {stage: int(curve[-1]["step"]) for stage, curve in curves.items()},
        "last_losses": {stage: _last_loss(curve) for stage, curve in curves.items()},
        # Of a training that was cut: since it was taken up again.
        "seconds": round(time.monotonic() - started, 1),
        "parameters": sum(
            p.numel() for name, p in routed.model.named_parameters() if "lora_" in name
        ),
        "settings": asdict(budget),
        "answer_form": DEFAULT_FORM,
    }


def _prepared(
    routed: RoutedStudent,
    rows: Sequence[TrainingRow],
    folder: Path,
    settings: TrainingSettings,
) -> list[PreparedRow]:
    """The rows, repeated ones prepared once."""
    distinct = list(dict.fromkeys(rows))
    made = dict(zip(distinct, prepare(routed, distinct, folder, settings), strict=True))
    return [made[row] for row in rows]


def _last_loss(curve: Sequence[Mapping[str, float]]) -> float:
    """The mean loss of the last tenth of the steps."""
    last = [record["loss"] for record in curve[-max(1, len(curve) // 10) :]]
    return sum(last) / len(last)


def key_of(*what: object) -> str:
    """A hash of everything that something depends on: only the same is taken up again."""
    return hashlib.sha256(repr(what).encode()).hexdigest()[:12]
