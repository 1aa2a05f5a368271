"""A tiny student instead of the embedded one."""

import shutil
from pathlib import Path

import pytest

from routedk.adapters import student
from routedk.cache import cache_folder


def embed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install a student as the embedded one, in the test's cache folder.

    Args:
        folder: The student's.
        monkeypatch: Hides the student that may be in the Hugging Face cache.
    """
    place = f"smollm2-135m-instruct-{student.GGUF_SHA256[:12]}"
    shutil.copytree(folder, cache_folder() / place)
    monkeypatch.setattr(student, "_snapshot", lambda *names, **options: None)
