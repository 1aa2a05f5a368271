"""`feedback_metric`: matched F1, and what was right, wrong, missed and invented, in words."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import dspy

from routedk.errors import SettingError
from routedk.eval.mistakes import Verdict
from routedk.eval.protocols import matched_f1
from routedk.programs.prompting.layout import UNTITLED
from routedk.programs.prompting.text import INTENT_WORDS, neutralise
from routedk.programs.teachers.feedback import missed_bundles, session_verdicts
from routedk.types import Session, bundle_sets


def feedback_metric(
    gold: Any,
    pred: Any,
    trace: object = None,
    pred_name: str | None = None,
    pred_trace: object = None,
) -> Any:
    """Score one answer and explain, item by item, what is right and wrong.

    For ``dspy.GEPA``, whose reflection reads the feedback, and ``dspy.SIMBA``. For optimizers that
    ask whether an example succeeded, such as BootstrapFewShot, use `matched_f1_metric`: they count
    any ``dspy.Prediction`` as success unless ``metric_threshold`` is set.

    Args:
        gold: Example whose ``session`` has gold.
        pred: The answer of a `BundleGenerator` or a similar program.
        trace: Ignored.
        pred_name: Ignored: there is only one predictor.
        pred_trace: Ignored.

    Returns:
        A ``dspy.Prediction`` with ``score``, the matched F1, and ``feedback``: a line on the
        score, one per stated bundle, and one per missed gold bundle. Items are named by their
        number and title, as the student saw them. ``dspy.Evaluate`` can write it as JSON.

    Raises:
        SettingError: The session is not annotated.
    """
    session = gold.session
    if session.bundles is None:
        raise SettingError(
            f"session {session.id!r} has no gold to judge answers by (leave it out of the set)"
        )
    score = matched_f1(session.gold, bundle_sets(pred.bundles))
    lines = [f"Score {score:.2f} of 1 (matched F1 of the bundles)."]
    if error := pred.get("error"):
        lines.append(
            f"The answer could not be read: {error}. It must be one line per bundle, item "
            'numbers | intent, or "none".'
        )
    elif not pred.bundles:
        lines.append("The answer states no bundle.")
    verdicts = session_verdicts(session, pred.bundles, pred.get("lone") or ())
    lines += [_on_stated(session, verdict) for verdict in verdicts]
    lines += [
        f"Missed: {_items(session, bundle)} are a bundle{_intent(session, bundle)}, but none of "
        "the stated ones comes near it."
        for bundle in missed_bundles(session, verdicts)
    ]
    if not session.gold:
        lines.append("In this session no items belong together: the right answer is none.")
    if dropped := pred.get("dropped"):
        lines.append(f"Not used of the answer: {'; '.join(dropped)}.")
    return _Feedback(score=score, feedback="\n".join(lines))


class _Feedback(dspy.Prediction, dict[str, Any]):  # type: ignore[misc]  # DSPy is untyped here
    """A prediction that is also a dict, so that ``json`` can write it."""

    def __init__(self, **values: Any) -> None:
        dspy.Prediction.__init__(self, **values)
        dict.update(self, values)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(_Feedback, **self._store), ()


def _on_stated(session: Session, verdict: Verdict) -> str:
    stated = _items(session, verdict.predicted)
    if verdict.kind == "correct":
        return f"Right: {stated} are a bundle{_intent(session, verdict.predicted)}."
    if verdict.kind == "too small":
        return f"Too small: {stated} alone; a bundle has at least two items."
    if verdict.kind == "invalid" or verdict.gold is None:
        return f"Invented: {stated}; no two of these items belong together."
    faults = [
        f"{verb} {_items(session, items)}"
        for verb, items in (
            ("does not hold", verdict.irrelevant),
            ("also holds", verdict.missing),
        )
        if items
    ]
    meant = _intent(session, verdict.gold)
    return f"Wrong: {stated}. The bundle meant{meant} {' and '.join(faults)}."


def _items(session: Session, items: Iterable[str]) -> str:
    """Items by number and title, in the order of their numbers."""
    numbers = sorted(map(session.number, items))
    titles = [neutralise(session.items[number - 1].title) or UNTITLED for number in numbers]
    return ", ".join(f'{n} "{title}"' for n, title in zip(numbers, titles, strict=True))


def _intent(session: Session, gold: frozenset[str]) -> str:
    """The intent of a gold bundle, in parentheses after a space; empty if it has none."""
    intents = [b.intent for b in session.bundles or () if b.items == gold and b.intent]
    return f" ({neutralise(intents[0], INTENT_WORDS)})" if intents else ""
