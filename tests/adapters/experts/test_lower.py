"""Token trees and the layers below the experts, against separate rows and the whole student."""

import pytest
import torch

from routedk.adapters.experts.lower import lower_hidden, only_layers
from routedk.adapters.student import Student
from routedk.adapters.trees import IGNORED, TokenTree, branch_mask, grow_tree, pad
from tests.adapters.conftest import HIDDEN, LAYERS, assert_same_scores

PROMPT = list(range(10, 19))
BRANCHES = [([20, 21, 22], 1), ([30, 31], 1), ([40, 41, 42, 43, 2], 3)]


def whole(student: Student, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return student.model(torch.tensor([ids])).logits[0]


def batch_of(trees: list[TokenTree]) -> dict[str, torch.Tensor]:
    members = pad([tree.branch_ids for tree in trees], -1)
    return {
        "position_ids": pad([tree.position_ids for tree in trees], 0),
        "attention_mask": branch_mask(members, members, members, torch.float32),
    }


def test_what_a_tree_holds() -> None:
    tree = grow_tree([7, 8], [([20, 21, 22], 1), ([30, 31], 2)])
    assert tree.input_ids == [7, 8, 20, 21, 22, 30, 31]
    assert tree.position_ids == [0, 1, 2, 3, 4, 2, 3]
    assert tree.branch_ids == [0, 0, 1, 1, 1, 2, 2]
    assert tree.labels == [IGNORED] * 3 + [21, 22] + [IGNORED] * 2


def test_a_tree_equals_separate_rows(loaded: Student) -> None:
    trees = [grow_tree(PROMPT, BRANCHES), grow_tree(PROMPT[:4], BRANCHES[:1])]
    ids = pad([tree.input_ids for tree in trees], 0)
    with torch.no_grad():
        packed = loaded.model(input_ids=ids, use_cache=False, **batch_of(trees)).logits
    for row, (prompt, branches) in enumerate([(PROMPT, BRANCHES), (PROMPT[:4], BRANCHES[:1])]):
        start = len(prompt)
        for branch, _ in branches:
            alone = whole(loaded, [*prompt, *branch])
            assert_same_scores(packed[row, : len(prompt)], alone[: len(prompt)])
            mine = packed[row, start : start + len(branch)]
            assert_same_scores(mine, alone[len(prompt) :])
            start += len(branch)


@pytest.mark.parametrize("layers", range(LAYERS + 1))
def test_lower_then_upper_layers_are_the_student(student: Student, layers: int) -> None:
    decoder = student.model.model
    # More rows than one batch of the lower layers holds, of unequal lengths.
    trees = [grow_tree(PROMPT[: 3 + k % 5], BRANCHES[: 1 + k % 3]) for k in range(11)]
    hidden = lower_hidden(decoder, trees, layers, pad_token_id=0)
    assert [tuple(h.shape) for h in hidden] == [(len(t.input_ids), HIDDEN) for t in trees]
    ids = pad([tree.input_ids for tree in trees], 0)
    with torch.no_grad():
        expected = student.model(input_ids=ids, use_cache=False, **batch_of(trees)).logits
        with only_layers(decoder, layers, LAYERS):
            embedded = torch.nn.utils.rnn.pad_sequence(hidden, batch_first=True)
            found = student.model(inputs_embeds=embedded, use_cache=False, **batch_of(trees)).logits
    for row, tree in enumerate(trees):
        length = len(tree.input_ids)
        assert_same_scores(found[row, :length], expected[row, :length])


def test_layers_are_put_back(student: Student) -> None:
    decoder = student.model.model
    every = decoder.layers
    with only_layers(decoder, 1, 2):
        assert list(decoder.layers) == [every[1]]
    assert decoder.layers is every
    with pytest.raises(KeyError), only_layers(decoder, 0, 1):
        raise KeyError
    assert decoder.layers is every
    assert not any(layer._forward_hooks for layer in every)
