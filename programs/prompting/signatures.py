"""The question a student is asked, as a DSPy signature.

Its instruction stands in ``generate.txt`` next to this module, so that code that must not import
dspy reads the same text.
"""

import dspy

from routedk.programs.prompting.layout import instruction


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
