"""The training settings of a tuned program where none are given."""

from routedk.adapters.train import TrainConfig


def finetune_settings(*, with_knowledge: bool, seed: int = 0) -> TrainConfig:
    """The defaults of `train`, for what there is to learn from.

    Args:
        with_knowledge: Whether rules and thoughts are there: then the base, rule and thought
            expert are trained and a router over them, else the base expert alone.
        seed: Seed of all chance: initial weights, samples and order of rows.
    """
    if with_knowledge:
        return TrainConfig(seed=seed)
    return TrainConfig(expert_names=("base",), fusion="single:base", seed=seed)
