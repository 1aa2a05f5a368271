"""`ForkLock`: a lock that no forked process finds taken, and torch that it can compute with."""

import os
import sys
from threading import Lock
from weakref import WeakSet

_FORKING = Lock()
_LOCKS: "WeakSet[ForkLock]" = WeakSet()
_held: list["ForkLock"] = []


class ForkLock:
    """A lock of what a forked process uses further, such as a model.

    A fork copies locks as they are and no thread that could free them, so it waits until these are
    free. Who holds one must neither fork, nor make or take another, nor wait for another thread.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        with _FORKING:
            _LOCKS.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _before() -> None:
    _FORKING.acquire()
    _held.extend(_LOCKS)
    for lock in _held:
        lock.__enter__()


def _after() -> None:
    for lock in _held:
        lock.__exit__()
    _held.clear()
    _FORKING.release()


def _in_child() -> None:
    # OpenMP, too, would wait for threads that a fork does not copy.
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    _after()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
