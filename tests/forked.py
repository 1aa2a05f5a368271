"""Calls in a forked process: what a program finds there that starts workers by fork."""

import multiprocessing
from collections.abc import Callable
from typing import Any

_calls: list[Callable[[], Any]] = []


def in_fork(call: Callable[[], Any]) -> Any:
    """What a call gives, or raises, in a process forked from this one."""
    with multiprocessing.get_context("fork").Pool(1, _calls.append, (call,)) as pool:
        return pool.apply_async(_last).get(timeout=120)


def _last() -> Any:
    return _calls[-1]()
