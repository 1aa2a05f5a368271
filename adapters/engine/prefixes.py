"""The prefix cache: the KV cache of what prompts share before their sessions."""

from collections import deque
from collections.abc import Callable

from routedk.adapters.engine.trees import NO_PREFIX, Prefix

# Fewer shared tokens are not worth an entry.
_LEAST = 16
# Entries kept: about as many as one program has prompts.
_KEPT = 4


class PrefixCache:
    """Keeps the KV cache of prefixes that the latest prompts share.

    Memory is bounded: a few entries, none longer than a prompt; the oldest is evicted first.
    """

    def __init__(self) -> None:
        self._entries: deque[Prefix] = deque(maxlen=_KEPT)
        self._seen: deque[tuple[int, ...]] = deque(maxlen=_KEPT)

    def find(self, ids: tuple[int, ...], compute: Callable[[tuple[int, ...]], Prefix]) -> Prefix:
        """The longest cached prefix of these tokens, which do not depend on a session.

        Args:
            ids: The tokens of a prompt before its session.
            compute: Makes an entry for tokens that another prompt began with, too.
        """
        found = max(
            (entry for entry in self._entries if ids[: len(entry.ids)] == entry.ids),
            key=lambda entry: len(entry.ids),
            default=NO_PREFIX,
        )
        shared = max((_shared(ids, other) for other in self._seen), default=0)
        if shared >= len(found.ids) + _LEAST:
            found = compute(ids[:shared])
            self._entries.append(found)
        if ids not in self._seen:
            self._seen.append(ids)
        return found


def _shared(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """The length of the longest common prefix of two sequences."""
    most = min(len(one), len(other))
    return next((place for place in range(most) if one[place] != other[place]), most)
