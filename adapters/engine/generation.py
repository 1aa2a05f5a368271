"""Batched, constrained generation with the experts fused per session."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

import torch

from routedk.adapters.engine.branches import Branch, decode_branches
from routedk.adapters.engine.decoding import TokenFilter
from routedk.adapters.engine.drawing import GREEDY, Draw, Pen, Sampling
from routedk.adapters.engine.grammars import (
    THOUGHT_CHARACTERS,
    AnswerGrammar,
    Grammar,
    LabelGrammar,
)
from routedk.adapters.engine.known_prompts import KnownPrompts
from routedk.adapters.engine.kv_cache import Prefix
from routedk.adapters.engine.likelihoods import Scored, ScoringJob, score_jobs
from routedk.adapters.engine.passes import Gating, Row
from routedk.adapters.engine.prefixes import PrefixCache
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.prompts import EncodedPrompt, end_of_turn
from routedk.adapters.student import Student
from routedk.adapters.training.examples import encode_head
from routedk.adapters.trees import grow_tree

__all__ = ["GREEDY", "Completion", "Generator", "Sampling", "Watch"]

_LABEL_TOKENS = 12
_TOKENS_PER_ITEM = 8
# Completions of one prompt in one tree: what a step adds to it every later step looks at.
_TREE_DRAWS = 16

Told = TypeVar("Told")
_One = TypeVar("_One", Sampling, int)


@dataclass(frozen=True, slots=True)
class Completion:
    """What the student wrote.

    Args:
        text: Without the end of turn.
        tokens: Number of new tokens, the end of turn included.
        finished: Whether the end of turn was written.
    """

    text: str
    tokens: int
    finished: bool


@dataclass(frozen=True)
class Watch(Generic[Told]):
    """Follows one answer as it is written, from the thread that writes it.

    Args:
        told: Gets what is written so far.
        given_up: Whether nobody waits for the answer any more: then no more of it is written.
    """

    told: Callable[[Told], None] | None = None
    given_up: Callable[[], bool] = lambda: False


@dataclass
class _Row:
    """A prompt, the beginnings of its branches, and all that write them."""

    prompt: EncodedPrompt
    ids: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]
    pens: list[Pen] = field(default_factory=list)


class Generator:
    """Writes answers with a student, plain or routed.

    Requests of one prompt share its computation, and all requests share what the prompts'
    beginnings have in common.

    Args:
        student: A routed student, or one as it is. Its weights must not change any more.
        prefixes: Keeps the keys and values of prompts; by default one of its own.
    """

    def __init__(
        self, student: RoutedStudent | Student, prefixes: PrefixCache | None = None
    ) -> None:
        self.routed = student if isinstance(student, RoutedStudent) else None
        self.base = student.student if isinstance(student, RoutedStudent) else student
        self.tokenizer: Any = self.base.tokenizer
        self.end = end_of_turn(self.tokenizer)
        self.known = KnownPrompts(
            self.base, self.routed, PrefixCache() if prefixes is None else prefixes
        )

    @property
    def prefixes(self) -> PrefixCache:
        """What keeps the keys and values of prompts."""
        return self.known.prefixes

    @cached_property
    def token_filter(self) -> TokenFilter:
        """What the grammars let through, made on first use."""
        return TokenFilter(self.tokenizer, self.base.model.config.vocab_size, self.end)

    def bundles(
        self,
        prompts: Sequence[EncodedPrompt],
        sizes: Sequence[int],
        sampling: Sampling | Sequence[Sampling] = GREEDY,
        *,
        thinks: bool = False,
        watches: Sequence[Watch[str]] | None = None,
    ) -> list[Completion]:
        """Lines ``1 3 4 | intent``, held to the items of each session, always whole.

        Args:
            prompts: One per session.
            sizes: Number of items of each session.
            sampling: How tokens are drawn; one for all, or one per prompt.
            thinks: Whether a line ``Thought: ...`` may stand first.
            watches: One per prompt, told of the text so far.
        """
        grammars = [AnswerGrammar(size, thinks=thinks) for size in sizes]
        # A token has a character at least, so a thought always ends before its limit.
        more = THOUGHT_CHARACTERS if thinks else 0
        limits = [
            _TOKENS_PER_ITEM * (size + 2) + more * (size + 1) + grammar.ending
            for size, grammar in zip(sizes, grammars, strict=True)
        ]
        return self.complete(prompts, grammars, limits, sampling, watches=watches)

    def complete(
        self,
        prompts: Sequence[EncodedPrompt],
        grammars: Sequence[Grammar | None],
        max_tokens: Sequence[int],
        sampling: Sampling | Sequence[Sampling] = GREEDY,
        *,
        watches: Sequence[Watch[str]] | None = None,
    ) -> list[Completion]:
        """Complete each prompt, within its grammar where it has one.

        Args:
            prompts: At least one.
            grammars: One per prompt; None where any text is an answer.
            max_tokens: New tokens at most, one number per prompt, at least 1.
            sampling: As in `bundles`.
            watches: As in `bundles`.
        """
        pens = [
            [
                Pen(
                    sampling=mine,
                    grammar=grammar,
                    limit=limit,
                    after=None if watches is None else self._text_watch(watches[job]),
                )
            ]
            for job, (grammar, limit, mine) in enumerate(
                zip(grammars, max_tokens, _each(sampling, len(prompts)), strict=True)
            )
        ]
        # The last token of the prompt is what its completions branch off from.
        heads = [(prompt.ids[-1:],) for prompt in prompts]
        written = self._write(prompts, [prompt.ids[:-1] for prompt in prompts], heads, pens)
        return [self._read(stems[0][0].written) for stems in written]

    def item_lines(
        self,
        prompts: Sequence[EncodedPrompt],
        items: Sequence[Sequence[str]],
        sampling: Sampling | Sequence[Sampling] = GREEDY,
        readings: int | Sequence[int] = 1,
        *,
        watches: Sequence[Watch[list[list[Completion]]]] | None = None,
    ) -> list[list[list[Completion]]]:
        """For each session the intent of each item, each written blind to the others.

        Args:
            prompts: One per session.
            items: The item lines of each session.
            sampling: As in `bundles`.
            readings: Answers per item; one number for all, or one per prompt.
            watches: One per prompt, told of the readings of the first items, as soon as all of
                an item's and of those before it are written.

        Returns:
            For each session and item its readings, the likeliest first.
        """
        count = len(prompts)
        likelihoods: dict[tuple[int, int], float] = {}

        def read(stem: Sequence[Branch]) -> list[Completion]:
            ranked = sorted(stem, key=lambda b: (-likelihoods[b.row, b.number], b.number))
            return [self._read(branch.written) for branch in ranked]

        heads = [tuple(encode_head(self.tokenizer, line) for line in lines) for lines in items]
        pens = []
        for job, (mine, wanted) in enumerate(
            zip(_each(sampling, count), _each(readings, count), strict=True)
        ):
            after = None
            if watches is not None:
                after = _lines_watch(watches[job], wanted, read)
            pens.append(
                [
                    Pen(
                        sampling=mine,
                        grammar=LabelGrammar(),
                        limit=_LABEL_TOKENS,
                        rank=rank,
                        after=after,
                    )
                    for rank in range(wanted)
                ]
            )
        shared = [prompt.ids for prompt in prompts]
        written = self._write(prompts, shared, heads, pens, likelihoods)
        return [[read(stem) for stem in stems] for stems in written]

    def score(self, jobs: Sequence[ScoringJob]) -> list[Scored]:
        """The likelihoods of given completions, each session's under its own gates."""
        prompts = [job.prompt for job in jobs]
        gating = self.known.gating(prompts)
        return score_jobs(self.base.model, jobs, self.known.read(prompts, gating), gating)

    @torch.inference_mode()
    def _write(
        self,
        prompts: Sequence[EncodedPrompt],
        ids: Sequence[tuple[int, ...]],
        heads: Sequence[tuple[tuple[int, ...], ...]],
        pens: Sequence[Sequence[Pen]],
        likelihoods: dict[tuple[int, int], float] | None = None,
    ) -> list[list[list[Branch]]]:
        """Write on from the beginnings of branches of prompts.

        Args:
            prompts: What the gates come from.
            ids: The part of each prompt that its branches have in common.
            heads: The beginnings of each prompt's branches.
            pens: What writes on from each of these beginnings.
            likelihoods: Gets the log-likelihood of each branch, by its row and number.

        Returns:
            For each prompt and beginning what the pens wrote.
        """
        rows: list[_Row] = []
        latest: dict[Any, int] = {}
        places = []
        for prompt, shared, mine, writers in zip(prompts, ids, heads, pens, strict=True):
            key = (prompt, mine)
            place = latest.get(key)
            if place is None or len(rows[place].pens) + len(writers) > _TREE_DRAWS:
                place = latest[key] = len(rows)
                rows.append(_Row(prompt, shared, mine))
            places.append((place, len(rows[place].pens)))
            rows[place].pens += writers
        draw = Draw(self.token_filter, [row.pens for row in rows], likelihoods)
        trees = [grow_tree(row.ids, [(head, len(head)) for head in row.heads]) for row in rows]
        asked = [row.prompt for row in rows]
        # In lower precision what was read together, and when, changes scores, and a draw with them.
        seeded = any(pen.sampling.seed is not None for writers in pens for pen in writers)
        whole = self.known.exact or not seeded
        gating = self.known.gating(asked)
        known = self._known(rows, gating) if whole else [None] * len(rows)

        def keep(tree: int, made: Row) -> None:
            row, before = rows[tree], known[tree]
            if whole and (before is None or len(before.ids) < len(row.ids)):
                self.known.keep(row.prompt, row.ids, made)

        branches = decode_branches(
            self.base.model,
            trees,
            draw,
            end=self.end,
            max_tokens=max(pen.limit for writers in pens for pen in writers),
            draws=[len(row.pens) for row in rows],
            prefixes=known,
            gating=gating,
            goes_on=draw.goes_on,
            told=keep,
        )
        found = []
        for (place, first), writers in zip(places, pens, strict=True):
            step, last = len(rows[place].pens), first + len(writers)
            mine_all = branches[place]
            stems = [mine_all[k : k + step] for k in range(0, len(mine_all), step)]
            found.append([stem[first:last] for stem in stems])
        return found

    def _known(self, rows: Sequence[_Row], gating: Gating) -> list[Prefix | None]:
        """What is known of each row's prompt; one that several rows have is read here, once."""
        counts = Counter(row.prompt for row in rows)
        shared = {row.prompt: k for k, row in enumerate(rows) if counts[row.prompt] > 1}
        places = list(shared.values())
        read = self.known.read([*shared], lambda mine: gating([places[k] for k in mine]))
        found = dict(zip(shared, read, strict=True))
        return [
            found[row.prompt]
            if row.prompt in found
            else self.known.find(row.prompt, row.ids if row.heads else row.ids[:-1])
            for row in rows
        ]

    def _text_watch(self, watch: Watch[str]) -> Callable[[Branch, bool], bool]:
        def after(branch: Branch, finished: bool) -> bool:
            if watch.told is not None:
                text = self._read(branch.written).text
                # A character that takes several tokens is shown when it is whole.
                if finished or not text.endswith("\ufffd"):
                    watch.told(text)
            return not watch.given_up()

        return after

    def _read(self, row: list[int]) -> Completion:
        finished = self.end in row
        written = row[: row.index(self.end)] if finished else row
        text = self.tokenizer.decode(
            written, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return Completion(text, len(written) + finished, finished)


def _each(values: "_One | Sequence[_One]", count: int) -> "Sequence[_One]":
    return values if isinstance(values, Sequence) else [values] * count


def _lines_watch(
    watch: Watch[list[list[Completion]]],
    readings: int,
    read: Callable[[Sequence[Branch]], list[Completion]],
) -> Callable[[Branch, bool], bool]:
    done: dict[int, list[Branch]] = {}
    shown = 0

    def after(branch: Branch, finished: bool) -> bool:
        nonlocal shown
        if finished and watch.told is not None:
            done.setdefault(branch.stem, []).append(branch)
            whole = shown
            while len(done.get(whole + 1, ())) == readings:
                whole += 1
            if whole > shown:
                shown = whole
                watch.told([read(done[stem]) for stem in range(1, whole + 1)])
        return not watch.given_up()

    return after
