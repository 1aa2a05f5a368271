"""Edits: no item is lost or in two bundles, whatever is done to a session."""

from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routedk.data.records import BundleRecord
from routedk.errors import DataError
from routedk.review.draft import Version, accept, merge, move, proposed, reject, rename
from routedk.types import Bundle

from .conftest import CAMERA, SESSIONS, TABLET

START = proposed(SESSIONS[0], [CAMERA, TABLET])
PLACE = st.integers(0, 5)
EDITS = st.lists(
    st.tuples(st.just(move), st.lists(st.sampled_from(START.ids)), PLACE)
    | st.tuples(st.just(merge), PLACE, PLACE)
    | st.tuples(st.just(rename), PLACE, st.text(max_size=5), st.sampled_from([None, "mixed"]))
    | st.tuples(st.just(reject), PLACE)
    | st.tuples(st.just(accept)),
    max_size=12,
)


def shown(draft: Version) -> list[str]:
    """The bundles' items, for a table."""
    return ["".join(bundle.items) for bundle in draft.bundles]


@given(EDITS)
def test_every_item_stays_in_one_place(edits: list[tuple[object, ...]]) -> None:
    draft = START
    for edit, *arguments in edits:
        before = draft
        try:
            draft = edit(draft, *arguments)  # type: ignore[operator]
        except DataError:
            continue
        placed = [*chain(*(bundle.items for bundle in draft.bundles)), *draft.free]
        assert sorted(placed) == sorted(START.ids)
        assert all(bundle.items for bundle in draft.bundles)
        assert draft.accepted == (edit is accept or (before.accepted and draft == before))
        if draft.accepted:
            assert all(len(bundle.items) > 1 for bundle in draft.bundles)


@pytest.mark.parametrize(
    ("edit", "bundles"),
    [
        ((move, ["1"], 2), ["23", "451"]),
        ((move, ["6"], 1), ["1236", "45"]),
        ((move, ["1", "4", "6"], 1), ["12346", "5"]),
        ((move, ["1"], 0), ["23", "45"]),
        ((move, ["3", "2"], 3), ["1", "45", "23"]),
        ((move, ["4", "5"], 1), ["12345"]),
        ((move, ["4"], 2), ["123", "45"]),
        ((merge, 1, 2), ["45123"]),
        ((merge, 2, 1), ["12345"]),
        ((reject, 1), ["45"]),
        ((rename, 1, "new", None), ["123", "45"]),
    ],
)
def test_what_an_edit_does(edit: tuple[object, ...], bundles: list[str]) -> None:
    assert shown(edit[0](START, *edit[1:])) == bundles  # type: ignore[operator]


def test_what_was_said_of_other_items_goes() -> None:
    changed = move(START, ["1"], 0)
    assert changed.bundles[0] == BundleRecord(
        items=["2", "3"], intent="camera kit", kind="complements"
    )
    assert changed.bundles[1] is START.bundles[1]
    assert START.bundles[0].confidence == 0.75


def test_names() -> None:
    named = rename(START, 1, " photo \n &amp; film ", "mixed").bundles[0]
    assert (named.intent, named.kind, named.kind_confidence) == ("photo & film", "mixed", None)
    assert named.confidence == 0.75
    unnamed = move(START, ["6"], 3)
    assert merge(unnamed, 2, 3).bundles[1].intent == "tablet kit"
    assert merge(unnamed, 3, 2).bundles[1].intent == "tablet kit"


def test_an_edit_ends_the_acceptance_and_none_does_not() -> None:
    done = accept(START)
    assert done.accepted
    assert not reject(done, 1).accepted
    assert move(done, ["1"], 1) is done
    assert rename(done, 1, "camera kit", "complements") is done
    none = accept(reject(reject(done, 2), 1))
    assert (none.bundles, none.free, none.accepted) == ([], START.ids, True)


def test_an_item_of_several_bundles_stays_in_the_first() -> None:
    overlapping = [Bundle(("1", "2")), Bundle(("2", "3", "4")), Bundle(("1", "3"))]
    assert shown(proposed(SESSIONS[0], overlapping)) == ["12", "34"]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ((move, ["9"], 1), "the session has no item '9'"),
        ((move, ["1"], 4), "there is no bundle 4"),
        ((move, ["1"], -1), "there is no bundle -1"),
        ((merge, 1, 1), "bundle 1 cannot be merged with itself"),
        ((merge, 3, 1), "there is no bundle 3"),
        ((rename, 0, "", None), "there is no bundle 0"),
        ((reject, 3), "there is no bundle 3"),
        ((rename, 1, " None ", None), "an intent 'None' reads as none: use other words"),
    ],
)
def test_what_is_refused(edit: tuple[object, ...], message: str) -> None:
    with pytest.raises(DataError, match=message):
        edit[0](START, *edit[1:])  # type: ignore[operator]


def test_a_single_item_is_not_accepted() -> None:
    with pytest.raises(DataError, match="bundle 3 has one item: add another, or reject it"):
        accept(move(START, ["1"], 3))


def test_a_draft_is_a_partition() -> None:
    for items in (["1", "1"], ["7"]):
        with pytest.raises(ValueError, match="in two bundles, or not in the session"):
            Version(session_id="s", items=[{"id": "1"}], bundles=[BundleRecord(items=items)])
