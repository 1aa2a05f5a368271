"""`Grouping`: groups a session's items before a language model names the bundles."""

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Protocol

from routedk.errors import SettingError
from routedk.rules import BundleRules
from routedk.types import Answer, Session


class Grouping(Protocol):
    """Makes bundles of a session's items, without asking a language model.

    Threads share one, and so do the copies of a program: one that holds a model defines
    ``__deepcopy__`` to return itself.
    """

    def answer(self, session: Session, rules: BundleRules | None = None) -> Answer:
        """Group the items of one session.

        Args:
            session: The session; its gold is not looked at.
            rules: Of the catalogue, which no bundle breaks; None for none.

        Returns:
            Bundles without intents, in the order of their first items, none where nothing belongs
            together; and the confidence of the whole. Under rules, bundles say what these changed
            in them, and the answer which were lost.

        Raises:
            SettingError: A rule is about what this grouping does not know.
        """
        ...

    def known_intents(self, titles: Sequence[str]) -> Mapping[str, float] | None:
        """The intents of labelled bundles with titles like these, with weights that sum to 1.

        Returns:
            Empty where no intent is known. None where the titles are unlike those that were trained
            on: a student that was trained on the same sessions would still answer with one of their
            intents, whatever the items are; so it is not asked.
        """
        ...

    def fingerprint(self) -> str:
        """Return a hash of everything that the bundles depend on besides the session."""
        ...


def ruled(grouping: Grouping | None) -> Grouping:
    """The grouping, as one that takes rules.

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
