"""A student that writes completions of many prompts at once."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import accumulate
from typing import Any

import torch

from routedk.adapters.engine.grammar import TokenFilter
from routedk.adapters.engine.prefixes import PrefixCache
from routedk.adapters.engine.trees import Gating, Tree, TreeBatch
from routedk.adapters.engine.writing import Branch, Writing, write_tokens
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import SoftmaxRouter
from routedk.adapters.prompts import end_of_turn
from routedk.adapters.student import Student

# Maximum tokens read in one forward pass, padding included; a longer prompt is read alone.
_READ = 2048


class Generator:
    """Writes with a student, plain or routed; shared prompt prefixes are computed once.

    Args:
        student: Its weights must no longer change.
    """

    def __init__(self, student: RoutedStudent | Student) -> None:
        self.routed = student if isinstance(student, RoutedStudent) else None
        self.base = student.student if isinstance(student, RoutedStudent) else student
        self.tokenizer: Any = self.base.tokenizer
        end, width = end_of_turn(self.tokenizer), self.base.model.config.vocab_size
        self.token_filter = TokenFilter(self.tokenizer, width, end)
        self.prefixes = PrefixCache()

    def write(self, jobs: Sequence[Writing]) -> list[list[Branch]]:
        """Write the lines of each job, in order. Only one thread at a time may call this."""
        trees: dict[Any, Tree] = {}
        written = []
        for job in jobs:
            key = (job.prompt, job.heads)
            written.append(trees.setdefault(key, Tree(len(trees), *key)).sprout(job))
        rows = [*trees.values()]
        with torch.inference_mode():
            gating = self.prepare(rows)
            for some in _alike(rows):
                self._grow(some, gating)
        return written

    def prepare(self, trees: Sequence[Tree]) -> Gating:
        """Route prompts and look up their prefixes; returns what sets the gates of rows."""
        routed = self.routed
        gating: Gating = nullcontext  # A student without experts has no gates.
        if routed is not None:
            gating = routed.gating([tree.prompt for tree in trees])
            alike = not isinstance(routed.fusion, SoftmaxRouter)
            if not alike and routed.settings.experts_from != "session":
                # What precedes a session is computed with gates that depend on the session.
                return gating
        for tree in trees:
            beginning = tree.prompt.ids[: tree.prompt.span[0]]
            compute = TreeBatch(self.base.model, gating, [tree]).prefix
            tree.prefix = self.prefixes.find(beginning, compute)
        return gating

    def _grow(self, trees: Sequence[Tree], gating: Gating) -> None:
        """Write the branches of trees that share a prefix until they end."""
        batch = TreeBatch(self.base.model, gating, trees)
        nodes, ends = zip(*(tree.nodes() for tree in trees), strict=True)
        columns = [tree.branches for tree in trees]
        firsts = accumulate(map(len, ends), initial=0)
        places = [first + b.line for first, row in zip(firsts, columns, strict=False) for b in row]
        scores_NV = batch.read(nodes, ends)[places]
        while columns:
            branches = [branch for row in columns for branch in row]
            write_tokens(branches, scores_NV, self.token_filter)
            columns = [[branch for branch in row if branch.under_way] for row in columns]
            columns = [row for row in columns if row]
            if columns:
                batch.keep([row[0].row for row in columns])
                scores_NV = batch.read([[Tree.last(branch) for branch in row] for row in columns])


def _alike(trees: Sequence[Tree]) -> Iterator[list[Tree]]:
    """Trees to compute together: they have the same prefix and similar sizes."""
    group: list[Tree] = []
    for tree in sorted(trees, key=lambda tree: (id(tree.prefix), tree.size)):
        full = tree.size * (len(group) + 1) > _READ
        if group and (full or tree.prefix is not group[0].prefix):
            yield group
            group = []
        group.append(tree)
    yield group
