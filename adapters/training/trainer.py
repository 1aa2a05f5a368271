"""TRL's SFTTrainer for experts and routers: its batches, its losses and its checkpoints."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import ProgressCallback
from trl import SFTTrainer

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.sparsegen import SparsegenRouter
from routedk.adapters.training.processes import for_averaging, is_main, place, shared_mean, total
from routedk.adapters.training.router_training import RouterTraining, divergence, penalty
from routedk.adapters.trees import IGNORED, TokenTree, pad, tree_mask

_WEIGHTS = "trained.safetensors"


@dataclass(frozen=True)
class PreparedRow:
    """A training row with everything that does not change while it is trained on.

    Args:
        tree: Its tokens.
        hidden_TH: What the layers below the experts make of them.
        pooled_H: What the router sees of the prompt.
        expert: Place of its expert among the gates.
        start: Position of the first of the session's own tokens.
    """

    tree: TokenTree
    hidden_TH: Tensor
    pooled_H: Tensor
    expert: int
    start: int = 0


class RowCollator:
    """Packs prepared rows into one batch of token trees.

    Args:
        rows: The prepared rows; the dataset holds their places only.
    """

    def __init__(self, rows: Sequence[PreparedRow]) -> None:
        self.rows = rows

    def __call__(self, places: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pad and stack; ``expert`` and ``pooled`` tell how to gate each row."""
        rows = [self.rows[place["row"]] for place in places]
        hidden = [row.hidden_TH for row in rows]
        members_BT = pad([row.tree.branch_ids for row in rows], -1)
        return {
            "inputs_embeds": nn.utils.rnn.pad_sequence(hidden, batch_first=True),
            "position_ids": pad([row.tree.position_ids for row in rows], 0),
            "labels": pad([row.tree.labels for row in rows], IGNORED),
            "attention_mask": tree_mask(members_BT, hidden[0].dtype),
            "expert": torch.tensor([row.expert for row in rows]),
            "start": torch.tensor([row.start for row in rows]),
            "pooled": torch.stack([row.pooled_H for row in rows]),
            "present": members_BT >= 0,
        }


