"""What of prompts is known before they are read, and what keys and values depend on."""

from collections.abc import Hashable, Sequence

import torch

from routedk.adapters.engine.branches import compute_prefixes
from routedk.adapters.engine.kv_cache import Prefix
from routedk.adapters.engine.passes import Gating, Row, no_gates
from routedk.adapters.engine.prefixes import PrefixCache
from routedk.adapters.experts.routed import RoutedStudent
from routedk.adapters.experts.router import FixedFusion, StaticFusion
from routedk.adapters.experts.sparsegen import SparsegenRouter
from routedk.adapters.prompts import EncodedPrompt
from routedk.adapters.student import Student


class KnownPrompts:
    """Keys and values of one student's prompts, and of what these begin with in common.

    Args:
        base: The student; its weights must not change any more.
        routed: The same with its experts; None for the student as it is.
        prefixes: Keeps the keys and values.
    """

    def __init__(self, base: Student, routed: RoutedStudent | None, prefixes: PrefixCache) -> None:
        self.base = base
        self.routed = routed
        self.prefixes = prefixes
        self.exact = base.model.dtype in (torch.float32, torch.float64)
        self._fusion: tuple[object, str] | None = None

    def gating(self, prompts: Sequence[EncodedPrompt]) -> Gating:
        """Sets the gates of any of these prompts."""
        return no_gates if self.routed is None else self.routed.gating(prompts)

    def find(self, prompt: EncodedPrompt, ids: tuple[int, ...]) -> Prefix | None:
        """What is known of a prompt, or of what stands before its session.

        Args:
            prompt: The prompt.
            ids: Its first tokens, of which that may be.
        """
        if (known := self.prefixes.prompt(self._key(prompt))) is not None:
            return known.first(min(len(ids), len(known.ids)))
        family = self._family()
        if family is None:
            return None

        def compute(wanted: tuple[int, ...], known: Prefix | None) -> Prefix:
            return compute_prefixes(self.base.model, [wanted], [known], self.gating([prompt]))[0]

        return self.prefixes.find(family, ids[: prompt.span[0]], compute)

    def keep(self, prompt: EncodedPrompt, ids: tuple[int, ...], made: Row) -> None:
        """Keep what a pass made of a prompt's first tokens, which these are."""
        if self.prefixes.max_bytes:
            self.prefixes.keep_prompt(self._key(prompt), made.prompt(ids))

    def read(self, prompts: Sequence[EncodedPrompt], gating: Gating) -> list[Prefix | None]:
        """The keys and values of prompts but for their last tokens, computed where need be.

        Args:
            prompts: Any number; the same one may be there several times.
            gating: Of these prompts.

        Returns:
            One for each; None for a prompt of one token.
        """
        first = {prompt: place for place, prompt in reversed(list(enumerate(prompts)))}
        known = {prompt: self.find(prompt, prompt.ids[:-1]) for prompt in first}
        missing = [
            prompt
            for prompt, prefix in known.items()
            if len(prompt.ids) - 1 > (0 if prefix is None else len(prefix.ids))
        ]
        if missing:
            found = compute_prefixes(
                self.base.model,
                [prompt.ids[:-1] for prompt in missing],
                [known[prompt] for prompt in missing],
                lambda places: gating([first[missing[place]] for place in places]),
            )
            for prompt, prefix in zip(missing, found, strict=True):
                known[prompt] = prefix
                self.prefixes.keep_prompt(self._key(prompt), prefix)
        return [known[prompt] for prompt in prompts]

    def _key(self, prompt: EncodedPrompt) -> Hashable:
        """What the keys and values of all of a prompt depend on: its gates are its own."""
        return (prompt, self._student())

    def _family(self) -> Hashable | None:
        """What keys and values before a session depend on beside the tokens.

        None where they depend on the session: experts active there by gates of its own.
        """
        if self.routed is None or self.routed.settings.experts_from == "session":
            return (self.base.fingerprint, str(self.base.model.dtype))
        if isinstance(self.routed.fusion, FixedFusion | StaticFusion | SparsegenRouter):
            return self._student()
        return None

    def _student(self) -> Hashable:
        """What keys and values depend on beside the prompt."""
        base = (self.base.fingerprint, str(self.base.model.dtype))
        if self.routed is None:
            return base
        fusion, start = self.routed.fusion, self.routed.settings.experts_from
        if self._fusion is None or self._fusion[0] is not fusion:
            self._fusion = (fusion, self.routed.fingerprint())
        return (*base, self._fusion[1], start)
