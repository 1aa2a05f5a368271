"""The language model of a program that was given none."""

from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from routedk.errors import SettingError

if TYPE_CHECKING:
    import dspy


@cache
def default_lm() -> "dspy.LM":
    """The one of the entry point ``default`` in the group ``routedk.lm``, made once a process.

    Raises:
        SettingError: RouteDK is not installed as a package, so that it has no entry points.
    """
    for found in entry_points(group="routedk.lm", name="default"):
        lm: dspy.LM = found.load()()
        return lm
    raise SettingError("no language model: use dspy.context(lm=...), or set_lm, or install routedk")
