"""Keys and values of prompts, and of what they begin with in common, kept between requests."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from routedk.adapters.engine.kv_cache import Prefix
from routedk.errors import SettingError

DEFAULT_BYTES = 512 * 2**20

_LEAST = 16
_SEEN = 64


class PrefixCache:
    """Keys and values of prompts and their beginnings, bounded in memory, for many threads.

    Beginnings are known by their content: a family (what else the keys and values depend on:
    model and gates) and token ids. Of a beginning that is new all is kept; of one that begins
    like another but goes on differently, what they have in common. Whole prompts, which are asked
    about again soon or never, are kept beside them as long as there is room.

    Args:
        max_bytes: Most memory of keys and values, at least 0; 0 keeps nothing. Prompts go before
            beginnings, and of each what was used least recently goes first.

    Attributes:
        computed: Tokens of common beginnings that were computed to be kept.
        reused: Tokens of common beginnings that needed not be computed.

    Raises:
        SettingError: A value is not allowed.
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        if max_bytes < 0:
            raise SettingError(f"prefix_bytes={max_bytes}: must be at least 0")
        self.max_bytes = max_bytes
        self.computed = 0
        self.reused = 0
        self._held: OrderedDict[tuple[Hashable, tuple[int, ...]], Prefix] = OrderedDict()
        self._prompts: OrderedDict[Hashable, Prefix] = OrderedDict()
        self._seen: OrderedDict[tuple[Hashable, tuple[int, ...]], None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Memory of what is held."""
        with self._lock:
            return self._bytes()

    def find(
        self,
        family: Hashable,
        ids: Sequence[int],
        compute: Callable[[tuple[int, ...], Prefix | None], Prefix],
    ) -> Prefix | None:
        """What is known of a prompt's beginning, computed now where that pays.

        Args:
            family: What keys and values depend on beside the tokens.
            ids: The tokens that may be shared with other prompts.
            compute: Computes tokens, the first of which are known already.

        Returns:
            Keys and values of the first of these tokens; None where none are known.
        """
        wanted = tuple(ids)
        if not self.max_bytes or len(wanted) < _LEAST:
            return None
        with self._lock:
            known = self._longest(family, wanted)
            worth = self._worth(family, wanted)
        covered = 0 if known is None else len(known.ids)
        if worth > covered:
            with self._lock:
                self.computed += worth - covered
            known = compute(wanted[:worth], known)
            with self._lock:
                self._keep(family, known)
        with self._lock:
            self.reused += covered
        return known

    def prompt(self, key: Hashable) -> Prefix | None:
        """What is kept of a prompt.

        Args:
            key: All that its keys and values depend on.
        """
        with self._lock:
            found = self._prompts.get(key)
            if found is not None:
                self._prompts.move_to_end(key)
        return found

    def keep_prompt(self, key: Hashable, prefix: Prefix) -> None:
        """Keep what was computed of a prompt, where there is room beside the beginnings."""
        with self._lock:
            if prefix.bytes + sum(held.bytes for held in self._held.values()) > self.max_bytes:
                return
            self._prompts[key] = prefix
            self._prompts.move_to_end(key)
            self._make_room()

    def _longest(self, family: Hashable, ids: tuple[int, ...]) -> Prefix | None:
        found, tokens = None, _LEAST - 1
        for key in self._held:
            if key[0] == family:
                shared = _shared(key[1], ids)
                if shared > tokens:
                    found, tokens = key, shared
        if found is None:
            return None
        self._held.move_to_end(found)
        return self._held[found].first(tokens)

    def _worth(self, family: Hashable, ids: tuple[int, ...]) -> int:
        """How many of these tokens other prompts may begin with, too."""
        shared = [_shared(other, ids) for known, other in self._seen if known == family]
        self._seen[family, ids] = None
        self._seen.move_to_end((family, ids))
        if len(self._seen) > _SEEN:
            self._seen.popitem(last=False)
        most = max(shared, default=0)
        return most if most >= _LEAST else len(ids)

    def _keep(self, family: Hashable, prefix: Prefix) -> None:
        if prefix.bytes > self.max_bytes:
            return
        within = [
            key for key in self._held if key[0] == family and prefix.ids[: len(key[1])] == key[1]
        ]
        for key in within:
            del self._held[key]
        self._held[family, prefix.ids] = prefix
        self._make_room()

    def _make_room(self) -> None:
        while self._bytes() > self.max_bytes:
            (self._prompts or self._held).popitem(last=False)

    def _bytes(self) -> int:
        kept = (*self._held.values(), *self._prompts.values())
        return sum(prefix.bytes for prefix in kept)


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """How many tokens two sequences begin with alike."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return next(place for place in range(most) if one[place] != other[place])
