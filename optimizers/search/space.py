"""`SearchSpace`: what a study chooses from, and how a trial's settings are chosen from it."""

import math
from collections.abc import Iterator
from functools import cache
from itertools import product
from typing import Any, Literal, NamedTuple, cast, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from routedk.optimizers.search.dimensions import (
    FloatDimension,
    IntDimension,
    Range,
    SuggestingTrial,
    has_zero,
    smallest_positive,
    suggest_number,
    suggest_value,
)
from routedk.optimizers.search.settings import (
    EXPERTS,
    FORMATS,
    Enhancement,
    Strategy,
    TrialSettings,
    UtilizationName,
)
from routedk.programs.knowledge.utilization import UTILIZATIONS

FusionChoice = Literal[
    "softmax", "static", "top1", "layerwise", "sparsegen", "uniform", "merged", "single"
]

NONE = "none"
SUBSETS = (
    "pattern",
    "rule",
    "thought",
    "pattern+rule",
    "pattern+thought",
    "rule+thought",
    "pattern+rule+thought",
)
EXPERT_SUBSETS = ("base", "base+rule", "base+thought", "base+rule+thought")


class _Shape(NamedTuple):
    """A combination of what decides which other dimensions there are."""

    utilization: str
    formats: str
    experts: str
    neighbours: bool
    rules: bool


