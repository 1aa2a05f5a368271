import dspy
import pytest
from dspy.lm15 import AuthError, ContextLengthError, InvalidRequestError, UnsupportedModelError
from dspy.utils.exceptions import AdapterParseError, LMError, LMTransportError

from routedk.errors import AnswerError, DataError
from routedk.programs.journal.journaled_lm import NoAnswerError
from routedk.programs.teachers.asker import is_session_error
from tests.scripted import scripted_lm


@pytest.mark.parametrize(
    ("error", "of_session"),
    [
        (ContextLengthError("too long"), True),
        (InvalidRequestError("what?"), True),
        (AuthError("no"), False),
        (UnsupportedModelError("none such"), False),
        (OSError("the cable"), False),
        (DataError("cannot write: No space left"), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_a_call_are_told_apart(error: Exception, of_session: bool) -> None:
    def script(messages: list[dict[str, str]]) -> str:
        raise error

    lm, _ = scripted_lm(script)
    with pytest.raises(LMError) as caught:
        lm("tea?")
    assert is_session_error(caught.value) is of_session


def test_errors_of_a_program_are_told_apart() -> None:
    signature = dspy.Signature("question -> answer")
    assert is_session_error(AdapterParseError("ChatAdapter", signature, "?"))
    assert is_session_error(AnswerError("no bundle"))
    assert is_session_error(NoAnswerError("nothing"))
    assert not is_session_error(LMTransportError("refused"))
    assert not is_session_error(ValueError("a bug"))
