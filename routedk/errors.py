"""RouteDK's errors: one base class, and subclasses that also inherit a standard exception."""

from pathlib import Path

LONGEST = 300
"""Maximum length of an error message, in characters."""


def one_line(text: str, longest: int = LONGEST) -> str:
    """Put text from any source on one printable line; the middle of a long one is left out."""
    head, tail = text[: 4 * longest], text[-longest:] if len(text) > 4 * longest else ""
    line = " ".join((head + tail).split())
    line = "".join(one if one.isprintable() else ascii(one)[1:-1] for one in line)
    if len(line) <= longest:
        return line
    end = longest // 3
    return f"{line[: longest - end - 5]} ... {line[-end:]}"


class RouteDKError(Exception):
    """Base of every error that RouteDK raises on purpose; its message is one line."""

    def __str__(self) -> str:
        return one_line(super().__str__())


class DataError(RouteDKError, ValueError):
    """A user's file or record is broken.

    Args:
        problem: What is wrong, quoting the bad value.
        path: The file, if any.
        line: Its line, counted from 1, if any.
        hint: What to do about it.
    """

    def __init__(
        self,
        problem: str,
        *,
        path: str | Path | None = None,
        line: int | None = None,
        hint: str | None = None,
    ) -> None:
        place = "" if path is None else f"{path}: " if line is None else f"{path}:{line}: "
        remedy = f" ({hint})" if hint else ""
        # Quote only part of what a file holds, to leave room for the rest of the message.
        room = max(LONGEST // 3, LONGEST - len(place) - len(remedy))
        super().__init__(f"{place}{one_line(problem, room)}{remedy}")
        self.problem = problem


class SettingError(RouteDKError, ValueError):
    """A setting has a value that is not allowed; the message quotes it and the allowed ones."""


class AnswerError(RouteDKError, ValueError):
    """A language model's answer holds neither a valid bundle nor a "no bundle" statement."""


class ArtifactError(RouteDKError, ValueError):
    """A saved artifact (program, experts, router) is missing, damaged or of the wrong kind."""


class StudentError(RouteDKError, RuntimeError):
    """The student's weights cannot be found, or are not the expected ones."""


class TrainingDivergedError(RouteDKError, FloatingPointError):
    """A loss or a trained weight is no longer finite; the message says at which step."""


class MissingExtraError(RouteDKError, ImportError):
    """An optional package is needed; the message names the exact ``pip install``."""
