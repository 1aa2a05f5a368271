"""The training sessions that a trial distils from: the beginning of a strategy's order."""

from pathlib import Path
from typing import Any

from routedk.files import read_json, write_json
from routedk.optimizers.search.stages.common import Ledger, sessions_hash
from routedk.optimizers.search.stages.scores import SCORES, scored
from routedk.programs.sampling.difficulty import read_scores
from routedk.programs.sampling.sampling import order_sessions, sample_size
from routedk.types import Session

_ORDER = "order.json"


def sampled(ledger: Ledger, strategy: str, ratio: float) -> tuple[Session, ...]:
    """The sessions that knowledge is distilled from, in the order of the pool.

    All of them need no order, so no strategy either, nor its scores; and one order serves every
    ratio.

    Args:
        ledger: Of the trial.
        strategy: Name of the sampling strategy.
        ratio: Share of the annotated training sessions, in (0, 1].
    """
    common = ledger.common
    pool = common.annotated
    size = sample_size(len(pool), ratio)
    if size == len(pool):
        return pool
    inputs = {"sessions": sessions_hash(pool)}
    scores: dict[str, float] | None = None
    if strategy == "difficulty":
        part = scored(ledger)
        inputs["scores"] = part.key
        scores = read_scores(part.folder / SCORES)

    def make(out: Path, work: Path) -> None:
        order = order_sessions(pool, strategy, seed=common.seed, scores=scores)
        write_json(out / _ORDER, [session.id for session in order])

    settings = {"strategy": strategy, "seed": common.seed}
    order: Any = read_json(
        ledger.obtain("order", make, inputs=inputs, settings=settings).folder / _ORDER
    )
    taken = set(order[:size])
    return tuple(session for session in pool if session.id in taken)
