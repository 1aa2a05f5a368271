"""The tiny student of the adapters' tests."""

from tests.adapters.conftest import knowledge, loaded, sessions, student_folder

__all__ = ["knowledge", "loaded", "sessions", "student_folder"]
