"""Reads a rendered user message back: which part is the session, is a candidate asked about.

The inverse of `routedk.programs.layout.user_content`, for engines that see messages only.
"""

from dataclasses import dataclass

from routedk.programs.layout import CANDIDATE_PREFIX


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    """What a user message asks.

    Args:
        items: The session's item lines as they stand in the message.
        num_items: How many there are; they are numbered from 1.
        candidate: Whether one candidate bundle is to be verified (answer yes or no) rather
            than bundles to be generated.
    """

    items: str
    num_items: int
    candidate: bool


def read_user_content(content: str) -> ReadPrompt | None:
    """Find the session in a user message; None where the message is not of this layout."""
    lines = content.split("\n")
    candidate = len(lines) > 1 and lines[-1].startswith(CANDIDATE_PREFIX)
    if candidate:
        lines.pop()
    start = len(lines)
    while start > 0 and lines[start - 1].split(" ", 1)[0].isdecimal():
        start -= 1
    shown = lines[start:]
    numbered = [line.startswith(f"{number} ") for number, line in enumerate(shown, start=1)]
    if not shown or not all(numbered):
        return None
    return ReadPrompt("\n".join(shown), len(shown), candidate)
