"""Fine-tunes a sentence encoder on the pairs of labelled sessions, with transformers' Trainer."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn import functional
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainingArguments

from routedk.errors import TrainingDivergedError
from routedk.programs.grouping.pair_head import PairHead
from routedk.programs.grouping.titles import MAX_TOKENS, embed
from routedk.programs.labels import Labelled, bundle_places
from routedk.similarity.encoders import load_sentence_model

# Sessions over all epochs, for a batch of 16: with fewer, the head hardly moves; with more, it fits
# the labels' noise.
_SESSIONS_SHOWN = 1800


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """How a grouping encoder is trained.

    Args:
        encoder: Name or folder of a sentence encoder.
        epochs: Passes over the sessions; None for 2 to 12, more for fewer sessions.
        learning_rate: Peak for the LoRA, after a linear warm-up; then it decays linearly to 0.
        head_rate: The same for the head.
        r: Rank of the LoRA.
        batch_size: Sessions per step and process.
        intent_weight: Weight of the item-intent loss, see `PairEncoder`.
        bf16: Whether to multiply in bfloat16.
        seed: Seed of initial weights and of the order of sessions.
    """

    encoder: str = "minilm"
    epochs: float | None = None
    learning_rate: float = 4e-4
    head_rate: float = 1e-3
    r: int = 16
    batch_size: int = 16
    intent_weight: float = 0.3
    bf16: bool = False
    seed: int = 0


class PairEncoder(nn.Module):
    """A sentence encoder with a fresh LoRA and a head over pairs.

    Its loss is the binary cross-entropy of "these two items are in one bundle", over all pairs of a
    batch; where labels differ, the target is their weighted mean. If a teacher names the intent of
    each item, the cross-entropy of picking an item's own intent among those of the batch is added,
    so the encoder learns what the teacher sees in an item.

    Args:
        settings: How it is made and trained.
    """

    def __init__(self, settings: PairSettings) -> None:
        from peft import LoraConfig

        super().__init__()
        self.settings = settings
        self.encoder: Any = load_sentence_model(settings.encoder)
        self.encoder.max_seq_length = MAX_TOKENS
        lora = LoraConfig(r=settings.r, lora_alpha=2 * settings.r, target_modules="all-linear")
        self.encoder.add_adapter(lora)
        self.head = PairHead(self.encoder.get_embedding_dimension())
        self.sharpness = nn.Parameter(torch.tensor(20.0))

    def forward(
        self,
        titles: Sequence[str],
        sizes: Sequence[int],
        targets: Tensor,
        intents: Sequence[str],
    ) -> dict[str, Tensor]:
        """The loss of a batch of sessions.

        Args:
            titles: Titles of all items, session by session.
            sizes: Number of items in each session.
            targets: Targets of all pairs, session by session, in [0, 1].
            intents: Intent of each item; empty if none is known.
        """
        device = self.sharpness.device
        texts = list(dict.fromkeys([*titles, *filter(None, intents)]))
        with torch.autocast(device.type, torch.bfloat16, enabled=self.settings.bf16):
            rows = embed(self.encoder, texts)
        place = {text: number for number, text in enumerate(texts)}
        items_ND = rows[[place[title] for title in titles]]
        logits = self.pair_logits(items_ND, sizes)
        loss = functional.binary_cross_entropy_with_logits(logits, targets.to(device))
        named = [number for number, intent in enumerate(intents) if intent]
        if self.settings.intent_weight and len(named) > 1:
            wordings = sorted({intents[number] for number in named})
            similar = items_ND[named] @ rows[[place[text] for text in wordings]].T
            own = torch.tensor([wordings.index(intents[k]) for k in named], device=device)
            drawn = functional.cross_entropy(similar * self.sharpness, own)
            loss = loss + self.settings.intent_weight * drawn
        return {"loss": loss}

    def pair_logits(self, items_ND: Tensor, sizes: Sequence[int]) -> Tensor:
        """The logits of all pairs, session by session; each session has at least two items."""
        parts = pairwise([0, *accumulate(sizes)])
        return torch.cat([self.head(items_ND[first:last]) for first, last in parts])


class _Collator:
    """Makes batches of sessions, given by index."""

    def __init__(self, labelled: Sequence[Labelled]) -> None:
        self.labelled = labelled

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        batch = [self.labelled[row["place"]] for row in rows]
        items = [(one, item) for one in batch for item in one.session.items]
        return {
            "titles": [item.title for _, item in items],
            "sizes": [len(one.session.items) for one in batch],
            "targets": torch.cat([pair_targets(one) for one in batch]),
            "intents": [one.item_intents.get(item.id, "") for one, item in items],
        }


def pair_targets(labelled: Labelled) -> Tensor:
    """For each pair, the weighted share of labels that bundle it. *Shape:* (pairs,)."""
    count = len(labelled.session.items)
    together = torch.zeros(count, count)
    for bundles, weight in labelled.labels:
        alike = torch.zeros(count, count)
        for places in map(sorted, bundle_places(labelled.session, bundles)):
            alike[torch.tensor(places)[:, None], torch.tensor(places)] = 1.0
        together += weight * alike
    one, other = torch.triu_indices(count, count, 1)
    return together[one, other]


class _PairTrainer(Trainer):  # type: ignore[misc]  # transformers is untyped here
    """A Trainer that stops when the loss is no longer finite."""

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Check loss and weights; called every few steps and at the end.

        Raises:
            TrainingDivergedError: The loss, or a weight, is not finite.
        """
        whole = all(bool(weight.isfinite().all()) for weight in self.model.parameters())
        if not (whole and math.isfinite(logs.get("loss", 0.0))):
            raise TrainingDivergedError(
                f"training of the grouping encoder diverged at step {self.state.global_step}: "
                "lower its learning rate"
            )
        super().log(logs, start_time)


