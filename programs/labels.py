"""What a student learns from: annotators' gold, a teacher's answers, or both."""

import random
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass, field, replace
from itertools import chain
from typing import Any, Literal, TypeAlias

from routedk.data.policies import is_telling
from routedk.errors import DataError
from routedk.types import Bundle, KnowledgeBase, Session

Labels: TypeAlias = Literal["gold", "teacher", "both"]


@dataclass(frozen=True, kw_only=True)
class Labelled:
    """A session with its labels.

    Args:
        session: Without bundles, so that none is used by mistake.
        gold: Annotators' bundles; None if it is not annotated.
        teacher: A teacher's bundles; None if it gave no answer.
        teacher_weight: Weight of the teacher's bundles if there are both, in [0, 1].
        item_intents: Item id to the intent that the teacher names for it.
    """

    session: Session
    gold: tuple[Bundle, ...] | None = None
    teacher: tuple[Bundle, ...] | None = None
    teacher_weight: float = 0.5
    item_intents: Mapping[str, str] = field(default_factory=dict)

    @property
    def record(self) -> dict[str, Any]:
        """Everything that is learned from it, for hashing."""
        return {**asdict(self), "session": self.session.toDict()}

    @property
    def labels(self) -> list[tuple[tuple[Bundle, ...], float]]:
        """Each label with its weight; weights sum to 1."""
        stated = ((self.gold, 1 - self.teacher_weight), (self.teacher, self.teacher_weight))
        known = [(bundles, weight) for bundles, weight in stated if bundles is not None]
        return known if len(known) == len(stated) else [(bundles, 1.0) for bundles, _ in known]

    @property
    def sessions(self) -> list[Session]:
        """The session once per label, with the label as its bundles."""
        return [replace(self.session, bundles=bundles) for bundles, _ in self.labels]


def choose_labels(
    sessions: Sequence[Session],
    knowledge: KnowledgeBase,
    labels: Labels = "both",
    teacher_weight: float = 0.5,
) -> list[Labelled]:
    """Collect the labels of training sessions.

    Args:
        sessions: Training sessions, with or without gold.
        knowledge: Holds the teacher's answers; one with its own items is an additional session.
        labels: ``gold``, ``teacher``, or ``both``: whichever of the two a session has.
        teacher_weight: As in `Labelled`.

    Returns:
        The labelled sessions, in order, then those that came with the teacher's answers.

    Raises:
        DataError: No label has a bundle.
    """
    answers = {one.session_id: one for one in knowledge.answers} if labels != "gold" else {}
    own = [Session(one.session_id, one.items) for one in answers.values() if one.items]
    found = []
    for session in [*sessions, *own]:
        answer = answers.get(session.id)
        gold = session.bundles if labels != "teacher" else None
        if gold is not None or answer is not None:
            found.append(
                Labelled(
                    session=replace(session, bundles=None),
                    gold=gold,
                    teacher=None if answer is None else answer.bundles,
                    teacher_weight=teacher_weight,
                    item_intents={} if answer is None else answer.item_intents,
                )
            )
    if not any(bundles for one in found for bundles, _ in one.labels):
        what = {"gold": "a gold bundle", "teacher": "a bundle of a teacher", "both": "a bundle"}
        raise DataError(
            f"none of {len(sessions)} training sessions has {what[labels]}",
            hint="annotate some, or let routedk distill ask a teacher and give its knowledge",
        )
    return found


def compose_sessions(sessions: Sequence[Session], count: int, seed: int) -> list[Labelled]:
    """Compose sessions of items that nobody viewed together, labelled as empty.

    Args:
        sessions: The source of the items, one from each, and of the sizes; at least two.
        count: How many to compose; one whose items are all the same is left out.
        seed: Seed of all randomness.
    """
    draw = random.Random(seed)
    composed = []
    for number in range(count):
        size = min(len(draw.choice(sessions).items), len(sessions))
        items = [draw.choice(one.items) for one in draw.sample(list(sessions), max(2, size))]
        distinct = {item.id: item for item in items}
        if len(distinct) > 1:
            session = Session(f"composed-{number}", tuple(distinct.values()))
            composed.append(Labelled(session=session, teacher=()))
    return composed


def telling_items(labelled: Sequence[Labelled]) -> list[Labelled]:
    """Drop items whose titles do not say what they are.

    Bundles and sessions with fewer than two remaining items are dropped, too.
    """
    found = []
    for one in labelled:
        items = tuple(item for item in one.session.items if is_telling(item.title))
        kept = {item.id for item in items}
        gold, teacher = _cut(one.gold, kept), _cut(one.teacher, kept)
        if len(items) > 1 and (gold is not None or teacher is not None):
            session = replace(one.session, items=items)
            found.append(replace(one, session=session, gold=gold, teacher=teacher))
    return found


def _cut(bundles: tuple[Bundle, ...] | None, kept: AbstractSet[str]) -> tuple[Bundle, ...] | None:
    """A label reduced to the kept items; None if it loses all its bundles: it says nothing."""
    left = []
    for bundle in bundles or ():
        if len(ids := tuple(name for name in bundle.item_ids if name in kept)) > 1:
            left.append(replace(bundle, item_ids=ids))
    return tuple(left) if left or bundles == () else None


def bundle_places(session: Session, bundles: Sequence[Bundle]) -> list[frozenset[int]]:
    """Bundles as positions of items in the session, counted from 0."""
    places = {item.id: place for place, item in enumerate(session.items)}
    return [frozenset(places[name] for name in bundle.item_ids) for bundle in bundles]


def titles_of(labelled: Sequence[Labelled]) -> list[str]:
    """All distinct titles, sorted."""
    return sorted(
        {item.title for item in chain.from_iterable(one.session.items for one in labelled)}
    )
