"""Which errors of a language model concern one session, and which would meet every session."""

from dspy.utils.exceptions import (
    AdapterParseError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    LMUnsupportedModelError,
)

from routedk.errors import AnswerError
from routedk.programs.journal.journaled_lm import NoAnswerError

_OF_A_SESSION = (
    AnswerError,
    AdapterParseError,
    LMInvalidRequestError,
    LMStreamAssemblyError,
    NoAnswerError,
)


def is_session_error(error: BaseException) -> bool:
    """Whether an error concerns one session alone, so that others may succeed.

    An answer that is missing or cannot be read, and a request that the model refuses, such as
    one beyond its context window, do. A used-up budget, a refused key, an unknown model, a
    server that could not be reached or failed through all retries, a disk that cannot be written
    and anything unexpected do not.
    """
    return isinstance(error, _OF_A_SESSION) and not isinstance(error, LMUnsupportedModelError)
