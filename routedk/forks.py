"""`ForkLock`: a lock that no forked process finds held; torch is made usable there, too."""

import os
import sys
from threading import Lock
from weakref import WeakSet

_FORKING = Lock()
_LOCKS: "WeakSet[ForkLock]" = WeakSet()
_held: list["ForkLock"] = []


class ForkLock:
    """A lock for an object that forked processes go on using, such as a model.

    A fork copies held locks, but not the threads that would release them, so it waits until these
    locks are free. While holding one, do not fork, make or acquire another, or wait for a thread.
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
    # OpenMP would also wait for threads that a fork does not copy.
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
    _after()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_in_child)
