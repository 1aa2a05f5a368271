"""`explain`: why items are a bundle, in facts that are known about them."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from routedk.programs.default_lm import lm_of
from routedk.programs.evidence import explained
from routedk.programs.generator import BundleGenerator
from routedk.types import Bundle, Explanation, Session


def explain(
    session: Session,
    item_ids: Sequence[str],
    program: BundleGenerator | None = None,
    *,
    lm: Any = None,
    sentence: bool = True,
) -> Explanation:
    """Say why items are a bundle, whoever made it.

    Args:
        session: The session of the items.
        item_ids: Ids of the bundle's items, at least two.
        program: Groups items, and its knowledge may support the bundle; None for a program
            without knowledge.
        lm: The language model that states the sentence, e.g. a teacher; None for that of the
            program, or the packaged student if it has none.
        sentence: Whether to ask a language model for the sentence. Its sentence is kept if it
            names nothing but what the bundle's titles say; otherwise a plain one names the two
            items that are closest.

    Raises:
        DataError: There are fewer than two items, a duplicate, or one that is not in the session.

    Example:
        >>> from routedk import BundleGenerator, explain, load_sessions, student_lm
        >>> program = BundleGenerator()
        >>> program.set_lm(student_lm())
        >>> session = load_sessions("demo")[0]
        >>> ids = [item.id for item in session.items[:2]]
        >>> explain(session, ids, program, sentence=False).ties == tuple(ids)
        True
    """
    program = program or BundleGenerator()
    bundle = Bundle(tuple(item_ids))
    for name in bundle.item_ids:
        session.item(name)
    grouping = program.groups_by()
    if sentence:
        namer = deepcopy(program.namer)
        namer.why = True
        namer.set_lm(lm or lm_of(namer.name))
        (bundle,) = namer(session, [bundle], program.knowledge, grouping=grouping).bundles
    (bundle,) = explained(session, [bundle], grouping, program.knowledge)
    assert bundle.explanation is not None
    return bundle.explanation
