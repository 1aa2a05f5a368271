"""Token trees and the layers below the experts, against separate rows and the whole student."""

import pytest
import torch

from routedk.adapters.experts.lower import lower_hidden, skipped
from routedk.adapters.student import Student
from routedk.adapters.trees import IGNORED, TokenTree, grow_tree, tree_inputs, tree_masks
from tests.adapters.conftest import HIDDEN, LAYERS, assert_same_scores

PROMPT = list(range(10, 19))
BRANCHES = [([20, 21, 22], 1), ([30, 31], 1), ([40, 41, 42, 43, 2], 3)]


def whole(student: Student, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return student.model(torch.tensor([ids])).logits[0]


def packed(student: Student, trees: list[TokenTree]) -> torch.Tensor:
    inputs = tree_inputs(trees)
    masks = tree_masks(student.model, inputs.pop("branch_ids"), inputs["position_ids"])
    with torch.no_grad():
        return student.model(**inputs, attention_mask=masks, use_cache=False).logits


def test_what_a_tree_holds() -> None:
    tree = grow_tree([7, 8], [([20, 21, 22], 1), ([30, 31], 2)])
    assert tree.input_ids == [7, 8, 20, 21, 22, 30, 31]
    assert tree.position_ids == [0, 1, 2, 3, 4, 2, 3]
    assert tree.branch_ids == [0, 0, 1, 1, 1, 2, 2]
    assert tree.labels == [IGNORED] * 3 + [21, 22] + [IGNORED] * 2


def test_a_tree_equals_separate_rows(loaded: Student) -> None:
    trees = [grow_tree(PROMPT, BRANCHES), grow_tree(PROMPT[:4], BRANCHES[:1])]
    found = packed(loaded, trees)
    for row, (prompt, branches) in enumerate([(PROMPT, BRANCHES), (PROMPT[:4], BRANCHES[:1])]):
        start = len(prompt)
        for branch, _ in branches:
            alone = whole(loaded, [*prompt, *branch])
            assert_same_scores(found[row, : len(prompt)], alone[: len(prompt)])
            mine = found[row, start : start + len(branch)]
            assert_same_scores(mine, alone[len(prompt) :])
            start += len(branch)


@pytest.mark.parametrize("layers", range(LAYERS + 1))
def test_lower_then_upper_layers_are_the_student(student: Student, layers: int) -> None:
    # More rows than one batch of the lower layers holds, of unequal lengths.
    trees = [grow_tree(PROMPT[: 3 + k % 5], BRANCHES[: 1 + k % 3]) for k in range(11)]
    hidden = lower_hidden(student.model, trees, layers)
    width = HIDDEN if layers else 0
    assert [tuple(h.shape) for h in hidden] == [(len(t.input_ids), width) for t in trees]
    expected = packed(student, trees)
    given = torch.nn.utils.rnn.pad_sequence(hidden, batch_first=True)
    with skipped(student.model.model.layers[:layers], given):
        found = packed(student, trees)
    for row, tree in enumerate(trees):
        length = len(tree.input_ids)
        assert_same_scores(found[row, :length], expected[row, :length])


def test_layers_are_put_back(student: Student) -> None:
    trees, layers = [grow_tree(PROMPT, BRANCHES)], student.model.model.layers
    before = packed(student, trees)
    with skipped(layers[:2]):
        assert not torch.equal(packed(student, trees), before)
    with pytest.raises(KeyError), skipped(layers[:2]):
        raise KeyError
    assert torch.equal(packed(student, trees), before)
    lower_hidden(student.model, trees, 2)
    assert not any(layer._forward_hooks or "forward" in vars(layer) for layer in layers)
