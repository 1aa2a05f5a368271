"""How weights are tuned where nobody says otherwise."""

from routedk.adapters.routing.routed import ExpertSettings
from routedk.adapters.training.fit import FitSettings
from routedk.adapters.training.stages import TrainingSettings


def finetune_settings(*, with_knowledge: bool, seed: int = 0) -> FitSettings:
    """The settings of ``routedk train``, for what there is to learn from.

    Args:
        with_knowledge: Whether rules and thoughts are there: then the base, rule and thought
            expert are trained and a router over them, else the base expert alone.
        seed: Seed of all chance: fresh weights, samples and order of rows.
    """
    experts = ExpertSettings() if with_knowledge else ExpertSettings(experts=("base",))
    return FitSettings(
        experts=experts,
        base=TrainingSettings(epochs=6, learning_rate=2e-3, batch_size=4, seed=seed),
        knowledge=TrainingSettings(
            share=0.3, epochs=3, learning_rate=1e-3, batch_size=4, seed=seed
        ),
        router=TrainingSettings(share=0.1, epochs=2, learning_rate=2e-2, batch_size=4, seed=seed),
        fusion="softmax" if with_knowledge else "single:base",
        seed=seed,
    )
