"""What a teacher is: from training sessions to knowledge in named formats."""

from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, get_args

from routedk.errors import SettingError
from routedk.types import KnowledgeBase, Session

Format: TypeAlias = Literal["pattern", "rule", "thought"]
ALL_FORMATS: tuple[Format, ...] = get_args(Format)


class Teacher(Protocol):
    """Distils knowledge from training sessions."""

    def distill(self, sessions: Sequence[Session]) -> KnowledgeBase:
        """Make the formats that the teacher was asked for, each piece with provenance.

        Args:
            sessions: Training sessions with gold; nothing else may be looked at. Those without
                annotation (``bundles=None``) add nothing.
        """
        ...


def check_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """Formats by name, in their order: patterns, rules, thoughts.

    Raises:
        SettingError: None is given, or one that is no format.
    """
    unknown = [name for name in names if name not in ALL_FORMATS]
    if unknown or not names:
        raise SettingError(
            f"formats {list(names)}: at least one of {', '.join(ALL_FORMATS)}, nothing else"
        )
    return tuple(name for name in ALL_FORMATS if name in names)
