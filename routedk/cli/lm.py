"""The language model that a command names: one of LiteLLM's, or the embedded student."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from routedk.cli.output import quiet_libraries
from routedk.errors import RouteDKError, SettingError

_PANEL = "Language model"

LmName = Annotated[
    str | None,
    typer.Option(
        "--lm",
        metavar="NAME",
        help="A model by its LiteLLM name, e.g. openai/gpt-4o-mini or ollama_chat/llama3.1; "
        "its key is read from the environment.",
        rich_help_panel=_PANEL,
    ),
]
Experts = Annotated[
    Path | None,
    typer.Option(
        "--experts",
        metavar="DIR",
        help="The student with the routed experts that routedk train wrote here.",
        rich_help_panel=_PANEL,
    ),
]
Student = Annotated[
    str | None,
    typer.Option(
        "--student",
        metavar="NAME",
        help="The student itself: default for the embedded one, or a path or name of a "
        "causal LM of transformers. With --experts: the student they were trained on.",
        rich_help_panel=_PANEL,
    ),
]


Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        metavar="NAME",
        help="The student's: float32, bfloat16 or float16. Unset: float32 on a CPU, else bfloat16.",
        rich_help_panel=_PANEL,
    ),
]


def resolve_lm(
    *,
    lm: str | None = None,
    experts: Path | None = None,
    student: str | None = None,
    dtype: str | None = None,
) -> Any:
    """The ``dspy.LM`` that the options name.

    Args:
        lm: A LiteLLM model name.
        experts: Folder of trained experts with their router.
        student: ``default``, or a path or name of a causal LM.
        dtype: The student's.

    Raises:
        SettingError: None of the options is given, or ``lm`` together with another.
    """
    if (lm is None) == (experts is None and student is None):
        raise SettingError("which language model? give --lm NAME, or --experts DIR or --student")
    if lm is not None:
        if dtype is not None:
            raise SettingError("--dtype is of the student: leave it out with --lm")
        import dspy

        return dspy.LM(lm, temperature=0.0, max_tokens=512)
    from routedk.adapters.engine.engine import student_lm

    quiet_libraries()
    return student_lm(experts, None if student == "default" else student, dtype=dtype)


@contextmanager
def lm_errors() -> Iterator[None]:
    """Turn a failing language model into an error that the command line shows in one line.

    Raises:
        RouteDKError: Where the model behind ``--lm`` cannot be reached or refuses; an error of
            RouteDK's own is raised as it is.
    """
    from dspy.utils.exceptions import LMError

    try:
        yield
    except LMError as error:
        own = error if isinstance(error, RouteDKError) else error.__cause__
        if isinstance(own, RouteDKError):
            # Ours, on its way through dspy.LM: a budget, a journal that cannot be written.
            raise own from None
        reason = " ".join(str(error).split())[:300]
        raise RouteDKError(
            f"the language model failed: {reason} (check its name, key and address)"
        ) from error
