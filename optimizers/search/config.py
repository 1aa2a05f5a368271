"""Settings that name a study, run a search, and report on it."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from routedk.adapters.student import Dtype
from routedk.checks import check_choices, check_least
from routedk.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Names a study, e.g. for `export_trial`.

    Args:
        study: Name of the study.
        storage: Where it is kept: sqlite:///FILE, another database's URL such as
            postgresql://USER@HOST/NAME, or Optuna's storage proxy, grpc://HOST:PORT. Unset:
            sqlite:///STUDY.db.

    Raises:
        SettingError: A value is not allowed.
    """

    study: str = "search"
    storage: str | None = None

    def __post_init__(self) -> None:
        """Check the name."""
        if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,99}", self.study, flags=re.ASCII):
            raise SettingError(
                f"study {self.study!r}: a name has letters, digits, '_', '-' and '.', begins with "
                "a letter or digit, and is no longer than 100"
            )

    @property
    def url(self) -> str:
        """The URL of the storage."""
        return self.storage or f"sqlite:///{self.study}.db"


@dataclass(frozen=True, kw_only=True)
class SearchConfig(StudyConfig):
    """Settings of `search`.

    Args:
        study: Name of the study. If the storage has a study of this name, it is resumed, or joined
            if other workers are running it.
        storage: Where the study is kept: sqlite:///FILE, another database's URL such as
            postgresql://USER@HOST/NAME, or Optuna's storage proxy, grpc://HOST:PORT. Unset:
            sqlite:///STUDY.db.
        space: TOML file of the dimensions whose values are not the default ones.
        trials: Trials of the whole study, including those of other workers and earlier runs.
        minutes: Minutes after which this worker starts no more trials.
        objective: both (high matched F1 and few tokens per session), or f1 (matched F1 alone, with
            hopeless trials pruned).
        sampler: Optuna's sampler: tpe, nsgaii, gp or random.
        answers: Recorded answers of a teacher, as distill takes them, used as the source of
            knowledge instead of gold. Repeatable.
        student: Folder or hub name of a causal LM. Unset or default: the embedded student.
        dtype: Student dtype when answering: float32, bfloat16 or float16. Unset: float32 on a CPU,
            else bfloat16.
        max_validation: Score trials on a seeded sample of this many validation sessions.
        heartbeat: Seconds between a worker's heartbeats. After four missed ones its trial is
            retried.
        seed: Seed of all random choices.

    Raises:
        SettingError: A value is not allowed.
    """

    space: Path | None = None
    trials: int = 24
    minutes: float | None = None
    objective: Literal["both", "f1"] = "both"
    sampler: Literal["tpe", "nsgaii", "gp", "random"] = "tpe"
    answers: tuple[Path, ...] = ()
    student: str | None = None
    dtype: Dtype | None = None
    max_validation: int | None = None
    heartbeat: int = 30
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        check_choices(self)
        check_least(self, trials=1, max_validation=1, heartbeat=1, seed=0)
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise SettingError(f"minutes={self.minutes}: must be above 0 and finite")


@dataclass(frozen=True, kw_only=True)
class ReportConfig(StudyConfig):
    """Settings of `report_search`.

    Args:
        study: Name of the study.
        storage: Where it is kept, as given to search. Unset: sqlite:///STUDY.db.
        default: Also test the default configuration, which may have to be trained. Unset: no.
    """

    default: bool | None = None
