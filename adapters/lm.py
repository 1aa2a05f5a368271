"""The language model that a config names: a LiteLLM model, or the student in this process."""

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from routedk.errors import SettingError

if TYPE_CHECKING:
    import dspy

_MAX_TOKENS = 512
_RETRIES = 8


def default_lm(dtype: str | None = None) -> "dspy.LM":
    """The student with the packaged general bundler.

    It groups items and names bundles without any training on your part; its card,
    ``routedk/bundler/README.md``, says what it was made from.

    Args:
        dtype: As for `resolve_lm`.
    """
    from routedk.adapters.engine.engine import student_lm

    return student_lm(str(files("routedk") / "bundler"), dtype=dtype)


def resolve_lm(
    lm: str | None = None,
    experts: str | Path | None = None,
    student: str | None = None,
    dtype: str | None = None,
) -> "dspy.LM":
    """Make the ``dspy.LM`` that a config names, with DSPy's cache off.

    If it names none, this is the embedded student, zero-shot.

    Args:
        lm: A model by its LiteLLM name, e.g. ``openai/gpt-4o-mini``.
        experts: Folder of trained experts with their router.
        student: The path or name of a causal LM. None or ``default``: the student that
            ``experts`` were trained on, or without experts the embedded one.
        dtype: The student's precision: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        SettingError: ``lm`` is combined with a setting of the student, its provider is not known,
            or the provider's key is missing.
    """
    if lm is None:
        from routedk.adapters.engine.engine import student_lm

        return student_lm(experts, student, dtype=dtype)
    for name, value in (("experts", experts), ("student", student), ("dtype", dtype)):
        if value is not None:
            raise SettingError(f"--lm {lm}: --{name} is for the student, leave it out")
    from routedk.programs.teachers.named_lm import check_key, named_lm

    check_key(lm)
    made: dspy.LM = named_lm(lm, _MAX_TOKENS, num_retries=_RETRIES)
    return made
