"""The texts and questions of AICL's dialogue.

Bundles are asked for by `GenerateBundles` under the one prompt layout; what is said here before a
further question about the same session stands above its items.
"""

from dataclasses import replace

import dspy

from routedk.programs.aicl.dialogue import Dialogue
from routedk.programs.prompting.layout import UNTITLED, render_answer
from routedk.programs.prompting.text import neutralise
from routedk.types import Bundle, Session

UNREADABLE = "Your answer could not be read as bundles."
_BY_INTENTS = "Your bundles and their intents:\n{answer}\nGiven the intents, adjust the bundles."
_BY_FEEDBACK = "Feedback on your bundles:\n{feedback}\n{causes}Adjust the bundles by the feedback."


class InferIntent(dspy.Signature):  # type: ignore[misc]
    """Say in 3 to 5 words what the shopper wants these items for."""

    items: str = dspy.InputField(desc="Items")
    intent: str = dspy.OutputField(desc="Intent in 3 to 5 words")


class FindCauses(dspy.Signature):  # type: ignore[misc]
    """You grouped a shopper's items into bundles and got feedback. Say in one short sentence what
    caused your mistakes."""

    session: str = dspy.InputField(desc="Items")
    answer: str = dspy.InputField(desc="Your bundles")
    feedback: str = dspy.InputField(desc="Feedback")
    causes: str = dspy.OutputField(desc="Cause of the mistakes")


class FindRules(dspy.Signature):  # type: ignore[misc]
    """You grouped a shopper's items into bundles and got feedback. Say what it teaches about
    bundles of other sessions. A rule is one short sentence about kinds of items, without item
    numbers."""

    session: str = dspy.InputField(desc="Items")
    answer: str = dspy.InputField(desc="Your bundles")
    feedback: str = dspy.InputField(desc="Feedback")
    causes: str = dspy.InputField(desc="Cause of the mistakes")
    rules: str = dspy.OutputField(desc="At most three rules, one a line")


def by_intents(dialogue: Dialogue) -> str:
    """Asks for the bundles again, the ones so far and their inferred intents in view."""
    bundles = [
        replace(bundle, intent=dialogue.intents.get(bundle.items, bundle.intent))
        for bundle in dialogue.bundles
    ]
    return _BY_INTENTS.format(answer=render_answer(dialogue.session, bundles))


def by_feedback(feedback: str, causes: str) -> str:
    """Asks for the bundles again, feedback and the causes of mistakes in view."""
    return _BY_FEEDBACK.format(feedback=feedback, causes=f"Cause: {causes}\n" if causes else "")


def titles(session: Session, bundle: Bundle) -> str:
    """The items of one bundle, as `InferIntent` shows them."""
    shown = [neutralise(session.item(name).title) or UNTITLED for name in bundle.item_ids]
    return "\n".join(f"- {title}" for title in shown)
