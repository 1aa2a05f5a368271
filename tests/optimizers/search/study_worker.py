"""One worker of a study, killed within a trial: python study_worker.py URL TRIALS [ATTEMPT]."""

import os
import signal
import sys

from routedk.optimizers.search.space import TrialSettings
from tests.optimizers.search.answers import run


def main(url: str, trials: int, killed: int = 0) -> None:
    """Run, and die in the third session of the attempt of this number, counted from 1."""
    attempts = 0

    def hook(settings: TrialSettings, place: int) -> None:
        nonlocal attempts
        attempts += place == 0
        if attempts == killed and place == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    run(url, trials, hook, heartbeat=1)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
