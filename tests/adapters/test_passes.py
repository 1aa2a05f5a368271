"""Trees in passes of like length: each is read as if it were alone."""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from hypothesis import given
from hypothesis import strategies as st

from routedk.adapters.engine.branches import compute_prefixes
from routedk.adapters.engine.passes import NOTHING, join, like_lengths, read_trees
from routedk.adapters.experts.routed import ExpertSettings, RoutedStudent
from routedk.adapters.student import Student
from routedk.adapters.trees import TokenTree, grow_tree

from .conftest import copy_of, randomise

PROMPTS = [[5, 9, 30, 41, 7], [11, 12], [3] * 40, [8, 6, 4], [2] * 38]
HEADS = [[[20, 21, 22], [33]], [[60, 61]], [[9]], [[1, 2], [3]], [[7, 7]]]


def trees() -> list[TokenTree]:
    return [
        grow_tree(prompt, [(head, len(head)) for head in heads])
        for prompt, heads in zip(PROMPTS, HEADS, strict=True)
    ]


@given(
    rows=st.lists(st.tuples(st.integers(1, 300), st.integers(0, 400)), max_size=30),
    most=st.integers(1, 600),
    padding=st.floats(0, 0.9),
)
def test_batches_are_bounded_and_little_of_them_is_padding(
    rows: list[tuple[int, int]], most: int, padding: float
) -> None:
    read, held = [mine for mine, _ in rows], [known for _, known in rows]
    batches = like_lengths(read, held, most, padding)
    assert sorted(place for batch in batches for place in batch) == list(range(len(rows)))
    for batch in batches:
        assert batch == sorted(batch)
        longest, total = max(read[k] for k in batch), sum(read[k] for k in batch)
        whole = longest + max(held[k] for k in batch)
        assert len(batch) == 1 or longest * len(batch) <= most
        assert len(batch) == 1 or whole * len(batch) <= 4 * most
        assert total >= (1 - padding) * longest * len(batch) - 1e-9


def test_rows_of_like_length_share_a_batch() -> None:
    assert like_lengths([100, 9, 98, 10, 100], [0] * 5, 300) == [[1, 3], [0, 2, 4]]
    assert like_lengths([100] * 3, [0] * 3, 200) == [[0, 1], [2]]
    assert like_lengths([10] * 3, [390, 390, 10], 200) == [[0, 2], [1]]
    assert like_lengths([], [], 200) == []


def test_trees_of_any_length_and_known_beginning_are_read_as_if_alone(loaded: Student) -> None:
    exact = copy_of(loaded)
    exact.model.double()
    routed = randomise(RoutedStudent(exact, ExpertSettings(r=4, lora_alpha=8, layers=2)))
    routed.freeze()
    model = routed.student.model
    gates = torch.softmax(
        torch.randn(len(PROMPTS), 3, generator=torch.Generator().manual_seed(0)), dim=-1
    )

    def gating(places: Sequence[int]) -> AbstractContextManager[None]:
        return routed.gate_state.use(gates[list(places)])

    known = [None if k % 2 else prompt[: len(prompt) // 2] for k, prompt in enumerate(PROMPTS)]
    prefixes = [
        None
        if ids is None
        else compute_prefixes(model, [ids], [None], lambda _, k=k: gating([k]))[0]
        for k, ids in enumerate(known)
    ]
    passes = list(read_trees(model, trees(), prefixes, gating))
    assert 1 < len(passes) < len(PROMPTS)
    rows = {tree: one.row(place) for one in passes for place, tree in enumerate(one.trees)}
    hidden = [rows[tree].hidden_TH for tree in range(len(rows))]
    cache, members_BT = join([rows[tree] for tree in range(len(rows))], room=3)
    assert {layer._room[0].shape[-2] - members_BT.shape[1] for layer in cache.layers} == {3}
    assert members_BT.shape[1] == max(len(tree.input_ids) for tree in trees())
    for k, tree in enumerate(trees()):
        held = len(known[k] or ())
        (alone,) = read_trees(model, [tree], [None], lambda _, k=k: gating([k]))
        torch.testing.assert_close(hidden[k], alone.hidden_BTH[0, held:], atol=1e-9, rtol=0)
        size = len(tree.input_ids)
        assert members_BT[k, :size].tolist() == tree.branch_ids
        assert set(members_BT[k, size:].tolist()) <= {NOTHING}
        for mine, own in zip(cache.layers, alone.cache.layers, strict=True):
            for name in ("keys", "values"):
                found, wanted = getattr(mine, name)[k, :, :size], getattr(own, name)[0]
                torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)
