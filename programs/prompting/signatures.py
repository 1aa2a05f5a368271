"""The questions a student is asked, as DSPy signatures.

Their instructions are in ``generate.txt`` and ``name.txt`` next to this module, so that code that
must not import dspy can read the same text.
"""

import dspy

from routedk.programs.prompting.layout import instruction
from routedk.programs.prompting.naming import naming_instruction


class GenerateBundles(dspy.Signature):  # type: ignore[misc]  # noqa: D101
    __doc__ = instruction()

    patterns: str = dspy.InputField(desc="block of patterns, or empty")
    rules: str = dspy.InputField(desc="block of rules, or empty")
    similar: str = dspy.InputField(desc="similar sessions with their bundles, or empty")
    session: str = dspy.InputField(desc="numbered lines, one item each")
    thought: str = dspy.OutputField(desc="one line, e.g. the intent of each item, or empty")
    bundles: str = dspy.OutputField(
        desc="one line per bundle: item numbers | intent; or none; empty where the thought says it"
    )


class NameBundle(dspy.Signature):  # type: ignore[misc]  # noqa: D101
    __doc__ = naming_instruction()

    rules: str = dspy.InputField(desc="block of rules, or empty")
    titles: str = dspy.InputField(desc="titles of one bundle's items, one a line")
    intent: str = dspy.OutputField(desc="what the shopper wants with them, 2 to 5 words")
    why: str = dspy.OutputField(desc="one sentence on why they belong together, or empty")
