"""`PartReport`: what became of one part that a trial needs."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PartReport:
    """One stage's part: made for this trial, or found in the store.

    Args:
        stage: What kind of part it is.
        key: The hash of its recipe.
        reused: Whether it was in the store.
        seconds: What making it took, whenever that was: where it was reused, the time saved.
        waited: Seconds until another worker had made it.
    """

    stage: str
    key: str
    reused: bool
    seconds: float
    waited: float = 0.0
