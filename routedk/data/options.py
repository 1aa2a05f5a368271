"""How sessions are read and split: the policies every command states in its results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from routedk.errors import SettingError

GoldPolicy = Literal["minimal", "all"]
UntitledPolicy = Literal["keep", "drop"]
SplitName = Literal["train", "val", "test", "all"]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The policies under which sessions are read and split.

    Args:
        extra_titles: CSV with the columns ``item ID`` and ``titles``; it fills in titles that are
            missing and changes no other.
        gold: ``minimal`` keeps, per session, one of each set of equal gold bundles and no bundle
            that strictly contains another; ``all`` keeps every bundle as given, equal ones too.
        untitled: ``keep`` keeps items without a title; ``drop`` removes them, which leaks the
            answer where untitled items are never in a gold bundle (BundleRec).
        split_file: JSON ``{"train": [ids], "val": [ids], "test": [ids]}``; None splits by seed.
        seed: Seed of the 7:1:2 split.

    Raises:
        SettingError: When a value is not allowed.
    """

    extra_titles: Path | None = None
    gold: GoldPolicy = "minimal"
    untitled: UntitledPolicy = "keep"
    split_file: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _check_choice("gold", self.gold, get_args(GoldPolicy))
        _check_choice("untitled", self.untitled, get_args(UntitledPolicy))
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise SettingError(f"seed is {self.seed!r}: it must be a whole number of at least 0")
        for name in ("extra_titles", "split_file"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Path(value))


def check_split_name(name: str) -> SplitName:
    """The name of a split, or an error that says which there are.

    Raises:
        SettingError: When there is no such split.
    """
    _check_choice("split", name, get_args(SplitName))
    return name  # type: ignore[return-value]


def _check_choice(setting: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise SettingError(f"{setting} is {value!r}: it must be one of {', '.join(allowed)}")
