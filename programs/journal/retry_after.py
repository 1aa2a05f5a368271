"""How long a server that turned a call away asked to wait."""

import random
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from dspy.utils.exceptions import LMError

_LONGEST_WAIT_SECONDS = 120.0


def seconds_to_wait(error: LMError) -> float | None:
    """Seconds until the next try: what the server asked for, bounded, and spread over callers.

    A server may ask for an hour, and callers turned away together would come back together.

    Args:
        error: What a call raised.

    Returns:
        None where the server named no time.
    """
    asked = _header_seconds(error) if error.retry_after is None else error.retry_after
    return None if asked is None else min(asked, _LONGEST_WAIT_SECONDS) * random.uniform(1.0, 1.1)


def _header_seconds(error: BaseException) -> float | None:
    """The header Retry-After, which DSPy 3.4 does not find in LiteLLM's errors."""
    cause: BaseException | None = error
    while cause is not None and not hasattr(cause, "litellm_response_headers"):
        cause = cause.__cause__
    value = (getattr(cause, "litellm_response_headers", None) or {}).get("retry-after", "")
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
