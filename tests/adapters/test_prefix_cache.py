"""What the memory of prompts and beginnings keeps, and for how long."""

import threading
from collections.abc import Sequence

import pytest
import torch

from routedk.adapters.engine.kv_cache import Prefix, RoomyLayer
from routedk.adapters.engine.prefixes import PrefixCache
from routedk.errors import SettingError


def ids_of(*parts: str) -> tuple[int, ...]:
    return tuple(ord(letter) for letter in "".join(parts))


class Computer:
    """Makes prefixes whose keys are their tokens, and keeps what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    def __call__(self, ids: tuple[int, ...], known: Prefix | None) -> Prefix:
        covered = 0 if known is None else len(known.ids)
        assert known is None or known.ids == ids[:covered]
        self.asked.append(("".join(map(chr, ids)), covered))
        keys = torch.tensor(ids).float()[None, :, None]
        return Prefix(ids, (keys,), (keys,))


def check(prefix: Prefix | None, ids: Sequence[int]) -> int:
    if prefix is None:
        return 0
    assert prefix.ids == tuple(ids[: len(prefix.ids)])
    assert prefix.keys[0][0, :, 0].tolist() == list(prefix.ids)
    return len(prefix.ids)


def test_all_of_a_new_beginning_is_kept_and_then_what_others_share() -> None:
    cache, compute = PrefixCache(), Computer()
    system, rules = "s" * 20, "r" * 20
    first = ids_of(system, rules, "one")
    assert check(cache.find("m", first, compute), first) == 43
    second = ids_of(system, rules, "two")
    assert check(cache.find("m", second, compute), second) == 40
    assert compute.asked == [(system + rules + "one", 0)]
    other = ids_of(system, "x" * 20)
    assert check(cache.find("m", other, compute), other) == 20
    assert check(cache.find("m", other, compute), other) == 40
    assert compute.asked[1:] == [(system + "x" * 20, 20)]
    assert check(cache.find("another", first, compute), first) == 43
    assert cache.computed == 43 + 20 + 43
    assert cache.reused == 40 + 20 + 20


def test_short_beginnings_are_not_kept() -> None:
    cache, compute = PrefixCache(), Computer()
    assert cache.find("m", ids_of("short"), compute) is None
    assert compute.asked == []


def test_memory_is_bounded_and_the_least_used_goes_first() -> None:
    compute = Computer()
    one = compute(ids_of("a" * 20), None).bytes
    cache = PrefixCache(2 * one)
    for letter in "abac":
        cache.find("m", ids_of(letter * 20), compute)
    assert cache.bytes == 2 * one
    asked = len(compute.asked)
    cache.find("m", ids_of("a" * 20), compute)
    cache.find("m", ids_of("c" * 20), compute)
    assert len(compute.asked) == asked
    cache.find("m", ids_of("b" * 20), compute)
    assert len(compute.asked) == asked + 1
    long = ids_of("z" * 100)
    assert check(cache.find("m", long, compute), long) == 100, "used, though too long to keep"
    assert cache.bytes == 2 * one
    with pytest.raises(SettingError, match="prefix_bytes=-1: must be at least 0"):
        PrefixCache(-1)


def test_prompts_are_kept_where_there_is_room_beside_beginnings() -> None:
    compute = Computer()
    one = compute(ids_of("a" * 20), None).bytes
    cache = PrefixCache(3 * one)
    cache.find("m", ids_of("a" * 20), compute)
    for letter in "bcbd":
        if cache.prompt(letter) is None:
            cache.keep_prompt(letter, compute(ids_of(letter * 20), None))
    assert cache.prompt("c") is None, "used least recently"
    assert [check(cache.prompt(name), ids_of(name * 20)) for name in "bd"] == [20, 20]
    asked = len(compute.asked)
    cache.find("m", ids_of("a" * 20), compute)
    assert len(compute.asked) == asked, "beginnings go last"
    cache.keep_prompt("e", compute(ids_of("e" * 100), None))
    assert cache.prompt("e") is None
    assert cache.bytes == 3 * one, "what is too long to be kept drives nothing out"


def test_many_threads_at_once() -> None:
    cache = PrefixCache(2000)
    failed: list[BaseException] = []

    def work(seed: int) -> None:
        compute = Computer()
        try:
            for k in range(200):
                ids = ids_of("p" * 20, chr(97 + (seed + k) % 7) * 20)
                check(cache.find(seed % 2, ids, compute), ids)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []
    assert cache.bytes <= 2000


def test_a_layer_with_room_holds_what_transformers_holds() -> None:
    from transformers.cache_utils import DynamicLayer

    roomy, plain = RoomyLayer(), DynamicLayer()
    generator = torch.Generator().manual_seed(0)
    for tokens in (5, 1, 1, 7, 1, 30, 2):
        states = [torch.randn(2, 3, tokens, 4, generator=generator) for _ in range(2)]
        found, wanted = roomy.update(*states), plain.update(*states)
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert roomy.get_seq_length() == 47
