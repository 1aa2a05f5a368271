"""The language model that a program asks, and the default for a program that was given none."""

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from routedk.errors import SettingError

if TYPE_CHECKING:
    import dspy

STUDENT = "local/routedk-"
"""Prefix of the name of a student in this process."""


def lm_of(predictor: Any) -> Any:
    """The language model that a predictor would ask now; if none is set, the packaged student.

    Raises:
        SettingError: A saved program's student has not been set again; or as for `default_lm`.
    """
    import dspy

    lm = predictor.lm or dspy.settings.lm or default_lm()
    if lm.model.startswith(STUDENT) and isinstance(lm.engine, str):
        raise SettingError(
            f"this program was saved with the student {lm.model}, which is not in the file: set it "
            "again, for example by set_lm(student_lm(experts))"
        )
    return lm


@cache
def default_lm() -> "dspy.LM":
    """The LM of the entry point ``default`` in the group ``routedk.lm``, made once per process.

    Raises:
        SettingError: RouteDK is not installed as a package, so it has no entry points.
    """
    for found in entry_points(group="routedk.lm", name="default"):
        lm: dspy.LM = found.load()()
        return lm
    raise SettingError("no language model: use dspy.context(lm=...), or set_lm, or install routedk")
