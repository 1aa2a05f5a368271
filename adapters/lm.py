"""`resolve_lm`: the language model that a verb's config names."""

from pathlib import Path
from typing import Any

from routedk.errors import SettingError


def resolve_lm(
    lm: str | None = None,
    experts: str | Path | None = None,
    student: str | None = None,
    dtype: str | None = None,
) -> Any:
    """The ``dspy.LM`` of these names, without DSPy's cache.

    Args:
        lm: A LiteLLM model name.
        experts: Folder of trained experts with their router.
        student: ``default`` for the embedded student, or a folder or hub name of a causal LM.
        dtype: The student's.

    Raises:
        SettingError: Nothing is named, or ``lm`` together with something of a student.
    """
    if (lm is None) == (experts is None and student is None):
        raise SettingError("which language model? give lm, or experts or student")
    if lm is not None:
        if dtype is not None:
            raise SettingError("dtype is of the student: leave it out with lm")
        import dspy

        return dspy.LM(lm, temperature=0.0, max_tokens=512, cache=False)
    from routedk.adapters.engine.engine import student_lm

    named = student_lm(experts, None if student == "default" else student, dtype=dtype)
    return named.copy(cache=False)
