"""Runs one training stage with TRL's SFTTrainer; a killed stage resumes from its checkpoint."""

import math
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import ProgressCallback
from transformers.trainer_utils import get_last_checkpoint
from trl import SFTConfig, SFTTrainer

from routedk.adapters.training.objectives import Objective
from routedk.adapters.training.processes import for_averaging, place, total
from routedk.adapters.training.stage import Stage
from routedk.errors import TrainingDivergedError

_WARMUP_STEPS = 5


class LossBar(ProgressCallback):  # type: ignore[misc]  # transformers is untyped here
    """The trainer's progress bar, showing the loss instead of a line per step."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **more: Any) -> None:
        """Show the latest loss."""
        if self.training_bar is not None and "loss" in (logs or {}):
            self.training_bar.set_postfix(loss=f"{float(logs['loss']):.3f}")


class RoutedTrainer(SFTTrainer):  # type: ignore[misc]  # TRL is untyped here
    """SFTTrainer over an `Objective`, under DDP if there are several processes.

    Args:
        kwargs: For SFTTrainer; its model is an `Objective`.

    Attributes:
        tokens: Tokens of the current step, over all processes.
    """

    tokens = 0

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any
    ) -> Tensor:
        """The loss of the rows, without those that only pad an epoch's last batch."""
        present_BT = inputs["present"]
        present_BT &= self._counted(len(present_BT)).to(present_BT.device)[:, None]
        self.tokens = int(total(present_BT.sum())) if "labels" in inputs else 0
        return for_averaging(model(batch=inputs))

    def _counted(self, rows: int) -> Tensor:
        """Which of this process's rows belong to the step.

        In an epoch's last step, accelerate fills up the batches of all processes with rows that
        were already seen; a single process gets a smaller batch.
        """
        number, processes = place()
        size: int = self.args.per_device_train_batch_size
        every: int = len(self.train_dataset)
        steps = math.ceil(every / (size * processes))
        left: int = every - self.state.global_step % steps * size * processes
        return torch.arange(rows) + number * size < left

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the step's tokens; called after each step, before its checkpoint is written.

        Raises:
            TrainingDivergedError: The loss or a trained weight is not finite.
        """
        whole = all(bool(weight.isfinite().all()) for weight in self.model.parameters())
        if not (whole and math.isfinite(logs.get("loss", 0.0))):
            raise TrainingDivergedError(
                f"training diverged: at step {self.state.global_step} the loss or a weight is not "
                "finite; lower --learning-rate"
            )
        super().log({**logs, "tokens": float(self.tokens)}, start_time)


def run_stage(
    objective: Objective, collator: Any, count: int, stage: Stage, folder: Path
) -> list[dict[str, float]]:
    """Train on rows until the stage is done.

    Args:
        objective: Computes the loss, and holds what is trained.
        collator: Makes batches of rows, given by index.
        count: Number of rows.
        stage: How to train.
        folder: Keeps checkpoints; a run interrupted there is resumed.

    Returns:
        The loss curve: per step ``step``, ``loss`` per token, and ``tokens`` seen by the student
        so far.

    Raises:
        TrainingDivergedError: The loss or a weight is no longer finite.
    """
    routed = objective.routed
    on_cpu = routed.device.type == "cpu"
    output = str(folder / "checkpoints")
    batches = math.ceil(count / (stage.batch_size * place()[1]))
    arguments = SFTConfig(
        output_dir=output,
        num_train_epochs=stage.epochs,
        learning_rate=stage.learning_rate,
        per_device_train_batch_size=stage.batch_size,
        # At most half of all steps, so that short runs learn, too.
        warmup_steps=min(_WARMUP_STEPS, math.ceil(stage.epochs * batches) // 2),
        lr_scheduler_type="cosine",
        max_length=None,
        seed=stage.seed,
        data_seed=stage.seed,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=stage.save_steps,
        save_total_limit=1,
        use_cpu=on_cpu,
        bf16=not on_cpu,
        activation_checkpointing=False,
        ddp_find_unused_parameters=False,
        dataloader_pin_memory=not on_cpu,
        report_to="none",
        disable_tqdm=False,  # else, if transformers is quiet, steps are printed on stdout
        log_level_replica="error",
        remove_unused_columns=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    student: Any = routed.student.model
    checkpoint = get_last_checkpoint(output) if Path(output).exists() else None
    routed.model.train()
    routed.fusion.train()
    try:
        if stage.gradient_checkpointing:
            student.activation_checkpointing_enable({"use_reentrant": False})
        trainer = RoutedTrainer(
            model=objective,
            args=arguments,
            train_dataset=Dataset.from_dict({"row": list(range(count))}),
            data_collator=collator,
            processing_class=routed.tokenizer,
        )
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(LossBar)
        trainer.train(resume_from_checkpoint=checkpoint)
    finally:
        routed.gate_state.gates = routed.gate_state.starts = None
        student.activation_checkpointing_disable()
        for module in (routed.model, routed.fusion):
            module.eval().requires_grad_(False)
    curve, tokens = [], 0
    for record in trainer.state.log_history:
        if "loss" in record:
            tokens += int(record["tokens"])
            curve.append({"step": record["step"], "loss": record["loss"], "tokens": tokens})
    return curve
