"""`SearchSpace`: what a study chooses from; `TrialSettings`: what one trial distills and trains."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    model_validator,
)

from routedk.adapters.train import ExpertName
from routedk.data.validation import checked
from routedk.files import read_toml
from routedk.programs.knowledge.utilization import UtilizationName, is_shown, is_trained
from routedk.programs.teachers.config import Strategy

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


Value = TypeVar("Value")


def _listed(value: object) -> object:
    """Turn a single value into a list of one."""
    return (value,) if isinstance(value, str | int | float) else value


def _joined(value: object) -> object:
    """Split a set that is written with ``+``."""
    return members(value) if isinstance(value, str) else value


Values: TypeAlias = Annotated[tuple[Value, ...], BeforeValidator(_listed), Field(min_length=1)]
Members: TypeAlias = Annotated[tuple[Value, ...], BeforeValidator(_joined)]
Ratio = Annotated[float, Strict(), Field(gt=0, le=1)]
Positive = Annotated[float, Strict(), Field(gt=0, allow_inf_nan=False)]
Rank = Annotated[int, Strict(), Field(ge=1)]
Count = Annotated[int, Strict(), Field(ge=0)]
FormatName = Literal["pattern", "rule", "thought"]


class TrialSettings(BaseModel):
    """Everything that distinguishes one trial from another.

    `SearchSpace.suggest` creates them, and only combinations in which every part is used.

    Args:
        utilization: Where knowledge is used: in prompts (``ICL``), in training (``SFT``) or both;
            or ``AICL``, the method of that name, which has no other settings.
        formats: Formats of the knowledge that is used, in the order pattern, rule, thought.
        strategy: How the training sessions that knowledge is distilled from are sampled.
        ratio: Share of them that is sampled, in (0, 1].
        experts: Experts to train, base first; None under ``ICL``.
        fusion: How the experts are fused; ``single:NAME`` uses only one of them.
        r: Rank of each expert.
        learning_rate: Peak learning rate of the base expert.
        epochs: Passes of the base expert over its rows.
        neighbours: Similar training sessions in the prompt, with their thoughts if the formats
            include thoughts.
        rules: Rules in the prompt, those nearest to the session.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    utilization: Literal["ICL", "SFT", "SFT+ICL", "AICL"] = "ICL"
    formats: Members[FormatName] = ()
    strategy: Strategy = "random"
    ratio: Ratio = 1.0
    experts: Members[ExpertName] | None = None
    fusion: str | None = None
    r: Rank | None = None
    learning_rate: Positive | None = None
    epochs: Positive | None = None
    neighbours: Count = 0
    rules: Count = 0

    @model_validator(mode="after")
    def _useful(self) -> "TrialSettings":
        used = {name for name, value in self if value != type(self).model_fields[name].default}
        useless = used - {"utilization"} if self.utilization == "AICL" else set[str]()
        if not is_trained(self.utilization):
            useless |= used & {"experts", "fusion", "r", "learning_rate", "epochs"}
        if not is_shown(self.utilization):
            useless |= used & {"neighbours", "rules"}
        if useless:
            names = ", ".join(sorted(useless))
            raise ValueError(f"{names}: of no use under utilization {self.utilization}")
        if is_trained(self.utilization) and not self.experts:
            raise ValueError(f"experts: utilization {self.utilization} trains some, say which")
        if self.formats != tuple(name for name in get_args(FormatName) if name in self.formats):
            raise ValueError("formats: each once, in the order pattern, rule, thought")
        needed = {*(self.experts or ())} - {"base"}
        if "mixed" in needed:
            needed = needed - {"mixed"} | {"rule", "thought"}
        if lacking := needed - {*self.formats}:
            raise ValueError(f"experts: {', '.join(sorted(lacking))} is not among the formats")
        return self

    def to_dict(self) -> dict[str, Any]:
        """The settings ready for JSON; ``TrialSettings(**...)`` restores them."""
        return self.model_dump(mode="json")


def in_words(settings: Mapping[str, Any]) -> str:
    """`TrialSettings.to_dict` on one line, without unset values, sets joined by ``+``."""
    shown = {
        name: "+".join(value) or "none" if isinstance(value, list) else value
        for name, value in settings.items()
        if value is not None
    }
    return ", ".join(f"{name} {value}" for name, value in shown.items())


FormatSet = Literal[
    "none",
    "pattern",
    "rule",
    "thought",
    "pattern+rule",
    "pattern+thought",
    "rule+thought",
    "pattern+rule+thought",
]
ExpertSet = Literal["base", "base+rule", "base+thought", "base+rule+thought"]
FusionName = Literal[
    "softmax", "static", "top1", "layerwise", "sparsegen", "uniform", "merged", "single"
]


