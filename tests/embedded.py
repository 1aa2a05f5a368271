"""A tiny student in the place of the embedded one."""

import shutil
from pathlib import Path

import pytest

from routedk.adapters import student
from routedk.cache import cache_folder


def embed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a student where the embedded one is kept: in the cache folder, which is the test's own.

    Args:
        folder: The student's.
        monkeypatch: Hides the student that may be in the Hugging Face cache.
    """
    place = f"smollm2-135m-instruct-{student.GGUF_SHA256[:12]}"
    shutil.copytree(folder, cache_folder() / place)
    monkeypatch.setattr(student, "_snapshot", lambda *names, **options: None)
