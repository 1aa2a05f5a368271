r"""The losses of experts and routers, as modules that hold what a stage trains.

| router training | learns from                                    |
|-----------------|------------------------------------------------|
| `answer`        | the answer's cross-entropy under its own gates |
| `supervised`    | each expert's own loss on each training prompt |

The experts are frozen. `supervised` computes once, without gradients, the loss of each expert alone
on each prompt that the router is to be trained on: all experts on the same prompt and answer,
whatever knowledge is in the prompt, so that their losses are comparable. The experts were trained
on some of these prompts, which flatters those that saw them more often. The gates are then fitted
to :math:`\mathrm{softmax}(-\mathrm{loss} / T)`. A step costs next to nothing, since neither student
nor experts are run, so all rows can be used many times.

Source: FactorLLM (arXiv 2408.11855), prior-approximate router, whose pseudo labels come from
what each expert gets wrong; using the loss of the answer instead of the distance to a teacher's
features, and soft labels, is our own choice.
"""

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import SAFE_WEIGHTS_NAME

from routedk.adapters.experts.lower import skipped
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.training.processes import shared_mean
from routedk.adapters.training.stage import Stage
from routedk.adapters.trees import IGNORED, tree_masks


class Objective(PreTrainedModel):  # type: ignore[misc]  # transformers is untyped here
    """Computes a batch's loss; its only parameters are those of the student that are trained.

    To the trainer it is the model, so checkpoints hold only the trained weights, and the student
    keeps its own forward pass.

    Args:
        routed: Its parameters that require gradients are trained, including its router's.
    """

    config_class = PreTrainedConfig

    def __init__(self, routed: RoutedStudent) -> None:
        tokenizer = routed.tokenizer
        # The trainer warns if the special tokens of tokenizer and model differ.
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
        """The loss of a batch over all processes, with the gradient of this process's part.

        Args:
            batch: As a collator made it; ``present`` is False in rows that do not count.
        """
        raise NotImplementedError


class AnswerLoss(Objective):
    """Mean cross-entropy of the labeled tokens under the fusion's gates.

    The vocabulary's logits are computed at labeled tokens only; TRL's own loss computes them at
    all tokens, which here costs more than the layers that are trained.

    Args:
        routed: Its layers below the experts are not run: batches hold their output.
        stage: Sets the precision.
    """

    def __init__(self, routed: RoutedStudent, stage: Stage) -> None:
        super().__init__(routed)
        self.stage = stage

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """See `Objective`."""
        routed = self.routed
        labels_BT = batch["labels"].masked_fill(~batch["present"], IGNORED)
        # Not a context manager: the gates are needed in the backward pass, too.
        routed.gate_state.gates = routed.fusion(batch["pooled"])
        routed.gate_state.starts = routed.starts(batch["start"])
        return shared_mean(token_losses(routed, batch, labels_BT, self.stage)[0])


def token_losses(
    routed: RoutedStudent, batch: dict[str, Tensor], labels_BT: Tensor, stage: Stage
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of each labeled token of a batch of trees, under the current gates.

    Args:
        routed: The student.
        batch: From a `RowCollator`.
        labels_BT: The labels that count.
        stage: Sets the precision.

    Returns:
        The losses, *shape* (labeled tokens,), and each one's row.
    """
    student: Any = routed.student.model
    next_BT = nn.functional.pad(labels_BT[:, 1:], (0, 1), value=IGNORED)
    learnt_BT = next_BT != IGNORED
    lower = student.base_model.layers[: routed.first_layer]
    inputs = {name: batch[name] for name in ("input_ids", "position_ids")}
    masks = tree_masks(student, batch["branch_ids"], batch["position_ids"])
    options = {"attention_mask": masks, "use_cache": False, "logits_to_keep": learnt_BT}
    with stage.autocast(routed.device), skipped(lower, batch["hidden"]):
        logits_NV = student(**inputs, **options).logits
    losses_N = nn.functional.cross_entropy(logits_NV.float(), next_BT[learnt_BT], reduction="none")
    return losses_N, learnt_BT.nonzero()[:, 0]


class TargetLoss(Objective):
    """The divergence of the router's gates from their targets; no student is run."""

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """See `Objective`."""
        fusion: Any = self.routed.fusion
        apart_B = divergence(fusion.log_shares(batch["pooled"]), batch["targets"])
        return shared_mean(apart_B[batch["present"][:, 0]])


def divergence(log_shares: Tensor, targets_BE: Tensor) -> Tensor:
    r"""How far gates are from their targets, :math:`\sum_e t_e (\ln t_e - \ln g_e)` per row.

    Args:
        log_shares: *Shape:* (batch, experts), or (batch, layers, experts) to average over layers.
        targets_BE: *Shape:* (batch, experts).

    Returns:
        *Shape:* (batch,).
    """
    if log_shares.ndim == 3:
        targets_BE = targets_BE[:, None].expand_as(log_shares)
    apart = nn.functional.kl_div(log_shares, targets_BE, reduction="none").sum(dim=-1)
    return apart.flatten(start_dim=1).mean(dim=1) if apart.ndim > 1 else apart
