"""`StudyGrid`: the systems of a study, how much data a budget gives them, what is compared."""

from collections.abc import Iterator, Mapping
from itertools import chain, product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    TypeAdapter,
    model_validator,
)

from routedk.data.validation import checked
from routedk.errors import SettingError
from routedk.eval.suite import BASELINES
from routedk.files import read_toml
from routedk.optimizers.search.space import (
    Count,
    FormatSet,
    Positive,
    Rank,
    Ratio,
    TrialSettings,
    Values,
    members,
)
from routedk.programs.knowledge.utilization import UtilizationName, is_shown, is_trained
from routedk.programs.teachers.config import Strategy

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

Paper = Literal["kd", "routedk"]
BudgetName = Literal["small", "full"]
Dimension = Literal["formats", "strategy", "ratio", "utilization"]
TEACHER = "teacher"
_Size = Annotated[int, Strict(), Field(ge=1)]
# The expert that learns from a set of formats, in a study without routing.
_EXPERTS: Mapping[tuple[str, ...], str] = {
    (): "base",
    ("rule",): "rule",
    ("thought",): "thought",
    ("rule", "thought"): "mixed",
}


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Common(_Table):
    """Settings of all systems to which they apply; see `TrialSettings`."""

    r: Rank | None = None
    learning_rate: Positive | None = None
    epochs: Positive | None = None
    rules: Count | None = None
    neighbours: Count | None = None

    def fill(self, system: TrialSettings) -> TrialSettings:
        """The system, with the settings that it leaves open filled in."""
        names = ["r", "learning_rate", "epochs"] if is_trained(system.utilization) else []
        if is_shown(system.utilization) and "rule" in system.formats:
            names.append("rules")
        if is_shown(system.utilization) and "thought" in system.formats:
            names.append("neighbours")
        wanted = {name for name in names if getattr(self, name) is not None}
        update = {name: getattr(self, name) for name in wanted - system.model_fields_set}
        return system.model_copy(update=update)


class Vary(_Table):
    """Values of dimensions; every combination is a system.

    Args:
        formats: Sets of knowledge formats, joined by ``+``.
        strategy: Sampling strategies.
        ratio: Sampling ratios.
        utilization: Where knowledge is used.
    """

    formats: Values[FormatSet] = ("none",)
    strategy: Values[Strategy] = ("random",)
    ratio: Values[Ratio] = (1.0,)
    utilization: Values[UtilizationName] = ("ICL",)

    def systems(self) -> Iterator[tuple[str, TrialSettings]]:
        """The distinct combinations, by name."""
        seen = set()
        dimensions = (self.formats, self.strategy, self.ratio, self.utilization)
        for formats, strategy, ratio, utilization in product(*dimensions):
            one = _combined(members(formats), strategy, ratio, utilization)
            if one is not None and one not in seen:
                seen.add(one)
                yield _label(one), one


def _listed(value: object) -> object:
    """Turn a single table into a list of one."""
    return [value] if isinstance(value, dict) else value


_Tables = Annotated[tuple[Vary, ...], BeforeValidator(_listed)]


class Budget(_Table):
    """What a study may spend.

    Args:
        train: Size of the seeded sample of training sessions with gold that experts learn from;
            unset: all. Knowledge is distilled from all.
        validation: Size of the sample of validation sessions with gold, likewise.
        test: Size of the sample of test sessions with gold, likewise.
        settings: Override the grid's settings.
        vary: Override the grid's dimensions; of several tables, each gives systems of its own.
    """

    train: _Size | None = None
    validation: _Size | None = None
    test: _Size | None = None
    settings: Common = Common()
    vary: _Tables = ()


class Question(_Table):
    """A figure: matched F1 over one dimension of the grid.

    Args:
        title: The question.
        dimension: The dimension whose values are compared.
        by: One line for each value of this dimension.
    """

    title: str
    dimension: Dimension
    by: Dimension


