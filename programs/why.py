"""`explain`: why items are a bundle, in facts that are known of them."""

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
        session: The session that they are of.
        item_ids: Of the bundle, at least two.
        program: What groups items, and whose knowledge may speak for the bundle; None for one
            without knowledge.
        lm: Who states the sentence, e.g. a teacher; None for the language model of the program,
            which is the packaged student where there is none.
        sentence: Whether a language model is asked for the sentence. Its sentence is kept where it
            names nothing but what the bundle's titles say; else a plain one names the two items
            that tie it most.

    Raises:
        DataError: There are fewer than two items, one twice, or one that the session has not.

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
        # A student that never saw such titles would state what it learned of others.
        knows = {"knows": grouping.knows} if grouping is not None and lm is None else {}
        namer.set_lm(lm or lm_of(namer.name))
        (bundle,) = namer(session, [bundle], program.knowledge, **knows).bundles
    (bundle,) = explained(session, [bundle], grouping, program.knowledge)
    assert bundle.explanation is not None
    return bundle.explanation
