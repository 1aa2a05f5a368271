"""Accumulation: merge knowledge bases of several formats and domains into one.

Session ids are distinct only within a data set: many domains have a session ``12``.
Knowledge from another domain is therefore marked with the domain's name before it is merged, so
that none of its thoughts is taken for one of this domain's sessions, and none of its sources for
a test session.
"""

import re
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from routedk.data.knowledge_file import joint_cost
from routedk.errors import SettingError
from routedk.types import KnowledgeBase, Pattern, Provenance, Rule, TeacherAnswer, Thought

_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_Piece = TypeVar("_Piece", Pattern, Rule, Thought, TeacherAnswer)


def is_domain_name(text: str) -> bool:
    """Whether this is a valid domain name: letters, digits, ``_``, ``.`` and ``-``."""
    return _NAME.fullmatch(text) is not None


def of_domain(knowledge: KnowledgeBase, name: str) -> KnowledgeBase:
    """Mark knowledge as another domain's: its session ids become ``NAME:id``.

    Args:
        knowledge: Knowledge from a domain other than the one it will be used for.
        name: The name of that domain.

    Raises:
        SettingError: The name has characters other than letters, digits, ``_``, ``.``, ``-``.
    """
    if not is_domain_name(name):
        raise SettingError(f"domain {name!r}: names are of letters, digits, _, . and -")

    def marked(piece: _Piece) -> _Piece:
        sources = tuple(f"{name}:{session}" for session in piece.provenance.sessions)
        changes: dict[str, Any] = {"provenance": replace(piece.provenance, sessions=sources)}
        if isinstance(piece, Thought | TeacherAnswer):
            changes["session_id"] = f"{name}:{piece.session_id}"
        return replace(piece, **changes)

    return KnowledgeBase(
        patterns=tuple(map(marked, knowledge.patterns)),
        rules=tuple(map(marked, knowledge.rules)),
        thoughts=tuple(map(marked, knowledge.thoughts)),
        answers=tuple(map(marked, knowledge.answers)),
    )


def accumulate(bases: Sequence[KnowledgeBase]) -> KnowledgeBase:
    """Merge knowledge bases, dropping duplicates.

    Patterns with the same categories are duplicates, and so are rules with the same text, ignoring
    case. The merged piece has the numbers and wording of the first, and the sources, tokens and
    costs of all. Of several thoughts or answers for a session, the first is kept unchanged.

    Args:
        bases: In order of precedence; mark knowledge from another domain with `of_domain` first.
    """
    return KnowledgeBase(
        patterns=_once(pattern for base in bases for pattern in base.patterns),
        rules=_once(rule for base in bases for rule in base.rules),
        thoughts=_once(thought for base in bases for thought in base.thoughts),
        answers=_once(answer for base in bases for answer in base.answers),
    )


def _once(pieces: Iterable[_Piece]) -> tuple[_Piece, ...]:
    found: dict[Hashable, list[_Piece]] = {}
    for piece in pieces:
        if isinstance(piece, Pattern):
            found.setdefault(frozenset(piece.categories), []).append(piece)
        elif isinstance(piece, Rule):
            found.setdefault(piece.text.casefold(), []).append(piece)
        else:
            found.setdefault(piece.session_id, [piece])
    return tuple(
        replace(same[0], provenance=joint_provenance([piece.provenance for piece in same]))
        for same in found.values()
    )


def joint_provenance(sources: Sequence[Provenance]) -> Provenance:
    """The provenance of a piece found several times: all teachers, sessions, tokens and costs."""
    teachers = [teacher for source in sources for teacher in source.teacher.split(" + ")]
    return Provenance(
        teacher=" + ".join(dict.fromkeys(teachers)),
        sessions=tuple(dict.fromkeys(name for source in sources for name in source.sessions)),
        prompt_hash=sources[0].prompt_hash,
        tokens=sum(source.tokens for source in sources),
        cost=joint_cost(sources),
    )