class SearchSpace(BaseModel):
    """What may be chosen, each dimension a list of values or, for numbers, a `Range`.

    A single value fixes a dimension; a shorter list narrows it; other values extend it. The
    default is lists and not ranges, so that trials often share what is costly to make. Sets are
    written with ``+``: ``rule+thought``, ``base+rule``; no formats are ``none``.

    Args:
        utilization: Where knowledge is used.
        formats: Sets of formats that are distilled.
        strategy: Which training sessions knowledge is distilled from.
        ratio: Share of them, in (0, 1].
        experts: Sets of experts that are trained, each with base; which of them can be depends on
            the formats.
        fusion: How two or more experts are fused; ``single`` is the one after base alone. Of
            three experts it is chosen only where there is no other way.
        r: Rank of each expert, at least 1.
        learning_rate: Peak for the base expert, above 0.
        epochs: Passes of the base expert over its rows, above 0.
        neighbours: Similar training sessions in the prompt, at least 0.
        rules: Rules in the prompt, at least 0.
        enhancement: How an answer is chosen.

    Raises:
        ValidationError: A value is not allowed, or a utilization, a set of formats or one of
            experts was given that can never be chosen beside the others. It is a ``ValueError``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    utilization: tuple[UtilizationName, ...] = Field(default=("ICL", "SFT", "SFT+ICL"))
    formats: tuple[str, ...] = (NONE, *SUBSETS)
    strategy: tuple[Strategy, ...] = get_args(Strategy)
    ratio: FloatDimension = (0.1, 0.3, 1.0)
    experts: tuple[str, ...] = EXPERT_SUBSETS
    fusion: tuple[FusionChoice, ...] = get_args(FusionChoice)
    r: IntDimension = (4, 8, 16)
    learning_rate: FloatDimension = (1e-3, 2e-3, 4e-3)
    epochs: FloatDimension = (2.0, 4.0, 6.0)
    neighbours: IntDimension = (0, 1, 2, 4)
    rules: IntDimension = (0, 4, 8, 16)
    enhancement: tuple[Enhancement, ...] = get_args(Enhancement)

    _shapes: tuple[_Shape, ...] = PrivateAttr(default=())

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        return {
            name: [value] if isinstance(value, str | int | float) else value
            for name, value in values.items()
        }

    @field_validator("formats", "experts")
    @classmethod
    def _sets(cls, values: tuple[str, ...], info: Any) -> tuple[str, ...]:
        known, allowed = (
            (FORMATS, (NONE, *SUBSETS))
            if info.field_name == "formats"
            else (EXPERTS, EXPERT_SUBSETS)
        )
        found = ["+".join(sorted(v.split("+"), key=_places(known))) for v in values]
        for written, value in zip(values, found, strict=True):
            if value not in allowed:
                raise ValueError(f"{written!r} is none of {', '.join(allowed)}")
        return tuple(found)

    @field_validator("*")
    @classmethod
    def _values(cls, values: Any, info: Any) -> Any:
        name = info.field_name
        if isinstance(values, tuple):
            if not values:
                raise ValueError("there must be at least one value")
            values = tuple(dict.fromkeys(values))
        if name not in _LEAST:
            return values
        numbers = (values.low, values.high) if isinstance(values, Range) else values
        least, included, most = _LEAST[name]
        for number in numbers:
            within = least <= number <= most and math.isfinite(number)
            if not within or (number == least and not included):
                bounds = f"{'at least' if included else 'above'} {least}"
                most_said = f" and at most {most:g}" if most < float("inf") else ""
                raise ValueError(f"{number!r} must be {bounds}{most_said}")
        return values

    @model_validator(mode="after")
    def _reachable(self) -> "SearchSpace":
        self._shapes = tuple(self._find_shapes())
        if not self._shapes:
            raise ValueError("no combination of these values can be: name more of them")
        for name in ("utilization", "formats", "experts"):
            reached = {getattr(shape, name) for shape in self._shapes}
            lost = [value for value in getattr(self, name) if value not in reached]
            if lost and name in self.model_fields_set:
                raise ValueError(
                    f"{name}: {lost[0]!r} can never be chosen beside the other dimensions, leave "
                    "it out or give them more values"
                )
        return self

    def suggest(self, trial: SuggestingTrial) -> TrialSettings:
        """A trial's settings: only what there is a choice of, and what matters, is asked for.

        Args:
            trial: Is asked for values; which it is asked for depends on those it gave before. The
                choices of a parameter are the same in every trial.
        """
        shapes = self._shapes

        def choose(name: str) -> str:
            nonlocal shapes
            every = getattr(self, name)
            allowed = tuple(v for v in every if any(getattr(s, name) == v for s in shapes))
            value: str = suggest_value(trial, name, every, allowed)
            shapes = tuple(shape for shape in shapes if getattr(shape, name) == value)
            return value

        utilization = choose("utilization")
        chosen: dict[str, Any] = {"utilization": utilization}
        chosen["formats"] = _members(choose("formats"))
        if chosen["formats"]:
            chosen["ratio"] = suggest_number(trial, "ratio", self.ratio)
            # A sample of all sessions is the same by every strategy.
            few = chosen["ratio"] < 1
            chosen["strategy"] = (
                suggest_value(trial, "strategy", self.strategy) if few else self.strategy[0]
            )
        if UTILIZATIONS[utilization].trains:
            chosen["experts"] = _members(choose("experts"))
            chosen["fusion"] = self._suggest_fusion(trial, chosen["experts"])
            for name in ("r", "learning_rate", "epochs"):
                chosen[name] = suggest_number(trial, name, getattr(self, name))
        for name in ("neighbours", "rules"):
            shown = {getattr(shape, name) for shape in shapes}
            positive = None if len(shown) == 2 else shown.pop()
            value = suggest_number(trial, name, getattr(self, name), positive=positive)
            shapes = tuple(shape for shape in shapes if getattr(shape, name) == bool(value))
            chosen[name] = value
        chosen["enhancement"] = suggest_value(trial, "enhancement", self.enhancement)
        return TrialSettings(**chosen)

    def _suggest_fusion(self, trial: SuggestingTrial, experts: tuple[str, ...]) -> str:
        first, *others = experts
        if not others:
            return f"single:{first}"
        # Of three, one alone would have the other trained in vain.
        several = tuple(name for name in self.fusion if len(others) == 1 or name != "single")
        fusion: str = suggest_value(trial, "fusion", self.fusion, several or self.fusion)
        if fusion != "single":
            return fusion
        return f"single:{suggest_value(trial, 'single', tuple(others))}"

    def _find_shapes(self) -> Iterator[_Shape]:
        for utilization, formats in product(self.utilization, self.formats):
            use = UTILIZATIONS[utilization]
            shows = {
                "neighbours": _shows(self.neighbours, possible=use.prompts),
                "rules": _shows(self.rules, possible=use.prompts and "rule" in _members(formats)),
            }
            for experts in self.experts if use.trains else ("",):
                for neighbours, rules in product(shows["neighbours"], shows["rules"]):
                    shape = _Shape(utilization, formats, experts, neighbours, rules)
                    if _can_be(shape):
                        yield shape


_LEAST: dict[str, tuple[float, bool, float]] = {
    "ratio": (0, False, 1),
    "r": (1, True, float("inf")),
    "learning_rate": (0, False, float("inf")),
    "epochs": (0, False, float("inf")),
    "neighbours": (0, True, float("inf")),
    "rules": (0, True, float("inf")),
}


def _places(known: tuple[str, ...]) -> Any:
    return lambda name: known.index(name) if name in known else len(known)


def _members(subset: str) -> tuple[str, ...]:
    return () if subset == NONE else tuple(subset.split("+"))


def _shows(dimension: Any, *, possible: bool) -> list[bool]:
    """Whether the prompt may hold none of something, and whether it may hold some."""
    if not possible:
        return [False]
    some = smallest_positive(dimension) is not None
    return [False] * has_zero(dimension) + [True] * some


@cache
def _can_be(shape: _Shape) -> bool:
    """Whether `TrialSettings` allow this; they alone know what is impossible."""
    trained: dict[str, Any] = {}
    if shape.experts:
        experts = _members(shape.experts)
        fusion = "uniform" if len(experts) > 1 else f"single:{experts[0]}"
        trained = {"experts": experts, "fusion": fusion}
        trained |= {"r": 1, "learning_rate": 1.0, "epochs": 1.0}
    try:
        TrialSettings(
            utilization=cast(UtilizationName, shape.utilization),
            formats=cast(Any, _members(shape.formats)),
            neighbours=int(shape.neighbours),
            rules=int(shape.rules),
            **trained,
        )
    except ValueError:
        return False
    return True
