"""Sessions to review, and what was proposed for them."""

from pathlib import Path

import pytest

from routedk.review.desk import Desk
from routedk.types import Answer, Bundle, Item, Session

TITLES = ("Camera", "Memory card", "Camera case", "Tablet", "Tablet cover", "Garden hose")
ITEMS = tuple(
    Item(str(number), title, ("Shop", title), 9.5 * number)
    for number, title in enumerate(TITLES, start=1)
)
SESSIONS = [Session(f"s{number}", ITEMS) for number in range(3)]
CAMERA = Bundle(("1", "2", "3"), "camera kit", "complements", "They fit.", 0.75, 0.9)
TABLET = Bundle(("4", "5"), "tablet kit", "alternatives", confidence=0.5)
ANSWERS = [
    Answer("s0", (CAMERA, TABLET), confidence=0.9),
    Answer("s1", (CAMERA,), confidence=0.3),
    Answer("s2", (), confidence=0.6),
]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "gold.jsonl"


@pytest.fixture
def desk(output: Path) -> Desk:
    return Desk(SESSIONS, ANSWERS, output)
