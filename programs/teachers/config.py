"""`DistillConfig`: all settings of distillation."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

from routedk.checks import check_choices, check_least
from routedk.errors import SettingError

Format: TypeAlias = Literal["pattern", "rule", "thought", "answer"]
Strategy: TypeAlias = Literal["random", "length", "diversity", "difficulty"]
# Called with the name of a step, the number of its sessions that are done, and their total.
OnStep: TypeAlias = Callable[[str, int, int], None]

ANNOTATION = "annotation"
# Settings recorded by their content, and those that change only how knowledge is made.
_NOT_RECORDED = ("teacher", "answers", "scores", "api_base", "max_tokens", "max_cost", "threads")


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """Settings of `distill`: the teacher, the formats of knowledge and the sample of sessions.

    Args:
        teacher: annotation (offline, from gold bundles alone), or a model by its LiteLLM name,
            e.g. openai/gpt-4o-mini or hosted_vllm/llama; its key is read from the environment.
        answers: Recorded answers to use instead of asking a teacher: bundles of sessions, rules,
            or results of a batch of requests; the teacher, if given, then only names their source.
            Repeatable.
        formats: Formats of knowledge to make. An answer holds a teacher's own bundles of a session,
            made without gold. Unset: pattern, rule and thought if sessions have gold bundles, and
            all four if a teacher's answers replace gold. Repeatable.
        strategy: Sampling strategy: which training sessions are taken first.
        ratio: Share of the training sessions to distill from, in (0, 1].
        scores: Scores for the strategy difficulty, one {"session_id", "score"} per line; without
            them the LM teacher answers every training session first.
        max_rules: Maximum number of rules, at least 0.
        max_patterns: Maximum number of patterns, at least 0.
        min_support: Minimum share of bundles that contain a pattern, in (0, 1].
        patterns_feed_rules: Show patterns to the LM teacher when it states rules.
        rules_feed_thoughts: Show rules to the LM teacher when it makes thoughts.
        api_base: Address of the LM teacher's server.
        max_tokens: Most tokens that the LM teacher may read and write, interrupted runs included.
        max_cost: Most US dollars that it may cost, interrupted runs included.
        threads: Maximum number of concurrent calls to the LM teacher.
        seed: Seed of the sampling.

    Raises:
        SettingError: A value is not allowed, or has no effect with the other settings.
    """

    teacher: str = ANNOTATION
    answers: tuple[Path, ...] = ()
    formats: tuple[Format, ...] = ()
    strategy: Strategy = "random"
    ratio: float = 1.0
    scores: Path | None = None
    max_rules: int = 24
    max_patterns: int = 50
    min_support: float = 0.01
    patterns_feed_rules: bool = True
    rules_feed_thoughts: bool = True
    api_base: str | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    threads: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        check_choices(self)
        check_least(self, max_rules=0, max_patterns=0, threads=1, seed=0, max_tokens=1)
        # In the order in which formats build on each other.
        formats = tuple(name for name in get_args(Format) if name in self.formats)
        object.__setattr__(self, "formats", formats)
        for name in ("api_base", "max_tokens", "max_cost"):
            if self.answers and getattr(self, name) is not None:
                raise SettingError(f"{name} is for teachers that are asked: answers are given")
        if self.scores is not None and self.strategy != "difficulty":
            raise SettingError(
                f"scores are for the strategy difficulty, and the strategy is {self.strategy!r}"
            )
        for name in ("ratio", "min_support"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"{name}={getattr(self, name)}: it must be in (0, 1]")
        if self.max_cost is not None and not self.max_cost > 0:
            raise SettingError(f"max_cost={self.max_cost}: it must be above 0")

    def makes(self, name: Format) -> bool:
        """Whether to make a format: it is named, or no format is."""
        return not self.formats or name in self.formats

    @property
    def recorded(self) -> dict[str, Any]:
        """The settings that change the knowledge, ready for JSON."""
        return {name: value for name, value in asdict(self).items() if name not in _NOT_RECORDED}
