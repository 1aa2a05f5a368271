"""One worker of a study, that may be killed: python study_worker.py URL TRIALS [ATTEMPT]."""

import os
import signal
import sys
from typing import Any

import optuna

from routedk.optimizers.search.budget import Budget
from routedk.optimizers.search.settings import TrialSettings
from routedk.optimizers.search.space import SearchSpace
from routedk.optimizers.search.study import StudySettings, run_study
from routedk.optimizers.search.testing import FastPipeline, Hook, small_sessions

SPACE = SearchSpace(utilization="ICL", strategy="random", enhancement=["greedy", "consensus"])
SESSIONS = small_sessions(4)


def run(url: str, trials: int, hook: Hook | None = None, **settings: Any) -> optuna.Study:
    """Go on with the study ``mine``, or make it, by pipelines that answer at once."""
    chosen = StudySettings(**{"name": "mine", "storage": url, "resume": True, **settings})
    return run_study(FastPipeline(hook), SESSIONS, SPACE, chosen, Budget(trials=trials))


def main(url: str, trials: int, killed: int = 0) -> None:
    """Run, and die in the third session of the attempt of this number, counted from 1."""
    attempts = 0

    def hook(settings: TrialSettings, place: int) -> None:
        nonlocal attempts
        attempts += place == -1
        if attempts == killed and place == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    run(url, trials, hook)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
