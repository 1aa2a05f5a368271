"""The two questions a student is asked, as DSPy signatures.

Their instructions stand in ``generate.txt`` and ``verify.txt`` beside this module, so that
code that must not import dspy reads the same text.
"""

import dspy

from routedk.programs.layout import instruction


class GenerateBundles(dspy.Signature):  # type: ignore[misc]  # noqa: D101
    __doc__ = instruction("generate")

    rules: str = dspy.InputField(desc="block of rules, or empty")
    similar: str = dspy.InputField(desc="similar sessions with their bundles, or empty")
    session: str = dspy.InputField(desc="numbered lines, one item each")
    thought: str = dspy.OutputField(desc="why, in one line, or empty")
    bundles: str = dspy.OutputField(desc="one line per bundle: item numbers | intent; or none")


class VerifyBundle(dspy.Signature):  # type: ignore[misc]  # noqa: D101
    __doc__ = instruction("verify")

    rules: str = dspy.InputField(desc="block of rules, or empty")
    similar: str = dspy.InputField(desc="similar sessions with their bundles, or empty")
    session: str = dspy.InputField(desc="numbered lines, one item each")
    candidate: str = dspy.InputField(desc="the candidate bundle")
    verdict: str = dspy.OutputField(desc="yes or no")
