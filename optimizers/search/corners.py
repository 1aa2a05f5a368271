"""Cheap corners of a search space: what is tried before anything is proposed."""

from typing import Any

from routedk.optimizers.search.dimensions import dimension_of, smallest_positive
from routedk.optimizers.search.space import NONE, SearchSpace


def corners(space: SearchSpace) -> list[dict[str, Any]]:
    """The cheap corners that lie in this space, as the parameters of their trials.

    In this order: ICL without knowledge; with few neighbours; with few rules; with patterns;
    with few neighbours and their thoughts; then the base expert alone. What else there is to
    choose is the cheapest, greedy answers among it.
    """
    few_neighbours = smallest_positive(space.neighbours)
    few_rules = smallest_positive(space.rules)
    wanted: list[dict[str, Any]] = [
        {"utilization": "ICL", "formats": (), "neighbours": 0},
        {"utilization": "ICL", "formats": (), "neighbours": few_neighbours},
        {"utilization": "ICL", "formats": ("rule",), "rules": few_rules, "neighbours": 0},
        {"utilization": "ICL", "formats": ("pattern",), "neighbours": 0},
        {"utilization": "ICL", "formats": ("thought",), "neighbours": few_neighbours},
        {"utilization": "SFT", "formats": ()},
    ]
    found = []
    for corner in wanted:
        trial = _CornerTrial({**corner, "enhancement": "greedy"})
        settings = space.suggest(trial)
        if all(getattr(settings, name) == value for name, value in corner.items()):
            found.append(trial.params)
    return found


class _CornerTrial:
    """Gives what is wanted where it can, else what is cheapest; keeps what it gave."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = wanted
        self.params: dict[str, Any] = {}

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        wanted = self._wanted(name)
        if wanted not in choices:
            numbers = all(isinstance(choice, int | float) for choice in choices)
            wanted = min(choices) if numbers else choices[0]
            if name == "learning_rate":
                wanted = sorted(choices)[len(choices) // 2]
        return self._give(name, wanted)

    def suggest_int(
        self, name: str, low: int, high: int, *, step: int = 1, log: bool = False
    ) -> int:
        wanted = self._wanted(name)
        return int(self._give(name, low if wanted is None else min(max(wanted, low), high)))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        return float(self._give(name, (low * high) ** 0.5 if log else low))

    def _wanted(self, name: str) -> Any:
        wanted = self.wanted.get(dimension_of(name))
        return "+".join(wanted) or NONE if isinstance(wanted, tuple) else wanted

    def _give(self, name: str, value: Any) -> Any:
        self.params[name] = value
        return value
