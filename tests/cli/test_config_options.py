from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import pytest
import typer

from routedk import (
    CompileConfig,
    DataOptions,
    DistillConfig,
    EvaluateConfig,
    GenerateConfig,
    SearchConfig,
    TrainConfig,
)
from routedk.adapters.ray_engine import RayConfig
from routedk.cli.app import app
from routedk.cli.config_options import with_config_options
from routedk.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Toy:
    """All types that a setting may have.

    Args:
        number: A number
            in [0, 9].
        share: A share.
        name: A name, or none.
        path: A file.
        plain: Off unless asked for.
        on: On unless told otherwise.
        unsure: Neither.
        colour: One of two.
        shape: One of two, or none.
        words: Any words.
        sizes: Some of three.
        seed: Seed of the toys.
    """

    number: int = 3
    share: float = 0.5
    name: str | None = None
    path: Path | None = None
    plain: bool = False
    on: bool = True
    unsure: bool | None = None
    colour: Literal["red", "blue"] = "red"
    shape: Literal["round", "square"] | None = None
    words: tuple[str, ...] = ()
    sizes: tuple[Literal["s", "m", "l"], ...] = ("s", "l")
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.number <= 9:
            raise SettingError(f"number={self.number}: it must be in [0, 9]")


@dataclass(frozen=True, kw_only=True)
class Other:
    """Another config.

    Args:
        other_name: A name.
        seed: Seed of the others.
    """

    other_name: str = "x"
    seed: int = 0


def given(*arguments: str) -> tuple[str, Toy, Other, bool]:
    """What a command gets from arguments."""
    app, got = typer.Typer(), []

    @app.command()
    @with_config_options
    def command(data: str, toy: Toy, other: Other, quick: bool = False) -> None:
        """Do something."""
        got.append((data, toy, other, quick))

    with pytest.raises(SystemExit) as caught:
        app(["demo", *arguments])
    assert caught.value.code == 0
    return got[0] if got else ("", Toy(), Other(), False)


def test_without_options_all_is_default() -> None:
    assert given() == ("demo", Toy(), Other(), False)


def test_every_type_of_setting() -> None:
    arguments = "--number 4 --share .25 --name a --path b --plain --no-on --no-unsure --colour blue"
    arguments += " --shape square --words c --words d --sizes m --seed 7 --other-name e --quick"
    toy = Toy(
        number=4,
        share=0.25,
        name="a",
        path=Path("b"),
        plain=True,
        on=False,
        unsure=False,
        colour="blue",
        shape="square",
        words=("c", "d"),
        sizes=("m",),
        seed=7,
    )
    assert given(*arguments.split()) == ("demo", toy, Other(other_name="e", seed=7), True)


def test_help_is_that_of_the_config(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    given("--help")
    out = " ".join(capsys.readouterr().out.split())
    assert "A number in [0, 9]. [default: 3]" in out
    assert "--on --no-on" in out
    assert "--no-plain" not in out
    assert out.count("--seed") == 1
    assert "Seed of the others, and of the toys." in out


def test_the_config_checks_its_values() -> None:
    @with_config_options
    def command(toy: Toy) -> None:
        """Do nothing."""

    values = {field.name: field.default for field in fields(Toy)} | {"number": 10}
    with pytest.raises(SettingError, match=r"^--number=10: it must be in \[0, 9\]$"):
        command(**values)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("other_name='y': no such name", "--other-name='y': no such name"),
        ("other_name is for others", "--other-name is for others"),
        ("name 'y' is of a seed", "name 'y' is of a seed"),
        ("a/other_name: 'other_name' b.other_name", "a/other_name: 'other_name' b.other_name"),
        ("--other-name y: leave --seed=3 out", "--other-name y: leave --seed=3 out"),
    ],
)
def test_settings_are_named_as_options(message: str, told: str) -> None:
    @with_config_options
    def command(other: Other, name: str) -> None:
        """Fail at work."""
        raise SettingError(message)

    with pytest.raises(SettingError) as caught:
        command(other_name="y", seed=0, name="z")
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("distill", DistillConfig),
        ("train", TrainConfig),
        ("compile", CompileConfig),
        ("generate", GenerateConfig),
        ("evaluate", EvaluateConfig),
        ("search", SearchConfig),
    ],
)
def test_a_command_has_the_settings_of_its_verb(name: str, config: Any) -> None:
    """Same names, same defaults; what else a command has are files and sessions."""
    import typer.main

    command: Any = typer.main.get_command(app)
    found = {option.name: option for option in command.commands[name].params}
    for field in fields(config):
        option = found.pop(field.name)
        assert option.help
        default = option.default
        assert (tuple(default) if isinstance(default, list) else default) == field.default
    own = {"data", "split", "output", "knowledge", "dry_run", "predictions", "store"}
    own |= {"write_requests", "curves", "empties", "reference", "fail_on_error"}
    if name == "generate":
        own |= {"engine", *(field.name for field in fields(RayConfig))}
    shared = {field.name for field in fields(config)}
    assert found.keys() - own == {field.name for field in fields(DataOptions)} - shared
