"""Why bundles are ones: what ties them, and what of a program's knowledge speaks for them."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations

import numpy as np

from routedk.data.policies import is_telling
from routedk.programs.grouping.encoder import EncoderGrouping
from routedk.programs.grouping.protocol import Grouping
from routedk.programs.knowledge.compiled import CompiledKnowledge
from routedk.programs.prompting.grounding import shared_words, supported
from routedk.programs.prompting.naming import part, title_lines
from routedk.similarity.encoders import default_encoder
from routedk.types import Bundle, Explanation, Session


def explained(
    session: Session,
    bundles: Sequence[Bundle],
    grouping: Grouping | None,
    knowledge: CompiledKnowledge,
) -> list[Bundle]:
    """The bundles with their `explanations`, whose sentences are their ``why``."""
    found = explanations(session, bundles, grouping, knowledge)
    return [
        replace(bundle, why=one.sentence, explanation=one)
        for bundle, one in zip(bundles, found, strict=True)
    ]


def explanations(
    session: Session,
    bundles: Sequence[Bundle],
    grouping: Grouping | None,
    knowledge: CompiledKnowledge,
) -> list[Explanation]:
    """The explanation of each bundle; a stated ``why`` that its titles do not support is replaced.

    Args:
        session: The session that they are of.
        bundles: As they were named.
        grouping: What grouped them; without an encoder of its own, titles are compared.
        knowledge: What may speak for them.
    """
    found = []
    ties = _ties(session, bundles, grouping) if bundles else []
    for bundle, pair in zip(bundles, ties, strict=True):
        own = part(session, bundle)
        titles = [item.title for item in own.items]
        shown = knowledge.of_bundles.context(own)
        rule = max(shown.rules, key=lambda one: shared_words(one, titles), default="")
        # The nearest one is shown last.
        near = [
            one.session
            for one in shown.neighbours
            if shared_words(" ".join(item.title for item in one.session.items), titles) > 1
        ]
        similar = near[-1] if near else None
        sentence = bundle.why
        if not supported(sentence, titles):
            one, other = title_lines(map(session.item, pair))
            sentence = f"Its two closest items are {one} and {other}."
        found.append(
            Explanation(
                ties=pair,
                rule=rule if shared_words(rule, titles) > 1 else "",
                similar=similar.id if similar else "",
                similar_intent=similar.bundles[0].intent if similar and similar.bundles else "",
                sentence=sentence,
            )
        )
    return found


def _ties(
    session: Session, bundles: Sequence[Bundle], grouping: Grouping | None
) -> list[tuple[str, str]]:
    """The two items of each bundle that tie it most, by what grouped them."""
    bundled = frozenset().union(*(bundle.items for bundle in bundles))
    items = [item for item in session.items if item.id in bundled or is_telling(item.title)]
    items.sort(key=lambda item: (item.title, item.id))
    titles = [item.title for item in items]
    if isinstance(grouping, EncoderGrouping):
        _, alike = grouping.read(titles)
    else:
        rows = default_encoder().encode(titles)
        alike = (rows @ rows.T).astype(np.float64)
    place = {item.id: number for number, item in enumerate(items)}
    return [
        max(combinations(one.item_ids, 2), key=lambda pair: alike[place[pair[0]], place[pair[1]]])
        for one in bundles
    ]
