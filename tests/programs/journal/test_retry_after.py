"""How long to wait before the next try."""

import pytest
from dspy.utils.exceptions import LMServerError

from routedk.programs.journal.retry_after import seconds_to_wait


class LiteLLMError(Exception):
    def __init__(self, headers: dict[str, str] | None) -> None:
        self.litellm_response_headers = headers


def caused_by(headers: dict[str, str] | None) -> LMServerError:
    error = LMServerError("busy")
    error.__cause__ = RuntimeError("wrapped")
    error.__cause__.__cause__ = LiteLLMError(headers)
    return error


@pytest.mark.parametrize(("asked", "least"), [("3600", 120.0), ("2.5", 2.5), ("0", 0.0)])
def test_what_the_header_asks_for_is_bounded_and_spread(asked: str, least: float) -> None:
    waits = [seconds_to_wait(caused_by({"retry-after": asked})) for _ in range(20)]
    assert all(wait is not None and least <= wait <= 1.1 * least for wait in waits)
    assert len(set(waits)) > 1 or least == 0


@pytest.mark.parametrize("headers", [None, {}, {"retry-after": "soon"}, {"retry-after": "-1"}])
def test_where_no_time_is_named(headers: dict[str, str] | None) -> None:
    assert seconds_to_wait(caused_by(headers)) is None
    assert seconds_to_wait(LMServerError("busy")) is None


def test_what_dspy_found_comes_first() -> None:
    error = caused_by({"retry-after": "9"})
    error.retry_after = 4.0
    wait = seconds_to_wait(error)
    assert wait is not None
    assert 4.0 <= wait <= 4.4
