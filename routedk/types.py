"""RouteDK's data as immutable types; files that hold them are validated by the annotations."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from math import inf
from typing import Annotated, Any, Literal, TypeAlias

from annotated_types import Ge, Interval, MinLen

from routedk.errors import DataError

Kind: TypeAlias = Literal["complements", "alternatives", "mixed"]
Share = Annotated[float, Interval(ge=0, le=1)]
NotEmpty = Annotated[str, MinLen(1)]


class _Plain:
    """How DSPy serializes a dataclass to its files."""

    __slots__ = ()

    def toDict(self: Any) -> dict[str, Any]:
        """The fields as JSON-serializable values."""
        hidden = ("_index", "image")
        return asdict(self, dict_factory=lambda found: {k: v for k, v in found if k not in hidden})


@dataclass(frozen=True, slots=True)
class Item(_Plain):
    """One item of a session.

    Args:
        id: Identifier, unique within its session.
        title: Title as shown to the shopper; empty if the catalogue has none.
        categories: Category path from general to specific, e.g. ``("Electronics", "Camera")``.
        price: Price in the catalogue's currency, or None if unknown.
        image: URL of a picture shown to people; it affects no prompt and no answer.
    """

    id: str
    title: str
    categories: tuple[str, ...] = ()
    price: Annotated[float, Interval(gt=-inf, lt=inf)] | None = None
    image: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation(_Plain):
    """Why items form a bundle, in known facts about them.

    Args:
        ties: Ids of its two closest items.
        rule: The rule of the program's knowledge that shares the most words with the titles, at
            least two, from at least two items; empty if there is none.
        similar: Id of the training session with the nearest labelled bundle that shares as many;
            empty if there is none.
        similar_intent: The intent of that bundle.
        sentence: One sentence that names only items of the bundle.
    """

    ties: tuple[str, str]
    rule: str = ""
    similar: str = ""
    similar_intent: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True)
class Bundle(_Plain):
    """A set of at least two items of one session and the intent that ties them.

    Args:
        item_ids: Distinct item ids, in the order they were given.
        intent: What the shopper wants with them; may be empty.
        kind: complements are bought together, alternatives compared to choose one; None if
            unknown.
        why: One sentence on why they belong together; may be empty.
        confidence: How much of a reference bundle it is expected to match; None if unknown.
        kind_confidence: Probability of its kind; None if unknown.
        changed: What a catalogue's rules changed in it, each change with its reason.
        explanation: Why it is a bundle; its sentence is ``why``. None if not requested.

    Raises:
        DataError: It has fewer than two items, or an item twice.
    """

    item_ids: tuple[str, ...]
    intent: str = ""
    kind: Kind | None = None
    why: str = ""
    confidence: Share | None = None
    kind_confidence: Share | None = None
    changed: tuple[str, ...] = ()
    explanation: Explanation | None = None

    def __post_init__(self) -> None:
        if len(self.item_ids) < 2:
            raise DataError(f"a bundle has {list(self.item_ids)}: it needs at least two items")
        if len(set(self.item_ids)) != len(self.item_ids):
            raise DataError(f"a bundle names an item twice: {list(self.item_ids)}")

    @property
    def items(self) -> frozenset[str]:
        """The items as a set, which is what evaluation compares."""
        return frozenset(self.item_ids)


@dataclass(frozen=True, slots=True)
class Session(_Plain):
    """The items one shopper looked at together, with gold bundles if they are known.

    Args:
        id: Identifier, unique within its data set.
        items: At least one item, ids distinct.
        bundles: Gold bundles; empty for "no bundle found"; None if it is not annotated.

    Raises:
        DataError: It has no items, an item id twice, or a bundle with items that it lacks.
    """

    id: str
    items: tuple[Item, ...]
    bundles: tuple[Bundle, ...] | None = None
    _index: dict[str, Item] = field(init=False, repr=False, compare=False, hash=False)

    def __post_init__(self) -> None:
        index = {item.id: item for item in self.items}
        if not index:
            raise DataError(f"session {self.id!r} has no items")
        if len(index) != len(self.items):
            raise DataError(f"session {self.id!r} has an item id twice")
        for bundle in self.bundles or ():
            foreign = bundle.items - index.keys()
            if foreign:
                raise DataError(
                    f"session {self.id!r}: a bundle names {sorted(foreign)}, not in the session"
                )
        object.__setattr__(self, "_index", index)

    def __str__(self) -> str:
        """The items as numbered lines, without gold, as DSPy compares and shows a session."""
        titles = (" ".join(item.title.split()) for item in self.items)
        return "\n".join(f"{number} {title}" for number, title in enumerate(titles, start=1))

    def item(self, item_id: str) -> Item:
        """The item with this id.

        Raises:
            DataError: The session has no such item.
        """
        try:
            return self._index[item_id]
        except KeyError:
            raise DataError(f"session {self.id!r} has no item {item_id!r}") from None

    def number(self, item_id: str) -> int:
        """The item's number in prompts: its position in the session, counted from 1."""
        return self.items.index(self.item(item_id)) + 1

    @property
    def gold(self) -> list[frozenset[str]]:
        """Gold bundles as item sets; empty if there are none."""
        return [bundle.items for bundle in self.bundles or ()]


