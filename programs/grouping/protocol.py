"""What groups a session's items before a language model names the bundles."""

from typing import Protocol

from routedk.types import Answer, Session


class Grouping(Protocol):
    """From a session's items alone to its bundles.

    Threads share one, and so do the copies of a program: one that holds a model defines
    ``__deepcopy__`` to return itself.
    """

    def answer(self, session: Session) -> Answer:
        """Group the items of one session.

        Args:
            session: The session; its gold is not looked at.

        Returns:
            Bundles without intents, by their first items' numbers, and none where nothing belongs
            together; the confidence in all of them.
        """
        ...

    def fingerprint(self) -> str:
        """A hash of everything that the bundles depend on besides the session."""
        ...
