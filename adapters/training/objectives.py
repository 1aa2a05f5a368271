"""The losses of experts and routers, as modules that hold what a stage trains."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.sparsegen import SparsegenRouter
from routedk.adapters.training.processes import shared_mean
from routedk.adapters.training.router_losses import divergence, penalty
from routedk.adapters.training.stage import Stage
from routedk.adapters.trees import IGNORED

if TYPE_CHECKING:
    from routedk.adapters.train import TrainConfig


class Objective(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
    """Computes a batch's loss; its only parameters are those of the student that are trained.

    To the trainer it is the model: so checkpoints hold the trained weights alone, and the student
    keeps its own forward pass.

    Args:
        routed: The parameters that require gradients are trained, its router's included.
    """

    config_class = PreTrainedConfig

    def __init__(self, routed: RoutedStudent) -> None:
        tokenizer = routed.tokenizer
        # The trainer warns where the special tokens of tokenizer and model differ.
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        super().__init__(PreTrainedConfig(**{name: getattr(tokenizer, name) for name in names}))
        named = (*routed.model.named_parameters(), *routed.fusion.named_parameters())
        self.trained = nn.ParameterDict(
            {name.replace(".", "/"): weight for name, weight in named if weight.requires_grad}
        )
        # In a tuple, so that its frozen parameters are not this module's.
        self._routed = (routed,)

    @property
    def routed(self) -> RoutedStudent:
        """The student."""
        return self._routed[0]

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write the trained weights as the trainer reads them from a checkpoint."""
        tensors = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(tensors, Path(save_directory) / SAFE_WEIGHTS_NAME)

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """The loss of a batch of all processes, with the gradient of this process's part.

        Args:
            batch: As a collator made it; ``present`` is False in rows that do not count.
        """
        raise NotImplementedError


class AnswerLoss(Objective):
    """Mean cross-entropy of the labelled tokens under each row's gates.

    The vocabulary's logits are computed at labelled tokens only; TRL's own loss computes them at
    all tokens, which here costs more than the layers that are trained.

    Args:
        routed: Its layers below the experts are left out of the model while this is used.
        stage: Of its precision.
        router: The run's config where the router is trained; None: the one expert is.
    """

    def __init__(
        self, routed: RoutedStudent, stage: Stage, router: "TrainConfig | None" = None
    ) -> None:
        super().__init__(routed)
        self.stage = stage
        self.router = router

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """See `Objective`."""
        routed, fusion = self.routed, self.routed.fusion
        pooled_BH, starts_B = batch.pop("pooled"), batch.pop("start")
        present_BT, labels_BT = batch.pop("present"), batch.pop("labels")
        if self.router is None:
            gates = torch.ones(len(pooled_BH), 1, device=routed.device)
        else:
            if isinstance(fusion, SparsegenRouter):
                fusion.watched = []
            gates = fusion(pooled_BH)
        # Not a context manager: the gates are needed through the backward pass, too.
        routed.gate_state.gates = gates
        routed.gate_state.starts = routed.starts(starts_B)
        labels_BT = labels_BT.masked_fill(~present_BT, IGNORED)
        loss = shared_mean(token_losses(routed, batch, labels_BT, self.stage)[0])
        if self.router is None:
            return loss
        loss = loss + penalty(self.router, fusion, pooled_BH, present_BT)
        if isinstance(fusion, SparsegenRouter):
            fusion.watched = None
        return loss


def token_losses(
    routed: RoutedStudent, batch: dict[str, Tensor], labels_BT: Tensor, stage: Stage
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each labelled token of a batch of trees, under the gates now set.

    Returns:
        The losses, *shape* (labelled tokens,), and each one's row.
    """
    student: Any = routed.student.model
    next_BT = labels_BT[:, 1:]
    learnt_BT = next_BT != IGNORED
    with stage.autocast(routed.device):
        hidden_BTH = student.model(**batch, use_cache=False).last_hidden_state[:, :-1]
        logits_NV = student.lm_head(hidden_BTH[learnt_BT])
    losses_N = nn.functional.cross_entropy(logits_NV.float(), next_BT[learnt_BT], reduction="none")
    return losses_N, learnt_BT.nonzero()[:, 0]


class TargetLoss(Objective):
    """The divergence of the router's gates from their targets; no student is run.

    Args:
        routed: Its router is trained.
        router: The run's config, for the weights of further losses.
    """

    def __init__(self, routed: RoutedStudent, router: "TrainConfig") -> None:
        super().__init__(routed)
        self.router = router

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """See `Objective`."""
        fusion: Any = self.routed.fusion
        pooled_BH, present_BT = batch["pooled"], batch["present"]
        apart_B = divergence(fusion.log_shares(pooled_BH), batch["targets"])
        loss = shared_mean(apart_B[present_BT[:, 0]])
        return loss + penalty(self.router, fusion, pooled_BH, present_BT)
