import pytest

from routedk.errors import SettingError
from routedk.optimizers.search.identity import (
    check_identity,
    data_difference,
    data_record,
    sessions_digest,
)
from routedk.optimizers.search.testing import small_sessions
from routedk.types import Session

# For training, validation and test.
SPLIT = (small_sessions(4)[:2], small_sessions(4)[2:3], small_sessions(4)[3:])


def test_what_differs_in_the_data_is_said() -> None:
    train, validation, test = SPLIT
    options = {"gold": "minimal", "split_file": "a.json"}
    kept = data_record(train, validation, test, seed=0, options=options)
    assert data_difference(kept, data_record(train, validation, [], seed=0)) == ""
    assert data_difference(kept, data_record(train, validation, [], seed=3)) == "--seed 0, not 3"
    others = {"gold": "minimal", "split_file": None}
    found = data_difference(kept, data_record(train[:1], test, [], seed=0, options=others))
    assert found == (
        "other sessions: 2 training sessions, not 1; 1 validation sessions, not these 1, which "
        "have other ids, items, gold or order; --split-file a.json, not none"
    )
    # As earlier versions kept it.
    early = {name: kept[name] for name in ("digest", "seed")}
    assert data_difference(early, kept) == ""
    assert data_difference(early, data_record(train, test, [], seed=0)) == "other sessions"
    # As a caller may have kept it.
    bare = {"digest": "0", "seed": 0}
    assert data_difference(kept, bare) == data_difference(bare, kept) == "other sessions"


def test_data_of_a_callers_own_must_stay_too() -> None:
    record = data_record(*SPLIT, seed=0)
    for theirs, mine, message in (
        ({"file": "a"}, {"file": "b"}, 'another data file: "a", not "b"'),
        ("a", "b", 'another data: "a", not "b"'),
        (None, record, "another data: null, not {"),
        (record, {"seed": 0}, "another data digest: "),
    ):
        check_identity("mine", {"data": theirs}, {"data": theirs})
        with pytest.raises(SettingError) as caught:
            check_identity("mine", {"data": theirs}, {"data": mine})
        assert f"study 'mine' was made with {message}" in str(caught.value)
        assert "--data" not in str(caught.value)


def test_a_digest_tells_sessions_apart() -> None:
    one, two = small_sessions(2)
    assert sessions_digest([one, two]) == sessions_digest(small_sessions(2))
    assert sessions_digest([one, two]) != sessions_digest([two, one])
    assert sessions_digest([Session("s0", one.items)]) != sessions_digest([one])
