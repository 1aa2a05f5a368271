"""What computes in this process also does in one that was forked from it."""

import threading
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch

from routedk import Item, Session
from routedk.forks import ForkLock
from routedk.programs.grouping.encoder import EncoderGrouping
from routedk.similarity import default_encoder
from tests.forked import in_fork

TITLES = [f"SanDisk {size}GB SDHC Card for camera number {size}" for size in range(64)]
CART = Session("cart", tuple(Item(title, title) for title in TITLES[:6]))


@pytest.fixture
def two_threads() -> Iterator[None]:
    """Torch's own threads, which a fork does not copy."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_titles_are_encoded_in_a_fork() -> None:
    encoder = default_encoder()
    encoder.encode(TITLES[1:])
    found = in_fork(lambda: encoder.encode(TITLES[:1]))
    assert np.allclose(found, encoder.encode(TITLES[:1]), atol=1e-5)


@pytest.mark.usefixtures("two_threads")
def test_items_are_grouped_in_a_fork_also_while_another_thread_groups() -> None:
    grouping = EncoderGrouping.load(Path(str(files("routedk") / "bundler" / "grouping")))
    answer = grouping.answer(CART)
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            grouping.read(TITLES)

    other = threading.Thread(target=busy)
    other.start()
    try:
        found = in_fork(lambda: grouping.answer(CART))
    finally:
        stop.set()
        other.join()
    assert found.items == answer.items
    assert grouping.answer(CART) == answer


def test_a_fork_waits_for_who_holds_a_lock() -> None:
    lock, held, done = ForkLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            held.set()
            done.wait()

    def enter() -> str:
        with lock:
            return "free"

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()
    threading.Timer(0.2, done.set).start()
    assert in_fork(enter) == "free"
    assert done.is_set()
    holder.join()
    assert enter() == "free"
