"""How experts and router are trained where nothing else is asked for."""

from dataclasses import dataclass
from typing import NamedTuple

from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.training.examples import DEFAULT_FORM, AnswerForm
from routedk.adapters.training.fit import FitSettings
from routedk.adapters.training.router_training import RouterTraining
from routedk.adapters.training.stages import TrainingSettings


class _Stage(NamedTuple):
    """How a router is trained where the plan does not say."""

    share: float
    epochs: float
    least_batch: int = 1


# A step of `supervised` runs no model: it can afford all rows, many times, in large batches.
_ROUTER_STAGES = {
    "answer": _Stage(0.1, 2.0),
    "joint": _Stage(0.3, 1.0),
    "supervised": _Stage(1.0, 10.0, 32),
}
_ROUTER_RATE = 2e-2


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """The settings of a training run in few numbers; `fit_settings` makes all of them.

    Args:
        epochs: Passes of the base expert over its rows.
        learning_rate: Peak for the base expert; half of it for the others, a quarter of it for
            experts that are trained with the router.
        knowledge_share: Share of rows that the other experts are trained on.
        knowledge_epochs: Passes over these rows.
        router_training: What the router learns from, see `RouterTraining`.
        router_share: Share of rows that the router is trained on; None: by ``router_training``.
        router_epochs: Passes over these rows; None: by ``router_training``.
        temperature: See `RouterTraining`.
        balance: See `RouterTraining`.
        sparsity: See `RouterTraining`.
        batch_size: Sessions per step and process.
        gradient_checkpointing: See `TrainingSettings`.
    """

    epochs: float = 6.0
    learning_rate: float = 2e-3
    knowledge_share: float = 0.3
    knowledge_epochs: float = 3.0
    router_training: str = "answer"
    router_share: float | None = None
    router_epochs: float | None = None
    temperature: float = 0.1
    balance: float = 0.0
    sparsity: float = 0.0
    batch_size: int = 4
    gradient_checkpointing: bool = False

    def fit_settings(
        self,
        shape: ExpertSettings,
        *,
        fusion: str = "softmax",
        one_by_one: bool = False,
        answer_form: AnswerForm = DEFAULT_FORM,
        utilization: str | None = None,
        seed: int = 0,
    ) -> FitSettings:
        """All settings of a run.

        Args:
            shape: Of the experts.
            fusion: See `FitSettings`.
            one_by_one: See `FitSettings`.
            answer_form: See `FitSettings`.
            utilization: See `FitSettings`.
            seed: Of all chance.

        Raises:
            SettingError: A value is not allowed.
        """

        def stage(
            passes: float, rate: float, share: float = 1.0, rows: int = self.batch_size
        ) -> TrainingSettings:
            return TrainingSettings(
                share=share,
                epochs=passes,
                learning_rate=rate,
                batch_size=rows,
                seed=seed,
                gradient_checkpointing=self.gradient_checkpointing,
            )

        base = stage(self.epochs, self.learning_rate)
        how = RouterTraining(
            method=self.router_training,
            temperature=self.temperature,
            balance=self.balance,
            sparsity=self.sparsity,
            expert_learning_rate=self.learning_rate / 4,
        )
        usual = _ROUTER_STAGES[how.method]
        return FitSettings(
            experts=shape,
            base=base,
            knowledge=stage(self.knowledge_epochs, self.learning_rate / 2, self.knowledge_share),
            router=stage(
                usual.epochs if self.router_epochs is None else self.router_epochs,
                _ROUTER_RATE,
                usual.share if self.router_share is None else self.router_share,
                max(self.batch_size, usual.least_batch),
            ),
            fusion=fusion,
            router_training=how,
            one_by_one=one_by_one,
            answer_form=answer_form,
            utilization=utilization,
            seed=seed,
        )
