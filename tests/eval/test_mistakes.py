import pytest

from routedk.eval.mistakes import Verdict, judge


def bundle(items: str) -> frozenset[str]:
    return frozenset(items)


@pytest.mark.parametrize(
    ("gold", "predicted", "kind", "nearest", "irrelevant", "missing"),
    [
        (["abc"], "abc", "correct", "abc", "", ""),
        (["abc"], "ab", "misses some", "abc", "", "c"),
        (["abc"], "abx", "contains irrelevant", "abc", "x", "c"),
        (["abc"], "abcx", "contains irrelevant", "abc", "x", ""),
        (["abc"], "ax", "invalid", "abc", "x", "bc"),
        (["abc"], "xy", "invalid", None, "xy", ""),
        (["abc"], "a", "too small", "abc", "", "bc"),
        (["abc"], "x", "too small", None, "x", ""),
        (["abc"], "", "too small", None, "", ""),
        ([], "ab", "invalid", None, "ab", ""),
        # Across two gold bundles: one item of each is none of either.
        (["ab", "cd"], "ac", "invalid", "ab", "c", "b"),
        # A bundle that holds all of it is nearer than a smaller one of higher Jaccard.
        (["abcdefgh", "ab"], "ac", "misses some", "abcdefgh", "", "bdefgh"),
        # Two shared items are nearer than one of higher Jaccard.
        (["abcdefgh", "ax"], "abx", "contains irrelevant", "ax", "b", ""),
        (["abcdefgh", "xz"], "abx", "contains irrelevant", "abcdefgh", "x", "cdefgh"),
    ],
)
def test_kinds(
    gold: list[str],
    predicted: str,
    kind: str,
    nearest: str | None,
    irrelevant: str,
    missing: str,
) -> None:
    (verdict,) = judge([bundle(g) for g in gold], [bundle(predicted)])
    assert verdict == Verdict(
        predicted=bundle(predicted),
        kind=kind,  # type: ignore[arg-type]
        gold=None if nearest is None else bundle(nearest),
        irrelevant=bundle(irrelevant),
        missing=bundle(missing),
    )


def test_one_verdict_for_each_bundle_in_order() -> None:
    verdicts = judge([bundle("ab"), bundle("cd")], ["ab", "abc", "ab"])
    assert [v.kind for v in verdicts] == ["correct", "contains irrelevant", "correct"]
