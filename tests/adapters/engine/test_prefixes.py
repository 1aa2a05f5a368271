from routedk.adapters.engine.prefixes import PrefixCache
from routedk.adapters.engine.trees import Prefix

SYSTEM = tuple(range(100, 140))


def find(cache: PrefixCache, ids: tuple[int, ...], made: list[int]) -> int:
    """How many tokens the cache found; ``made`` records what had to be computed."""

    def compute(ids: tuple[int, ...]) -> Prefix:
        made.append(len(ids))
        return Prefix(ids, ())

    return len(cache.find(ids, compute).ids)


def test_what_two_prompts_share_is_computed_once() -> None:
    cache, made = PrefixCache(), []
    assert find(cache, (*SYSTEM, 1, 2, 3), made) == 0
    assert [find(cache, (*SYSTEM, k, 5), made) for k in range(7, 12)] == [40] * 5
    assert made == [40]


def test_a_longer_beginning_gets_an_entry_of_its_own() -> None:
    cache, made = PrefixCache(), []
    demos = (*SYSTEM, *range(40))
    assert [find(cache, ids, made) for ids in ((*SYSTEM, 7), (*SYSTEM, 8), demos, demos)] == [
        0,
        40,
        40,
        80,
    ]
    assert find(cache, (*SYSTEM, 9), made) == 40
    assert find(cache, (*demos, 9), made) == 80
    assert made == [40, 80]


def test_little_in_common_is_not_kept() -> None:
    cache, made = PrefixCache(), []
    for last in range(4):
        assert find(cache, (1, 2, 3, last), made) == 0
    assert made == []


def test_few_entries_are_kept_the_latest_used() -> None:
    cache, made = PrefixCache(), []
    for k in range(20):
        ids = tuple(range(1000 * k, 1000 * k + 30))
        find(cache, ids, made)
        find(cache, ids, made)
    assert len(made) == 20
    assert find(cache, tuple(range(19_000, 19_030)), made) == 30
    assert find(cache, tuple(range(30)), made) == 0
    assert len(cache._entries) == 4
