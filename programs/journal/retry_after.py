"""How long a server that refused a call asks the client to wait."""

import random

from dspy.utils.exceptions import LMError

_LONGEST_WAIT_SECONDS = 120.0


def seconds_to_wait(error: LMError) -> float | None:
    """Seconds until the next retry: what the server asked for, capped, with jitter.

    A server may ask for an hour, and callers refused together would retry together.

    Args:
        error: What a call raised.

    Returns:
        None if the server gave no number of seconds.
    """
    asked, cause = error.retry_after, error.__cause__
    # The header Retry-After, which DSPy 3.4 does not find in LiteLLM's errors.
    while asked is None and cause is not None:
        headers = getattr(cause, "litellm_response_headers", None) or {}
        seconds = str(headers.get("retry-after", ""))
        asked = float(seconds) if seconds.replace(".", "", 1).isdecimal() else None
        cause = cause.__cause__
    return None if asked is None else min(asked, _LONGEST_WAIT_SECONDS) * random.uniform(1.0, 1.1)
