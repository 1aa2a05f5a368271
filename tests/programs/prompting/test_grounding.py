import numpy as np
import pytest
from numpy.typing import NDArray

from routedk.programs.prompting.grounding import grounded


class OneAlike:
    """Takes "photography" to be about cameras, and nothing else about anything."""

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        about = [0 if "amera" in text or "photo" in text else k + 1 for k, text in enumerate(texts)]
        return np.eye(9, dtype=np.float32)[about]


CAMERAS = ["Nikon camera body, black", "Camera strap for Nikon"]


@pytest.mark.parametrize(
    ("intent", "titles", "found"),
    [
        ("camera accessories", CAMERAS, "camera accessories"),
        ("photography", CAMERAS, "photography"),
        ("coffee brewing", CAMERAS, "camera"),
        ("coffee brewing", ["Rubber duck, yellow", "Bath towel, large", ""], "duck and towel"),
        ("coffee brewing", ["Red wool socks", "Wool socks for men"], "wool socks"),
        ("accessories", ["Red wool sock", "Blue wool sock"], "wool sock"),
        ("", ["Red wool sock", "Blue wool sock"], "wool sock"),
        ("socks", ["Red wool sock", "Gloves"], "socks"),
        ("coffee", ["", "  "], "coffee"),
        ("coffee", ["B07-11", "4711"], "coffee"),
        ("tv", ["LG TV 4K", "HD TV"], "tv"),
        ("socks socks", ["Red wool socks", "Wool socks for men"], "wool socks"),
    ],
)
def test_an_intent_is_about_its_titles(intent: str, titles: list[str], found: str) -> None:
    assert grounded(intent, titles, OneAlike()) == found
