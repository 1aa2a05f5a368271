"""How weights are tuned where nobody says otherwise."""

from routedk.adapters.experts.routing_file import ExpertSettings
from routedk.adapters.training.fit import FitSettings
from routedk.adapters.training.plan import TrainingPlan


def finetune_settings(*, with_knowledge: bool, seed: int = 0) -> FitSettings:
    """The settings of ``routedk train``, for what there is to learn from.

    Args:
        with_knowledge: Whether rules and thoughts are there: then the base, rule and thought
            expert are trained and a router over them, else the base expert alone.
        seed: Seed of all chance: fresh weights, samples and order of rows.
    """
    if with_knowledge:
        return TrainingPlan().fit_settings(ExpertSettings(), seed=seed)
    alone = ExpertSettings(experts=("base",))
    return TrainingPlan().fit_settings(alone, fusion="single:base", seed=seed)
