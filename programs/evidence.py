"""Why items belong together: what ties them, and which of a program's knowledge supports it."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

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
    """The bundles with their explanations, whose sentences become their ``why``.

    A stated ``why`` that the titles do not support is replaced.

    Args:
        session: The session of the bundles.
        bundles: The named bundles.
        grouping: What grouped them; if it has no encoder, the default encoder compares titles.
        knowledge: The knowledge that may support them.
    """
    return [_explained(part(session, bundle), grouping, knowledge) for bundle in bundles]


def _explained(own: Session, grouping: Grouping | None, knowledge: CompiledKnowledge) -> Bundle:
    (bundle,) = own.bundles or ()
    titles = [item.title for item in own.items]
    alike: Any
    if isinstance(grouping, EncoderGrouping):
        alike = grouping.read(titles)[1]
    else:
        rows = default_encoder().encode(titles)
        alike = rows @ rows.T
    closest = max(combinations(range(len(titles)), 2), key=lambda pair: alike[pair])
    tied = [own.items[place] for place in closest]
    shown = knowledge.of_bundles.context(own)
    rules = [rule for rule in shown.rules if shared_words(rule, titles) > 1]
    near = [
        one.session
        for one in shown.neighbours
        if shared_words(" ".join(item.title for item in one.session.items), titles) > 1
    ]
    # The nearest neighbour is shown last.
    similar = near[-1] if near else None
    sentence = bundle.why
    if not supported(sentence, titles):
        one, other = title_lines(tied)
        sentence = f"Its two closest items are {one} and {other}."
    explanation = Explanation(
        ties=(tied[0].id, tied[1].id),
        rule=max(rules, key=lambda rule: shared_words(rule, titles), default=""),
        similar=similar.id if similar else "",
        similar_intent=similar.bundles[0].intent if similar and similar.bundles else "",
        sentence=sentence,
    )
    return replace(bundle, why=sentence, explanation=explanation)
