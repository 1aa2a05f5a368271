"""Sessions that the tests of programs share."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

import pytest

from routedk.types import Bundle, Item, Session

Make = Callable[..., Session]


def make_session(
    name: str,
    titles: Sequence[str],
    gold: Sequence[tuple[Sequence[int], str]] | None = None,
    categories: Sequence[tuple[str, ...]] = (),
) -> Session:
    paths = categories or [()] * len(titles)
    items = tuple(
        Item(id=f"{name}-{n}", title=title, categories=path)
        for n, (title, path) in enumerate(zip(titles, paths, strict=True), start=1)
    )
    if gold is None:
        return Session(name, items)
    bundles = tuple(Bundle(tuple(items[n - 1].id for n in ns), intent) for ns, intent in gold)
    return Session(name, items, bundles)


@pytest.fixture
def make() -> Make:
    """Session from titles and gold in item numbers; item ids are ``<session>-<number>``."""
    return make_session


@pytest.fixture
def tea() -> Session:
    return make_session(
        "tea", ["red kettle", "tea cup", "usb cable"], [((1, 2), "brewing tea at home")]
    )


@pytest.fixture
def training() -> list[Session]:
    return [
        make_session("t1", ["blue kettle", "mug", "socks"], [((2, 1), "tea time")]),
        make_session("t2", ["usb hub", "usb cable", "kettle"], [((1, 2), "desk setup")]),
        make_session("t3", ["socks", "lamp"], []),
    ]


@pytest.fixture(scope="module")
def litellm_loop() -> Iterator[None]:
    """LiteLLM's blocking calls leave an event loop open if they find none."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
