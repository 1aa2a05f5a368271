"""`TrialSettings`: what one trial of a search distils, trains and compiles."""

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from routedk.programs.knowledge.utilization import UTILIZATIONS, Utilization

Format = Literal["pattern", "rule", "thought"]
Strategy = Literal["random", "length", "diversity", "difficulty"]
UtilizationName = Literal["ICL", "SFT", "SFT+ICL"]
Expert = Literal["base", "rule", "thought"]
Enhancement = Literal["greedy", "consensus"]
Fusion = Literal[
    "softmax",
    "static",
    "top1",
    "layerwise",
    "sparsegen",
    "uniform",
    "merged",
    "single:base",
    "single:rule",
    "single:thought",
]

FORMATS: tuple[Format, ...] = get_args(Format)
EXPERTS: tuple[Expert, ...] = get_args(Expert)

_TRAINED = ("fusion", "experts", "r", "learning_rate", "epochs")


class TrialSettings(BaseModel):
    """Everything that tells one trial from another.

    Only combinations that can be, and in which nothing is made in vain, are allowed: the fields
    about experts are None where none is trained, a format that is distilled is shown in the prompt
    or trained on, and what is not shown has the count 0.

    Args:
        formats: Formats of the knowledge that is distilled, in the order pattern, rule, thought;
            none: no knowledge at all, under ``ICL`` (the program as it is, or examples alone) and
            ``SFT`` (the base expert alone).
        strategy: Which training sessions knowledge is distilled from; ``random`` where there is
            none.
        ratio: Share of them, in (0, 1]; 1 where there is no knowledge.
        utilization: Where knowledge is used, see `routedk.programs.knowledge.utilization`.
        fusion: How the experts are fused; of one expert ``single:`` and its name.
        experts: Experts that are trained: base, and of rule and thought some whose format is
            distilled, in that order.
        r: Rank of each expert, at least 1.
        learning_rate: Peak for the base expert, above 0.
        epochs: Passes of the base expert over its rows, above 0.
        neighbours: Similar training sessions in the prompt, at least 0; with their thoughts where
            thoughts are distilled.
        rules: Rules in the prompt, the nearest ones, at least 0.
        enhancement: How an answer is chosen: ``greedy`` takes the first, ``consensus`` what several
            agree on.

    Raises:
        ValidationError: A value or a combination is not allowed; the message says why. It is a
            ``ValueError``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    formats: tuple[Format, ...] = ()
    strategy: Strategy = "random"
    ratio: float = Field(default=1.0, gt=0, le=1)
    utilization: UtilizationName = "ICL"
    fusion: Fusion | None = None
    experts: tuple[Expert, ...] | None = None
    r: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    epochs: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    neighbours: int = Field(default=0, ge=0)
    rules: int = Field(default=0, ge=0)
    enhancement: Enhancement = "greedy"

    @property
    def use(self) -> Utilization:
        """What the utilization does: whether it trains, whether it prompts."""
        return UTILIZATIONS[self.utilization]

    def to_dict(self) -> dict[str, Any]:
        """The settings, ready for JSON; ``TrialSettings(**...)`` makes them again."""
        return self.model_dump(mode="json")

    @model_validator(mode="after")
    def _check(self) -> "TrialSettings":
        problem = (
            _order_problem(self)
            or _knowledge_problem(self)
            or _expert_problem(self)
            or _prompt_problem(self)
        )
        if problem:
            raise ValueError(problem)
        return self


def shown_value(value: Any) -> Any:
    """A setting's value as it is shown: sets are joined by ``+``, the empty one is ``none``."""
    return "+".join(value) or "none" if isinstance(value, list | tuple) else value


def _order_problem(mine: TrialSettings) -> str:
    for name, values, known in (
        ("formats", mine.formats, FORMATS),
        ("experts", mine.experts or (), EXPERTS),
    ):
        ordered = [value for value in known if value in values]
        if list(values) != ordered:
            return f"{name}={list(values)}: each once, in the order {', '.join(known)}"
    return ""


def _knowledge_problem(mine: TrialSettings) -> str:
    if mine.formats:
        return ""
    if mine.utilization == "SFT+ICL":
        return "no formats under SFT+ICL: it trains on knowledge and shows it, name a format"
    if (mine.strategy, mine.ratio) != ("random", 1.0):
        return (
            f"no formats, but strategy={mine.strategy!r} and ratio={mine.ratio}: nothing is "
            "distilled, leave both at 'random' and 1"
        )
    return ""


def _expert_problem(mine: TrialSettings) -> str:
    given = [name for name in _TRAINED if getattr(mine, name) is not None]
    if not mine.use.trains:
        named = ", ".join(f"{name}={getattr(mine, name)!r}" for name in given)
        return f"{mine.utilization} trains no experts, but {named}: leave it out" if given else ""
    missing = [name for name in _TRAINED if name not in given]
    if missing:
        return f"{mine.utilization} trains experts: {', '.join(missing)} must be given"
    experts, fusion = mine.experts or (), mine.fusion or ""
    if experts[:1] != ("base",):
        return f"experts={list(experts)}: the first must be base, the others start from it"
    for name in experts[1:]:
        if name not in mine.formats:
            return f"experts={list(experts)}: no {name} is distilled, formats={list(mine.formats)}"
    if fusion.startswith("single:") and fusion.removeprefix("single:") not in experts:
        return f"fusion={fusion!r}: the experts are {', '.join(experts)}"
    if len(experts) == 1 and fusion != f"single:{experts[0]}":
        return f"fusion={fusion!r} of one expert: it can be 'single:{experts[0]}' only"
    return ""


def _prompt_problem(mine: TrialSettings) -> str:
    if not mine.use.prompts and (mine.neighbours or mine.rules):
        return (
            f"{mine.utilization} shows nothing in the prompt, but neighbours={mine.neighbours} "
            f"and rules={mine.rules}: both must be 0"
        )
    if mine.rules and "rule" not in mine.formats:
        return f"rules={mine.rules}, but no rule is distilled: formats={list(mine.formats)}"
    shown = {
        "pattern": mine.use.prompts,
        "rule": mine.rules > 0,
        "thought": mine.neighbours > 0,
    }
    for name in mine.formats:
        trained = name in (mine.experts or ()) or (name == "pattern" and "rule" in mine.formats)
        if not (shown[name] or trained):
            return f"{name} is distilled, but neither shown in the prompt nor trained on"
    if mine.formats and mine.use.prompts and not any(shown[name] for name in mine.formats):
        return f"{mine.utilization} shows no knowledge in the prompt: take SFT, or show some"
    return ""
