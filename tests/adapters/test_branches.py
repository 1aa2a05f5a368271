from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from routedk.adapters.engine.branches import Branch, decode_branches
from routedk.adapters.student import Student
from routedk.adapters.trees import TokenTree, grow_tree

Ids = list[int]

PROMPTS: list[Ids] = [[5, 9, 30, 41, 7], [11, 12]]
HEADS: list[list[Ids]] = [[[20, 21, 22], [33], [44, 45]], [[60, 61]]]
END = -1  # No token: branches run to their limit.


def greedy(branches: Sequence[Branch], scores_NV: Tensor) -> list[int]:
    return scores_NV.argmax(dim=-1).tolist()


def alone(student: Student, ids: Ids, tokens: int) -> Ids:
    """Greedy decoding of one sequence, without cache, mask or padding."""
    written: Ids = []
    for _ in range(tokens):
        with torch.no_grad():
            scores = student.model(torch.tensor([ids + written])).logits[0, -1]
        written.append(int(scores.argmax()))
    return written


def trees() -> list[TokenTree]:
    return [
        grow_tree(prompt, [(head, len(head)) for head in heads])
        for prompt, heads in zip(PROMPTS, HEADS, strict=True)
    ]


def test_each_branch_is_written_as_if_it_were_alone(loaded: Student) -> None:
    found = decode_branches(loaded.model, trees(), greedy, end=0, max_tokens=6)
    for prompt, heads, branches in zip(PROMPTS, HEADS, found, strict=True):
        for head, branch in zip(heads, branches, strict=True):
            whole = alone(loaded, prompt + head, 6)
            expected = whole[: whole.index(0) + 1] if 0 in whole else whole
            assert branch.written == expected


def test_branches_end_one_by_one(loaded: Student) -> None:
    """Those that go on are not disturbed by those that have ended."""
    long = decode_branches(loaded.model, trees(), greedy, end=END, max_tokens=6)

    def cut(branches: Sequence[Branch], scores_NV: Tensor) -> list[int]:
        tokens = greedy(branches, scores_NV)
        return [
            END if len(branch.written) == branch.stem else token
            for branch, token in zip(branches, tokens, strict=True)
        ]

    short = decode_branches(loaded.model, trees(), cut, end=END, max_tokens=6)
    for whole, ended in zip(long, short, strict=True):
        for one, other in zip(whole, ended, strict=True):
            assert other.written == [*one.written[: one.stem], END]


def test_draws_of_a_branch_do_not_see_each_other(loaded: Student) -> None:
    """Each draw is made to begin with another token; it then goes on as if it were alone."""
    first = [70, 71, 72]

    def begin(branches: Sequence[Branch], scores_NV: Tensor) -> list[int]:
        return [
            token if branch.written else first[branch.draw]
            for branch, token in zip(branches, greedy(branches, scores_NV), strict=True)
        ]

    tree = grow_tree(PROMPTS[0], [(head, len(head)) for head in HEADS[0]])
    (found,) = decode_branches(loaded.model, [tree], begin, end=END, max_tokens=5, draws=3)
    assert [branch.stem for branch in found] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    for branch in found:
        head = HEADS[0][branch.stem - 1]
        token = branch.written[0]
        assert branch.written[1:] == alone(loaded, [*PROMPTS[0], *head, token], 4)


@pytest.mark.parametrize("tokens", [1, 2])
def test_no_more_tokens_than_allowed(loaded: Student, tokens: int) -> None:
    found = decode_branches(loaded.model, trees(), greedy, end=END, max_tokens=tokens)
    assert {len(branch.written) for branches in found for branch in branches} == {tokens}
