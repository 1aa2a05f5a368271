"""The tiny student, for the pipeline of trials."""

from tests.adapters.conftest import student_folder

__all__ = ["student_folder"]