class StudyGrid(_Table):
    """A study as defined by its TOML file.

    Args:
        title: Title of the report.
        budget: Budgets by name.
        settings: Settings of all systems.
        systems: Systems by name.
        vary: Dimensions whose combinations are additional systems.
        compare: Pairs of systems, baselines or ``teacher`` whose difference is reported.
        questions: The figures.
    """

    title: str
    budget: Annotated[dict[BudgetName, Budget], Field(min_length=1)]
    settings: Common = Common()
    systems: dict[str, TrialSettings] = {}
    vary: Vary | None = None
    compare: list[tuple[str, str]] = []
    questions: list[Question] = []

    @model_validator(mode="after")
    def _valid(self) -> "StudyGrid":
        others = {*BASELINES, TEACHER}
        if bad := next((name for name in self.systems if name in others or not name), None):
            raise ValueError(f"systems: {bad!r} cannot be the name of a system")
        titles = [question.title for question in self.questions]
        if len({*titles}) < len(titles):
            raise ValueError("questions: two have the same title")
        if bad := next((one.title for one in self.questions if one.dimension == one.by), None):
            raise ValueError(f"questions: {bad!r} compares a dimension by itself")
        for name in self.budget:
            if not (known := self.of(name)):
                raise ValueError(f"budget.{name}: there is no system")
            if self.budget[name].vary and self.vary is None:
                raise ValueError(f"budget.{name}: vary overrides a table [vary], and there is none")
            if bad := next((name for name, one in known.items() if _shows_nothing(one)), None):
                raise ValueError(f"systems: {bad!r} shows knowledge: set rules and neighbours")
            pairs = (one for pair in self.compare for one in pair)
            if unknown := next((one for one in pairs if one not in known.keys() | others), None):
                raise ValueError(f"compare: {unknown!r} is neither a system nor a baseline")
            if alone := next((one for one, other in self.compare if one == other), None):
                raise ValueError(f"compare: {alone!r} is compared with itself")
        return self

    def varied(self, budget: BudgetName) -> list[Vary]:
        """The dimensions under a budget; empty if nothing varies."""
        if self.vary is None:
            return []
        overrides = self.budget[budget].vary or (Vary(),)
        updates = [one.model_dump(include=one.model_fields_set) for one in overrides]
        return [self.vary.model_copy(update=update) for update in updates]

    def values(self, budget: BudgetName, dimension: Dimension) -> list[Any]:
        """The values of a dimension under a budget, in the grid's order."""
        used = [*chain.from_iterable(getattr(vary, dimension) for vary in self.varied(budget))]
        first = getattr(self.vary, dimension) if used else ()
        return [value for value in dict.fromkeys((*first, *used)) if value in used]

    def of(self, budget: BudgetName) -> dict[str, TrialSettings]:
        """The systems under a budget, by name.

        Raises:
            SettingError: The grid has no such budget.
        """
        if budget not in self.budget:
            raise SettingError(f"budget={budget}: the grid has {', '.join(self.budget)}")
        override = self.budget[budget].settings
        update = override.model_dump(include=override.model_fields_set)
        common = self.settings.model_copy(update=update)
        found = dict(chain.from_iterable(vary.systems() for vary in self.varied(budget)))
        if both := min(self.systems.keys() & found, default=None):
            raise ValueError(f"systems: {both!r} is one of vary, too")
        found = self.systems | found
        return {name: common.fill(system) for name, system in found.items()}


class ListedSystems:
    """A search space of listed systems.

    Args:
        systems: Systems by name.
    """

    def __init__(self, systems: Mapping[str, TrialSettings]) -> None:
        self.systems = systems

    def suggest(self, trial: "BaseTrial") -> TrialSettings:
        """The settings of the system that a sampler chooses."""
        return self.systems[trial.suggest_categorical("system", tuple(self.systems))]

    def model_dump(self, *, mode: str = "json") -> dict[str, Any]:
        """The systems, ready for JSON."""
        return {name: one.to_dict() for name, one in self.systems.items()}


def read_grid(grid: str | Path) -> StudyGrid:
    """Read the grid of a paper, ``kd`` or ``routedk``, or of a TOML file in the same layout.

    Raises:
        DataError: The file cannot be read, is not TOML, or has a key or value that is not allowed.
    """
    packaged = grid in get_args(Paper)
    path = Path(__file__).with_name(f"{grid}.toml") if packaged else Path(grid)
    return checked(TypeAdapter(StudyGrid), read_toml(path), path=path, hint="see docs/papers.md")


def _shows_nothing(system: TrialSettings) -> bool:
    """Whether a format is to be shown in the prompt, but no piece of it."""
    counts = {"rule": system.rules, "thought": system.neighbours}
    shown = is_shown(system.utilization)
    return shown and any(not count for name, count in counts.items() if name in system.formats)


def _combined(
    formats: tuple[str, ...], strategy: str, ratio: float, utilization: str
) -> TrialSettings | None:
    """The system of one combination; None if no expert would learn from its formats."""
    used = formats if is_shown(utilization) else tuple(f for f in formats if f != "pattern")
    if formats and not used:
        return None
    own: dict[str, Any] = {"utilization": utilization, "formats": used}
    # Without formats, or with all sessions, sampling makes no difference.
    if used and ratio < 1:
        own |= {"ratio": ratio, "strategy": strategy}
    if is_trained(utilization):
        expert = _EXPERTS[tuple(f for f in used if f != "pattern")]
        own["experts"] = ("base",) if expert == "base" else ("base", expert)
        own["fusion"] = f"single:{expert}"
    return TrialSettings(**own)


def _label(settings: TrialSettings) -> str:
    sample = f"{settings.strategy} {settings.ratio:g}" if settings.ratio < 1 else "all"
    return f"{settings.utilization}, {'+'.join(settings.formats) or 'no knowledge'}, {sample}"