@dataclass(frozen=True, slots=True)
class Answer:
    """The bundles predicted for one session, with what was dropped and the tokens used.

    Args:
        session_id: The session.
        bundles: Distinct bundles of its items, in the answer's order.
        error: Why the student's text could not be read; empty if it could.
        dropped: The parts of the answer that were not used, one description each.
        input_tokens: Tokens of the prompts.
        output_tokens: Tokens of the completions.
        item_intents: The intents of each item, in item order; empty if the student named none.
        confidence: Confidence in the answer as a whole, bundles or none; None if unknown.
        changed: Items that a catalogue's rules left in no bundle, each with the reason.
    """

    session_id: str
    bundles: tuple[Bundle, ...] = ()
    error: str = ""
    dropped: tuple[str, ...] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    item_intents: tuple[tuple[str, ...], ...] = ()
    confidence: Share | None = None
    changed: tuple[str, ...] = ()

    @property
    def items(self) -> list[frozenset[str]]:
        """The bundles as item sets, which is what evaluation compares."""
        return [bundle.items for bundle in self.bundles]


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who made a piece of knowledge, from what, and at what cost.

    Args:
        teacher: Name of the teacher, e.g. ``annotation`` or a LiteLLM model name.
        sessions: Ids of the sessions it was made from.
        prompt_hash: Hash of the teacher's prompt; empty for a teacher without one.
        tokens: Tokens the teacher read and wrote.
        cost: Cost in US dollars; None if the price is unknown.
    """

    teacher: NotEmpty
    sessions: tuple[str, ...] = ()
    prompt_hash: str = ""
    tokens: Annotated[int, Ge(0)] = 0
    cost: Annotated[float, Interval(ge=0, le=1e12)] | None = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """Categories that are often bundled together.

    Args:
        categories: At least two category names.
        support: Share of training bundles that hold all of them, in [0, 1].
        confidence: Largest P(rest | one of them) over its members, in [0, 1].
        lift: Support over the product of the members' supports; above 1 means attraction.
        provenance: Where it comes from.
    """

    categories: Annotated[tuple[str, ...], MinLen(2)]
    support: Share
    confidence: Share
    lift: Annotated[float, Interval(ge=0, lt=inf)]
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """High-level knowledge: one sentence that holds for many sessions."""

    text: NotEmpty
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class Thought:
    """Fine-grained knowledge: why the items of this session form its bundles."""

    session_id: NotEmpty
    text: NotEmpty
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherAnswer:
    """A teacher's bundles for one session, made without its gold: a label to train on.

    Args:
        session_id: The session.
        bundles: What the teacher states; empty for "nothing belongs together".
        item_intents: Item id to the intent it serves; items may be missing.
        items: The items if the session is not in the data set, e.g. composed at random; else
            empty.
        provenance: Where it comes from.
    """

    session_id: NotEmpty
    bundles: tuple[Bundle, ...]
    item_intents: Mapping[str, str] = field(default_factory=dict)
    items: tuple[Item, ...] = ()
    provenance: Provenance


@dataclass(frozen=True, slots=True, kw_only=True)
class KnowledgeBase:
    """Distilled knowledge: patterns, rules, thoughts and a teacher's answers, in a stable order."""

    patterns: tuple[Pattern, ...] = ()
    rules: tuple[Rule, ...] = ()
    thoughts: tuple[Thought, ...] = ()
    answers: tuple[TeacherAnswer, ...] = ()

    @property
    def pieces(self) -> tuple[Pattern | Rule | Thought | TeacherAnswer, ...]:
        """All of it: patterns, then rules, thoughts and answers."""
        return (*self.patterns, *self.rules, *self.thoughts, *self.answers)


def bundle_sets(bundles: Iterable[Bundle]) -> list[frozenset[str]]:
    """Bundles as item sets, in the same order."""
    return [bundle.items for bundle in bundles]
