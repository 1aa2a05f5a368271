"""Command-line options from config dataclasses, so that names, defaults and help are stated once.

A command declares what it needs as plain parameters::

    @with_config_options
    def train(data: DataPath, options: DataOptions, config: TrainConfig, output: OutputFolder): ...

Each parameter whose type is a dataclass is replaced by one option per field: ``learning_rate``
becomes ``--learning-rate``, its help is the field's text in the ``Args:`` section of the class.
Fields of the same name (``seed`` is the only one) share one option, whose help says all that it is
for, and every config gets its value.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import docstring_parser
import typer

from routedk.errors import SettingError


def with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a config dataclass by one option per field."""
    signature = inspect.signature(command, eval_str=True)
    parameters: dict[str, inspect.Parameter] = {}
    configs: dict[str, Any] = {}
    for name, parameter in signature.parameters.items():
        if is_dataclass(parameter.annotation):
            configs[name] = parameter.annotation
        else:
            parameters[name] = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    own = list(parameters)
    for config in configs.values():
        for option in config_options(config):
            if option.name in parameters:
                _join_seeds(parameters[option.name], option)
            parameters.setdefault(option.name, option)

    @wraps(command)
    def run(**values: Any) -> None:
        try:
            built = {name: _build(config, values) for name, config in configs.items()}
            command(**{name: values[name] for name in own}, **built)
        except SettingError as error:
            raise SettingError(_with_options(str(error), values)) from None

    run.__signature__ = signature.replace(parameters=list(parameters.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: option.annotation for name, option in parameters.items()}
    return run


def config_options(config: Any) -> list[inspect.Parameter]:
    """The options of a config dataclass, as parameters that typer understands."""
    types = get_type_hints(config)
    texts = {
        param.arg_name: " ".join((param.description or "").split()).replace("`", "")
        for described in reversed(config.__mro__)
        for param in docstring_parser.parse(described.__doc__ or "").params
    }
    return [_option(field, types[field.name], texts[field.name]) for field in fields(config)]


def _join_seeds(option: inspect.Parameter, other: inspect.Parameter) -> None:
    """Make the help of a seed option name the other seed, too."""
    (shown,), (added,) = (one.annotation.__metadata__ for one in (option, other))
    shown.help = f"{added.help.removesuffix('.')}, and {shown.help.removeprefix('Seed ')}"


def _option(field: Field[Any], kind: Any, text: str) -> inspect.Parameter:
    name = field.name.replace("_", "-")
    switch = bool in (kind, *get_args(kind)) and field.default is not False
    names = f"--{name}/--no-{name}" if switch else f"--{name}"
    default: Any = inspect.Parameter.empty if field.default is MISSING else field.default
    if get_origin(kind) is tuple:
        kind, default = list[_element(get_args(kind)[0])], list(default)  # type: ignore[misc]
    option = typer.Option(names, help=text)
    keyword = inspect.Parameter.KEYWORD_ONLY
    annotation = Annotated[kind, option]
    return inspect.Parameter(field.name, keyword, annotation=annotation, default=default)


def _element(kind: Any) -> Any:
    """The element type of a repeatable option; typer takes choices in a list only as an enum."""
    if get_origin(kind) is not Literal:
        return kind
    return StrEnum("Choice", {value: value for value in get_args(kind)})


def _build(config: Any, values: dict[str, Any]) -> Any:
    return config(**{field.name: _given(values[field.name]) for field in fields(config)})


def _with_options(message: str, settings: Iterable[str]) -> str:
    """A message about settings that names them as options: ``max_body=0`` as ``--max-body=0``."""
    names = "|".join(rf"{name}(?==)" if "_" not in name else name for name in settings)
    found = re.compile(rf"(?<![\w./\\'\"-])({names})(?![\w./\\'\"-])")
    return found.sub(lambda name: "--" + name[0].replace("_", "-"), message)


def _given(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(str(one) if isinstance(one, StrEnum) else one for one in value)
    return value
