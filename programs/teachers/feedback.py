"""Feedback on a generator's bundles, in words that a language model can learn from."""

from collections.abc import Iterable, Sequence

from routedk.eval.mistakes import Verdict, judge
from routedk.types import Bundle, Session


def session_verdicts(
    session: Session, bundles: Sequence[Bundle], lone: Sequence[str] = ()
) -> list[Verdict]:
    """Judge an answer against the session's gold, see `routedk.eval.mistakes.judge`.

    Args:
        session: A session with gold.
        bundles: The bundles of the answer.
        lone: Ids of items that the answer stated as a bundle of one.
    """
    stated = [*(bundle.items for bundle in bundles), *(frozenset([name]) for name in lone)]
    return judge(session.gold, stated)


def missed_bundles(session: Session, verdicts: Sequence[Verdict]) -> list[frozenset[str]]:
    """The gold bundles that no stated bundle came near, without duplicates.

    Args:
        session: A session with gold.
        verdicts: The verdicts of `session_verdicts` on the answer.
    """
    touched = {verdict.gold for verdict in verdicts if verdict.kind != "invalid"}
    return [gold for gold in dict.fromkeys(session.gold) if gold not in touched]


def render_feedback(session: Session, verdicts: Sequence[Verdict]) -> str:
    """One line per stated bundle, then one per gold bundle that none came near, by item numbers.

    ``1 2 5: contains irrelevant. 5 irrelevant; 3 missing.``

    Args:
        session: The session with gold; items are shown by their numbers in it.
        verdicts: The verdicts of `session_verdicts` on the answer.
    """
    lines = [_line(session, verdict) for verdict in verdicts]
    lines += [
        f"{item_numbers(session, gold)}: a bundle that was not stated."
        for gold in missed_bundles(session, verdicts)
    ]
    return "\n".join(lines) or "No bundle was stated, and there is none."


def _line(session: Session, verdict: Verdict) -> str:
    shown = item_numbers(session, verdict.predicted)
    if verdict.kind == "correct":
        return f"{shown}: correct."
    if verdict.kind == "invalid":
        return f"{shown}: invalid. These items do not belong together."
    if verdict.kind == "too small":
        return f"{shown}: too small. A bundle has at least two items."
    parts = [f"{item_numbers(session, verdict.missing)} missing"] if verdict.missing else []
    if verdict.irrelevant:
        parts.insert(0, f"{item_numbers(session, verdict.irrelevant)} irrelevant")
    return f"{shown}: {verdict.kind}. {'; '.join(parts)}."


def item_numbers(session: Session, items: Iterable[str]) -> str:
    """The numbers that items have in a session, e.g. ``1 2 5``."""
    return " ".join(str(number) for number in sorted(map(session.number, items)))