class TargetCollator:
    """Batches of what the router sees and of the gates that it should give.

    Args:
        rows: The prepared rows.
        targets_NE: Gates wanted of them. *Shape:* (rows, experts).
    """

    def __init__(self, rows: Sequence[PreparedRow], targets_NE: Tensor) -> None:
        self.rows = rows
        self.targets_NE = targets_NE

    def __call__(self, places: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Stack; each row counts as one token, which is present."""
        chosen = [place["row"] for place in places]
        return {
            "pooled": torch.stack([self.rows[k].pooled_H for k in chosen]),
            "targets": self.targets_NE[chosen],
            "present": torch.ones(len(chosen), 1, dtype=torch.bool),
        }


class Objective(Protocol):
    """What a stage makes small."""

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch of all processes, with the gradient of this one's part.

        Args:
            batch: As a collator made it; ``present`` is False in rows that do not count.
        """
        ...


class AnswerLoss:
    """Mean cross-entropy of the labelled tokens under each row's gates.

    The vocabulary's logits are computed at labelled tokens only; TRL's own loss computes them at
    all tokens, which here costs more than the layers that are trained.

    Args:
        routed: Its layers below the experts are left out of the model while this is used.
        autocast: Makes the precision of products.
        router: How its router is trained; None: one-hot gates, each row its own expert's.
    """

    def __init__(
        self, routed: RoutedStudent, autocast: Any, router: RouterTraining | None = None
    ) -> None:
        self.routed = routed
        self.autocast = autocast
        self.router = router

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """See `Objective`."""
        expert_B, pooled_BH = batch.pop("expert"), batch.pop("pooled")
        present_BT, labels_BT = batch.pop("present"), batch.pop("labels")
        fusion = self.routed.fusion
        if self.router is None:
            gates = nn.functional.one_hot(expert_B, len(self.routed.adapters)).float()
        else:
            if isinstance(fusion, SparsegenRouter):
                fusion.watched = []
            gates = fusion(pooled_BH)
        # Not a context manager: the gates are needed through the backward pass, too.
        self.routed.gate_state.gates = gates
        self.routed.gate_state.starts = self.routed.starts(batch.pop("start"))
        labels_BT = labels_BT.masked_fill(~present_BT, IGNORED)
        loss = shared_mean(token_losses(self.routed, batch, labels_BT, self.autocast)[0])
        if self.router is None:
            return loss
        loss = loss + penalty(self.router, fusion, pooled_BH, present_BT)
        if isinstance(fusion, SparsegenRouter):
            fusion.watched = None
        return loss


def token_losses(
    routed: RoutedStudent, batch: dict[str, Tensor], labels_BT: Tensor, autocast: Any
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each labelled token of a batch of trees, under the gates now set.

    Returns:
        The losses, *shape* (labelled tokens,), and each one's row.
    """
    student = routed.student.model
    next_BT = labels_BT[:, 1:]
    learnt_BT = next_BT != IGNORED
    with autocast():
        hidden_BTH = student.model(**batch, use_cache=False).last_hidden_state[:, :-1]
        logits_NV = student.lm_head(hidden_BTH[learnt_BT])
    losses_N = nn.functional.cross_entropy(logits_NV.float(), next_BT[learnt_BT], reduction="none")
    return losses_N, learnt_BT.nonzero()[:, 0]


class TargetLoss:
    """How far the router's gates are from their targets; no model is run.

    Args:
        routed: Its router is trained.
        how: With which further losses.
    """

    def __init__(self, routed: RoutedStudent, how: RouterTraining) -> None:
        self.routed = routed
        self.how = how

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """See `Objective`."""
        fusion: Any = self.routed.fusion
        pooled_BH, present_BT = batch["pooled"], batch["present"]
        apart_B = divergence(fusion.log_shares(pooled_BH), batch["targets"])
        loss = shared_mean(apart_B[present_BT[:, 0]])
        return loss + penalty(self.how, fusion, pooled_BH, present_BT)


class LossBar(ProgressCallback):  # type: ignore[misc]  # transformers is untyped here
    """The trainer's progress bar, with the loss beside it instead of a line per step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Show the latest loss."""
        if self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


class RoutedTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """SFTTrainer with an objective of ours, under DDP where there are several processes.

    Checkpoints hold the trained tensors only, as safetensors.

    Args:
        routed: What is trained.
        objective: What is made small.
        expert_learning_rate: Peak for the experts, where it is not that of all the rest.
        kwargs: For SFTTrainer.

    Attributes:
        tokens_seen: By the student, in all processes.
    """

    def __init__(
        self,
        routed: RoutedStudent,
        objective: Objective,
        *,
        expert_learning_rate: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.objective = objective
        self.expert_learning_rate = expert_learning_rate
        self.tokens_seen = 0
        super().__init__(model=routed.model, **kwargs)
        # The wrappers around the student, DDP's first of all, are to be called as they expect; in
        # the place of the student's own forward pass, which TRL replaces as well, is the objective.
        routed.student.model.forward = lambda batch, **_: self.objective(batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor:
        """The objective, of rows that were not filled in to make an epoch's last batch even."""
        present_BT = inputs["present"]
        present_BT &= self._counted(len(present_BT)).to(present_BT.device)[:, None]
        if "labels" in inputs:
            self.tokens_seen += int(total(present_BT.sum()))
        self._metrics["train"]["num_tokens"] = [self.tokens_seen]
        return for_averaging(model(batch=inputs))

    def _counted(self, rows: int) -> Tensor:
        """Which of this process's rows belong to the step.

        In an epoch's last step accelerate gives all processes full batches, from rows that were
        seen already; one process alone gets a smaller batch.
        """
        number, processes = place()
        size: int = self.args.per_device_train_batch_size
        every: int = len(self.train_dataset)
        steps = math.ceil(every / (size * processes))
        left: int = every - self.state.global_step % steps * size * processes
        return torch.arange(rows) + number * size < left

    def create_optimizer(self, *args: Any, **kwargs: Any) -> torch.optim.Optimizer:
        """As the trainer would, with the experts' own learning rate."""
        optimizer: torch.optim.Optimizer = super().create_optimizer(*args, **kwargs)
        if self.expert_learning_rate is not None:
            experts = {id(p) for n, p in self._trained().items() if "lora_" in n}
            for group in list(optimizer.param_groups):
                mine = [p for p in group["params"] if id(p) in experts]
                if mine:
                    group["params"] = [p for p in group["params"] if id(p) not in experts]
                    rate = self.expert_learning_rate
                    optimizer.add_param_group({**group, "params": mine, "lr": rate})
        return optimizer

    def _trained(self) -> dict[str, Tensor]:
        return {n: p for n, p in self.model.named_parameters() if p.requires_grad}

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if not is_main():
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: tensor.detach().contiguous() for name, tensor in self._trained().items()}
        save_file(tensors, folder / _WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        saved = load_file(Path(resume_from_checkpoint) / _WEIGHTS)
        for name, parameter in self._trained().items():
            parameter.data.copy_(saved[name])
        state = json.loads((Path(resume_from_checkpoint) / "trainer_state.json").read_text())
        self.tokens_seen = int(state["log_history"][-1]["num_tokens"])
