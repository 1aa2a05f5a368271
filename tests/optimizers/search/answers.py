"""Answers for tests of studies: at once, and the same ones for the same settings."""

import hashlib
import json
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import optuna

from routedk.optimizers.search.config import SearchConfig
from routedk.optimizers.search.space import SearchSpace, TrialSettings
from routedk.optimizers.search.study import run_study
from routedk.types import Answer, Bundle, Item, Session

Hook = Callable[[TrialSettings, int], None]


def small_sessions(count: int = 12) -> list[Session]:
    """Sessions of four items and one bundle of two."""
    items = tuple(Item(name, f"thing {name}") for name in "abcd")
    return [Session(f"s{k}", items, (Bundle(("a", "b"), "both"),)) for k in range(count)]


class FakeAnswers:
    """Gives a share of the gold bundles that grows with what the settings spend.

    Args:
        sessions: What is answered.
        hook: Called before each session with the settings and its place: to fail, to be killed, to
            take time.
    """

    def __init__(self, sessions: Sequence[Session], hook: Hook | None = None) -> None:
        self._sessions = sessions
        self._hook = hook

    @contextmanager
    def __call__(self, settings: TrialSettings) -> Iterator[Generator[Answer]]:
        """A context with an answer to each session."""
        with closing(self._answers(settings)) as answers:
            yield answers

    def _answers(self, settings: TrialSettings) -> Generator[Answer]:
        spent = settings.neighbours + settings.rules + 4 * len(settings.experts or ())
        for place, session in enumerate(self._sessions):
            if self._hook:
                self._hook(settings, place)
            seen = json.dumps([session.id, settings.to_dict()], sort_keys=True).encode()
            luck = int(hashlib.sha256(seen).hexdigest()[:4], 16) / 16**4
            whole = Bundle(tuple(item.id for item in session.items))
            bundles = session.bundles or () if luck < 0.3 + 0.02 * spent else (whole,)
            yield Answer(session.id, bundles, input_tokens=50 + 10 * spent)


SPACE = SearchSpace(utilization="ICL", strategy="random")
SESSIONS = small_sessions(4)


def run(url: str, trials: int, hook: Hook | None = None, **settings: Any) -> optuna.Study:
    """Run the study ``mine``, or resume it, by answers that come at once."""
    config = SearchConfig(**{"study": "mine", "storage": url, "trials": trials, **settings})
    return run_study(FakeAnswers(SESSIONS, hook), SESSIONS, SPACE, config)