def train_pairs(
    labelled: Sequence[Labelled], settings: PairSettings, held_out: Sequence[Labelled] = ()
) -> tuple[PairEncoder, float]:
    """Fine-tune a sentence encoder on labelled sessions.

    Args:
        labelled: Sessions with labels, each of at least two items.
        settings: How to train.
        held_out: Sessions for early stopping, not trained on: training ends after an epoch that
            does not lower their loss, and the best epoch's weights are kept. Without any, all
            epochs are trained.

    Returns:
        The encoder, and the number of epochs after which it had these weights.

    Raises:
        TrainingDivergedError: The loss is no longer finite.
        SettingError: The encoder cannot be loaded.
    """
    epochs = settings.epochs or min(12.0, max(2.0, round(_SESSIONS_SHOWN / len(labelled))))
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(settings.seed)
        model = PairEncoder(settings)
        stopping = bool(held_out)
        each_epoch = "epoch" if stopping else "no"
        arguments = TrainingArguments(
            output_dir=folder,
            num_train_epochs=epochs,
            per_device_train_batch_size=settings.batch_size,
            per_device_eval_batch_size=settings.batch_size,
            warmup_steps=0.1,
            lr_scheduler_type="linear",
            seed=settings.seed,
            eval_strategy=each_epoch,
            save_strategy=each_epoch,
            save_only_model=True,
            load_best_model_at_end=stopping,
            label_names=["targets"],
            prediction_loss_only=True,
            logging_steps=10,
            report_to="none",
            use_cpu=not torch.cuda.is_available(),
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            disable_tqdm=True,
        )
        parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        lora = [p for name, p in parameters if "lora_" in name]
        head = [p for name, p in parameters if "lora_" not in name]
        optimizer = torch.optim.AdamW(
            [
                {"params": lora, "lr": settings.learning_rate},
                {"params": head, "lr": settings.head_rate},
            ],
            weight_decay=0.01,
        )
        trainer = _PairTrainer(
            model=model,
            args=arguments,
            train_dataset=_places(labelled),
            eval_dataset=_places(held_out, after=len(labelled)) if stopping else None,
            data_collator=_Collator([*labelled, *held_out]),
            optimizers=(optimizer, None),
            callbacks=[EarlyStoppingCallback(1)] if stopping else None,
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        state = trainer.state
        last = state.best_global_step if stopping else state.global_step
        return model.eval(), last * epochs / state.max_steps


def _places(labelled: Sequence[Labelled], after: int = 0) -> Dataset:
    return Dataset.from_dict({"place": list(range(after, after + len(labelled)))})


def multiplies_in_bf16(wanted: bool | None) -> bool:
    """Whether to multiply in bfloat16: as wanted, else if the CPU has instructions for it.

    With those of AVX-512 alone, a training step took half the time.
    """
    able = torch.cpu.get_capabilities()
    return bool(able.get("amx_tile") or able.get("avx512_bf16")) if wanted is None else wanted
