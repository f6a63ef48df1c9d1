import tomllib
from dataclasses import dataclass, field
from importlib import resources

import pytest
import tyro

from tce import cli, recipes
from tce.errors import OptionError


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1
    steps: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    data: str
    recipe: str = "x"
    inner: Inner = field(default_factory=Inner)


def test_values_fill_groups_and_required_fields_stay_open():
    filled = recipes._fill(
        Outer, {"inner": {"rate": 0.5, "steps": [1, 2]}}, "here", tyro.MISSING, {"recipe": "r"}
    )
    assert filled.inner == Inner(0.5, (1, 2))
    assert filled.data is tyro.MISSING
    assert filled.recipe == "r"


def test_an_unknown_key_is_named():
    with pytest.raises(OptionError, match="speed"):
        recipes._fill(Outer, {"inner": {"speed": 1}}, "here", None, {})


def test_an_unknown_recipe_lists_the_known_ones():
    with pytest.raises(OptionError, match="default"):
        recipes.recipe_text("pretrain", "nonsense")


@pytest.mark.parametrize("command", [name for name, command in cli.COMMANDS.items() if command.recipes])
def test_every_recipe_fills_its_command_and_gives_a_reason_for_every_value(command):
    folder = resources.files("tce.recipes") / cli.COMMANDS[command].recipes
    names = [entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")]
    assert recipes.DEFAULT in names
    for name in names:
        text = recipes.recipe_text(cli.COMMANDS[command].recipes, name)
        recipes.apply_recipe(cli.resolve(cli.COMMANDS[command].options), cli.COMMANDS[command].recipes, name)
        for line in text.splitlines():
            if "=" in line.split("#")[0] and tomllib.loads(line):
                assert "#" in line, f"{command} recipe {name}: no reason beside {line!r}"
