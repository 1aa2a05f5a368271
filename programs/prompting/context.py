"""The knowledge in a prompt: patterns, rules and similar training sessions."""

from dataclasses import dataclass

from routedk.types import Pattern, Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A training session shown with its gold bundles.

    Args:
        session: The training session; its ``bundles`` are its gold.
        thought: Why they are bundles; empty shows none.
    """

    session: Session
    thought: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptContext:
    """The knowledge in one prompt.

    Args:
        patterns: Patterns, in the order shown, between the instruction and the rules.
        rules: Rules, in the order shown, at the end of the system message.
        neighbours: Similar training sessions, in the order shown, each a complete user and
            assistant turn.
    """

    patterns: tuple[Pattern, ...] = ()
    rules: tuple[str, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()


NO_CONTEXT = PromptContext()
