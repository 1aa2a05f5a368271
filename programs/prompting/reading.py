"""Reads a rendered user message back: which part of it is the session.

For engines that do not read `routedk.programs.prompting.asked.asked_items` yet.
"""


def session_lines(content: str) -> str | None:
    """The session's item lines in a user message; None where it is not of this layout."""
    lines = content.split("\n")
    start = len(lines)
    while start > 0 and lines[start - 1].split(" ", 1)[0].isdecimal():
        start -= 1
    shown = lines[start:]
    numbered = [line.startswith(f"{number} ") for number, line in enumerate(shown, start=1)]
    return "\n".join(shown) if shown and all(numbered) else None
