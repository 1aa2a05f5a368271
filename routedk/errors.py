"""The errors of RouteDK: one base, and leaves that are also the standard exception."""

from pathlib import Path


class RouteDKError(Exception):
    """Base of every error that RouteDK raises on purpose."""


class DataError(RouteDKError, ValueError):
    """A file or record of the user's is broken.

    Args:
        problem: What is wrong, quoting the bad value.
        path: The file, where there is one.
        line: Its line, counted from 1, where there is one.
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
        super().__init__(f"{place}{problem}" + (f" ({hint})" if hint else ""))
        self.problem = problem


class SettingError(RouteDKError, ValueError):
    """A setting has a value that is not allowed; the message quotes it and the allowed ones."""


class AnswerError(RouteDKError, ValueError):
    """An answer of a language model holds no valid bundle and no "no bundle" statement."""


class ArtifactError(RouteDKError, ValueError):
    """A saved artifact (program, experts, router) is missing, damaged or of another kind."""


class StudentError(RouteDKError, RuntimeError):
    """The student's weights cannot be found, or are not what they should be."""


class TrainingDivergedError(RouteDKError, FloatingPointError):
    """A loss or a trained weight is no longer finite; the message says at which step."""


class MissingExtraError(RouteDKError, ImportError):
    """An optional package is needed; the message names the exact ``pip install``."""
