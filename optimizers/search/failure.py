"""`TrialFailure`: which errors are a trial's own, and which stop the study."""

import sys

from routedk.errors import RouteDKError, SettingError


class TrialFailure(RouteDKError, RuntimeError):
    """This trial cannot be carried out; others can. Its reason is recorded and the study goes on.

    A pipeline raises it where settings turn out not to work, e.g. where training diverges.
    """


def own_reason(error: BaseException) -> str | None:
    """Why a trial failed, if the reason is its own; None for an error that is to stop the study.

    Its own are: `TrialFailure`; settings that do not go together (`SettingError`); numbers that
    are no longer finite (``FloatingPointError``); memory that is used up. The same errors on their
    way through ``dspy.LM``, too. Everything else, a metric, a disk, a database, a language model,
    would fail every other trial alike.

    Args:
        error: What was raised.
    """
    # An engine's error reaches callers of dspy.LM as the cause of one of DSPy's.
    while _is_lm_error(error) and not isinstance(error, RouteDKError) and error.__cause__:
        error = error.__cause__
    if isinstance(error, TrialFailure | SettingError):
        return str(error)
    if isinstance(error, FloatingPointError):
        return f"not finite: {error}"
    if isinstance(error, _memory_errors()):
        first, *_ = str(error).splitlines() or [""]
        return f"out of memory: {first}" if first else "out of memory"
    return None


def _is_lm_error(error: BaseException) -> bool:
    exceptions = sys.modules.get("dspy.utils.exceptions")
    return exceptions is not None and isinstance(error, exceptions.LMError)


def _memory_errors() -> tuple[type[BaseException], ...]:
    torch = sys.modules.get("torch")
    return (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)
