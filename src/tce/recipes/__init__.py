"""Named recipes: TOML files with every value and its reason, read as defaults that flags override.

A recipe's tables are the option groups of the command's dataclass, its keys their fields.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Sequence
from importlib import resources
from typing import Any, get_type_hints

from tce.errors import OptionError

DEFAULT = "default"


def named_recipe(arguments: Sequence[str]) -> str:
    """The recipe that `--recipe NAME` or `--recipe=NAME` asks for, else the default one."""
    for position, argument in enumerate(arguments):
        if argument == "--recipe" and position + 1 < len(arguments):
            return arguments[position + 1]
        if argument.startswith("--recipe="):
            return argument.split("=", 1)[1]
    return DEFAULT


def recipe_text(command: str, name: str) -> str:
    """The recipe's file as written, comments included.

    Raises:
        OptionError: no recipe of that name.
    """
    folder = resources.files("tce.recipes") / command
    names = sorted(
        entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml")
    )
    if name not in names:
        raise OptionError("--recipe", expected=f"one of {', '.join(names)}", found=repr(name))
    return (folder / f"{name}.toml").read_text(encoding="utf-8")


def apply_recipe(options: type, command: str, name: str) -> Any:
    """An instance of `options` with the recipe's values; required fields stay for the user to give."""
    import tyro

    values = tomllib.loads(recipe_text(command, name))
    return _fill(options, values, f"recipe {name}", tyro.MISSING, {"recipe": name})


def _fill(options: type, values: dict[str, Any], where: str, missing: Any, extra: dict[str, Any]) -> Any:
    hints = get_type_hints(options)
    fields = {field.name: field for field in dataclasses.fields(options)}
    unknown = sorted(set(values) - set(fields))
    if unknown:
        raise OptionError(where, expected=f"keys of {options.__name__}", found=", ".join(unknown))
    filled: dict[str, Any] = {}
    for name, field in fields.items():
        if dataclasses.is_dataclass(hints[name]):
            filled[name] = _fill(hints[name], values.get(name, {}), f"{where}, [{name}]", missing, extra)  # type: ignore[arg-type]
        elif name in values:
            filled[name] = tuple(values[name]) if isinstance(values[name], list) else values[name]
        elif name in extra:
            filled[name] = extra[name]
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            filled[name] = missing
    return options(**filled)
