"""`Grouping`: groups a session's items before a language model names the bundles."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from routedk.errors import SettingError
from routedk.rules import BundleRules
from routedk.types import Answer, Session


class Grouping(Protocol):
    """Makes bundles of a session's items, without asking a language model.

    Threads share one, and so do the copies of a program: one that holds a model defines
    ``__deepcopy__`` to return itself.
    """

    def answer(self, session: Session) -> Answer:
        """Group the items of one session.

        Args:
            session: The session; its gold is not looked at.

        Returns:
            Bundles without intents, in the order of their first items, none where nothing belongs
            together; and the confidence of the whole.
        """
        ...

    def knows(self, titles: Sequence[str]) -> bool:
        """Whether a bundle's titles are like those that were trained on.

        Where they are not, a student that was trained on the same sessions would still answer
        with one of their intents, whatever the items are; so it is not asked.
        """
        ...

    def fingerprint(self) -> str:
        """Return a hash of everything that the bundles depend on besides the session."""
        ...


@runtime_checkable
class RuledGrouping(Grouping, Protocol):
    """A `Grouping` that can choose bundles under a catalogue's rules."""

    def answer_under(self, session: Session, rules: BundleRules | None) -> Answer:
        """As `Grouping.answer`, with bundles that break no rule.

        Args:
            session: The session; its gold is not looked at.
            rules: Of the catalogue.

        Returns:
            Bundles that say what the rules changed in them, and the answer which were lost.

        Raises:
            SettingError: A rule is about what this grouping does not know.
        """
        ...


def ruled(grouping: Grouping | None) -> RuledGrouping:
    """The grouping, as one that takes rules.

    Raises:
        SettingError: There is none, or it cannot.
    """
    if not isinstance(grouping, RuledGrouping):
        found = "the language model states the bundles" if grouping is None else "it takes no rules"
        raise SettingError(
            f"rules: they hold where items are grouped before bundles are named, and here {found}. "
            "Use the packaged bundler, or experts of the answer form bundle-intent"
        )
    return grouping
