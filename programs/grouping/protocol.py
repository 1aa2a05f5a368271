"""`Grouping`: group a session's items before a language model names the bundles."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Protocol

from routedk.errors import SettingError
from routedk.rules import BundleRules
from routedk.types import Answer, Session


class Grouping(Protocol):
    """Groups a session's items into bundles, without asking a language model.

    Threads and the copies of a program share a grouping: one that holds a model defines
    ``__deepcopy__`` to return itself.
    """

    def answer(self, session: Session, rules: BundleRules | None = None) -> Answer:
        """Group the items of one session.

        Args:
            session: The session; its gold is ignored.
            rules: The catalogue's rules, which no bundle breaks; None for no rules.

        Returns:
            Bundles without intents, in the order of their first items, none if nothing belongs
            together; and the overall confidence. Under rules, each bundle says what they changed
            in it, and the answer says which bundles were lost.

        Raises:
            SettingError: A rule is about something that this grouping does not know.
        """
        ...

    def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
        """The intents of labelled bundles with titles like these, with weights that sum to 1.

        Returns:
            Empty if no intent is known. None if the titles are unlike the training titles: a
            student that was trained on the same sessions would answer with one of their intents,
            whatever the items are, so it is not asked.
        """
        ...

    def fingerprint(self) -> str:
        """Return a hash of everything that the bundles depend on besides the session."""
        ...


def ruled(grouping: Grouping | None) -> Grouping:
    """The grouping, once it is known to take rules.

    Raises:
        SettingError: There is none, or its ``answer`` takes none.
    """
    if grouping is None or "rules" not in signature(grouping.answer).parameters:
        found = "the language model states the bundles" if grouping is None else "it takes no rules"
        raise SettingError(
            f"rules: they hold where items are grouped before bundles are named, and here {found}. "
            "Use the packaged bundler, or experts of the answer form bundle-intent"
        )
    return grouping