class SearchSpace(BaseModel):
    """The values of each dimension that a search tries.

    A single value fixes a dimension, a shorter list narrows it, other values extend it. Dimensions
    have few values and no ranges, so that trials often share expensive artifacts.

    Args:
        utilization: Where knowledge is used.
        formats: Sets of knowledge formats, joined by ``+``.
        strategy: How the sessions that knowledge is distilled from are sampled.
        ratio: Share of the training sessions, in (0, 1].
        experts: Sets of experts to train, each including base.
        fusion: How two or more experts are fused; ``single`` uses only the one that is not base.
        r: Rank of each expert, at least 1.
        learning_rate: Peak learning rate of the base expert, above 0.
        epochs: Passes of the base expert over its rows, above 0.
        neighbours: Similar training sessions in the prompt, at least 0.
        rules: Rules in the prompt, at least 0.

    Raises:
        ValidationError: A value is not allowed, or no combination is possible. It is a
            ``ValueError``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    utilization: Values[UtilizationName] = get_args(UtilizationName)
    formats: Values[FormatSet] = get_args(FormatSet)
    strategy: Values[Strategy] = get_args(Strategy)
    ratio: Values[Ratio] = (0.1, 0.3, 1.0)
    experts: Values[ExpertSet] = get_args(ExpertSet)
    fusion: Values[FusionName] = get_args(FusionName)
    r: Values[Rank] = (4, 8, 16)
    learning_rate: Values[Positive] = (1e-3, 2e-3, 4e-3)
    epochs: Values[Positive] = (2.0, 4.0, 6.0)
    neighbours: Values[Count] = (0, 1, 2, 4)
    rules: Values[Count] = (0, 4, 8, 16)

    @model_validator(mode="after")
    def _possible(self) -> "SearchSpace":
        if not self._combinations():
            raise ValueError(
                "no combination of these values is possible: a format must be shown in the prompt "
                "or have an expert that learns from it"
            )
        return self

    def suggest(self, trial: "BaseTrial") -> TrialSettings:
        """Choose a trial's settings, only those that matter after earlier choices.

        Args:
            trial: Suggests the values. A parameter has the same choices in every trial.
        """
        possible = self._combinations()
        utilization = self._choose(trial, "utilization", [u for u, _, _ in possible])
        formats = self._choose(trial, "formats", [f for u, f, _ in possible if u == utilization])
        chosen: dict[str, Any] = {"utilization": utilization, "formats": members(formats)}
        if chosen["formats"]:
            chosen["ratio"] = self._choose(trial, "ratio")
            # At a ratio of 1, every strategy samples all sessions.
            if chosen["ratio"] < 1:
                chosen["strategy"] = self._choose(trial, "strategy")
        if is_trained(utilization):
            learning = [e for u, f, e in possible if (u, f) == (utilization, formats)]
            chosen["experts"] = members(self._choose(trial, "experts", learning))
            chosen["fusion"] = self._choose_fusion(trial, chosen["experts"])
            for name in ("r", "learning_rate", "epochs"):
                chosen[name] = self._choose(trial, name)
        if is_shown(utilization):
            positive = filter(None, self.neighbours) if "thought" in chosen["formats"] else None
            chosen["neighbours"] = self._choose(trial, "neighbours", positive)
            if "rule" in chosen["formats"]:
                chosen["rules"] = self._choose(trial, "rules", filter(None, self.rules))
        return TrialSettings(**chosen)

    def _choose(self, trial: "BaseTrial", name: str, possible: Iterable[Any] | None = None) -> Any:
        """A value of a dimension; the trial is asked only if there is more than one.

        Optuna requires a parameter to have the same choices in every trial. So if some values are
        not possible, the parameter's name says which: ``rules without 0``.
        """
        dimension = getattr(self, name)
        allowed = tuple(dict.fromkeys(dimension if possible is None else possible))
        if len(allowed) == 1:
            return allowed[0]
        if left_out := [str(value) for value in dimension if value not in allowed]:
            name = f"{name} without {', '.join(left_out)}"
        return trial.suggest_categorical(name, allowed)

    def _combinations(self) -> list[tuple[str, str, str]]:
        """Valid combinations of utilization, formats and experts, which are none under ICL."""
        return [
            (utilization, formats, experts)
            for utilization in self.utilization
            for formats in self.formats
            for experts in (self.experts if is_trained(utilization) else ("none",))
            if self._fits(utilization, members(formats), members(experts))
        ]

    def _fits(self, utilization: str, formats: Sequence[str], experts: Sequence[str]) -> bool:
        """Whether each format is used: shown in the prompt, or learned from by an expert."""
        learnt = {"base", *formats}
        if len(experts) == 3 and self.fusion == ("single",):
            return False
        if not is_shown(utilization):
            return {*experts} == learnt
        if is_trained(utilization) and not (formats and learnt.issuperset(experts)):
            return False
        shown = "rule" not in formats or any(self.rules)
        return shown and ("thought" not in formats or any(self.neighbours))

    def _choose_fusion(self, trial: "BaseTrial", experts: tuple[str, ...]) -> str:
        if len(experts) == 1:
            return f"single:{experts[0]}"
        # With three experts, which one to use would be another choice.
        possible = [f for f in self.fusion if f != "single" or len(experts) == 2]
        fusion: str = self._choose(trial, "fusion", possible)
        return f"single:{experts[1]}" if fusion == "single" else fusion


def read_space(path: str | Path) -> SearchSpace:
    """Read a search space from a TOML file; dimensions that it leaves out keep their defaults.

    Example file::

        utilization = "ICL"                                  # fixed
        formats = ["none", "rule", "rule+thought"]           # narrowed
        rules = [0, 4, 32]                                   # extended

    Raises:
        DataError: The file cannot be read, is not TOML, or has a key or a value that is not
            allowed; the message names file and key, quotes the value and says what is allowed.
    """
    hint = f"dimensions are {', '.join(SearchSpace.model_fields)}"
    return checked(TypeAdapter(SearchSpace), read_toml(path), path=path, hint=hint)


def members(subset: str) -> tuple[str, ...]:
    """The members of a set that is written with ``+``; ``none`` has no members."""
    return () if subset == "none" else tuple(subset.split("+"))
