"""What was said about one session."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from routedk.programs.aicl.lessons import Turn
from routedk.programs.prompting.answers import ParsedAnswer
from routedk.programs.prompting.layout import Fields, demo_fields
from routedk.types import Bundle, Session


@dataclass(kw_only=True)
class Dialogue:
    """Questions and answers about one session; for one thread.

    Args:
        session: What it is about; its gold is not looked at.
        rules: Block of rules in the system message; empty for none.
        demos: Turns about other sessions, before the first question.
        intent_demos: Bundles of other sessions with their inferred intents.
        turns: What was asked and could be read.
        read: The last answer that could be read; None before one.
        raw: That answer as written; before one, the last answer of any kind.
        error: Why the last answer could not be read; None where it could.
        intents: Intents inferred so far, by item set.
    """

    session: Session
    rules: str = ""
    demos: Sequence[Fields] = ()
    intent_demos: Sequence[Fields] = ()
    turns: list[Turn] = field(default_factory=list)
    read: ParsedAnswer | None = None
    raw: str = ""
    error: str | None = None
    intents: dict[frozenset[str], str] = field(default_factory=dict)

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        """The last bundles read; one stated without an intent has the inferred one, if any."""
        stated = self.read.bundles if self.read else ()
        return tuple(
            bundle if bundle.intent else replace(bundle, intent=self.intents.get(bundle.items, ""))
            for bundle in stated
        )

    @property
    def item_sets(self) -> frozenset[frozenset[str]]:
        """The last bundles read, as item sets."""
        return frozenset(bundle.items for bundle in self.bundles)


def as_demos(session: Session, turns: Sequence[Turn]) -> list[Fields]:
    """Turns about one session, to be rendered by the layout in front of a question."""
    return [demo_fields(session, turn.answer, similar=turn.question) for turn in turns]
