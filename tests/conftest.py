"""What all tests share: no network, caches of their own, and BundleRec where available."""

import os
import tempfile
from pathlib import Path

import pytest

# Set before any test module imports the libraries that read them.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="routedk-dspy-"))

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def bundlerec() -> Path:
    """The folder with BundleRec's domains; tests that need it are skipped without it."""
    default = ROOT.parent / "shared" / "data" / "bundlerec"
    folder = Path(os.environ.get("ROUTEDK_BUNDLEREC", default))
    if not (folder / "electronic" / "session_item.csv").is_file():
        pytest.skip("BundleRec is not here: name its folder in ROUTEDK_BUNDLEREC")
    return folder


@pytest.fixture(scope="session")
def teacher() -> Path:
    """The folder with a large model's answers; tests that need it are skipped without it."""
    default = ROOT.parent / "shared" / "data" / "teacher"
    folder = Path(os.environ.get("ROUTEDK_TEACHER", default))
    if not (folder / "electronic" / "train.jsonl").is_file():
        pytest.skip("the teacher's answers are not here: name their folder in ROUTEDK_TEACHER")
    return folder
