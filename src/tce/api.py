"""Every command as a Python function with flat keywords, such as `tce.pretrain("videos/", out="runs/mine")`.

The keywords are the command line's flags, with underscores, and a few options that are no flags; an options
object is accepted in their place.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any, get_type_hints

from tce.command_table import COMMANDS, Command, resolve
from tce.help import Flag, flags_of


def command_function(name: str) -> Callable[..., Any]:
    """The function of one command, for `tce.NAME`.

    Its docstring and signature come from the command's options, so `help(tce.pretrain)` shows every keyword.
    """
    command = COMMANDS[name.replace("_", "-")]

    def call(*arguments: Any, **keywords: Any) -> Any:
        extra: dict[str, Any] = {}
        if name == "evaluate" and arguments and not dataclasses.is_dataclass(arguments[0]):
            extra, keywords = _network_and_data(arguments, keywords)
            arguments = ()
        options = build_options(name, arguments, keywords)
        return resolve(command.function)(options, **extra)

    flags = list(flags_of(resolve(command.options), hidden=True))
    call.__name__ = call.__qualname__ = name
    call.__module__ = "tce"
    call.__doc__ = _docstring(command, flags)
    call.__signature__ = _signature(flags)  # type: ignore[attr-defined]
    return call


def _network_and_data(
    arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`tce.evaluate(network, data)`: a network, or its checkpoint's name, and the clips, without keywords.

    Raises:
        TypeError: more than these two.
    """
    if len(arguments) > 2:
        raise TypeError(f"evaluate() takes a network and data, {len(arguments)} arguments were given")
    given = dict(keywords) | dict(zip(("ckpt", "data"), arguments))
    if isinstance(given["ckpt"], str | os.PathLike):
        return {}, given
    return {"network": given["ckpt"]}, given | {"ckpt": ""}


def build_options(name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    """A command's options out of positional arguments and flat keywords.

    Args:
        name: the command.
        arguments: an options object alone, or values of the positional options in order.
        keywords: options by their flags' names, with underscores; `recipe` gives the defaults of the others.

    Raises:
        TypeError: an unknown keyword, one given twice, or one that is missing, as for any function.
        OptionError: a value out of its range, or options that contradict each other.
    """
    command = COMMANDS[name.replace("_", "-")]
    kind = resolve(command.options)
    if len(arguments) == 1 and isinstance(arguments[0], kind):
        if keywords:
            raise TypeError(f"{name}() takes either an options object or keywords, not both")
        return arguments[0]
    flags = list(flags_of(kind, hidden=True))
    given = _bind(name, flags, arguments, keywords)
    default = None
    if command.recipes:
        from tce.recipes import apply_recipe

        default = apply_recipe(kind, command.recipes, given.get("recipe", "default"))
    options = _fill(kind, given, default)
    assert not given, given
    return options


def _bind(
    name: str, flags: list[Flag], arguments: tuple[Any, ...], keywords: Mapping[str, Any]
) -> dict[str, Any]:
    positional = [flag.field for flag in flags if not flag.name.startswith("-")]
    if len(arguments) > len(positional):
        raise TypeError(f"{name}() takes {len(positional)} positional arguments, {len(arguments)} were given")
    given = dict(zip(positional, arguments))
    known = {flag.field for flag in flags}
    for key, value in keywords.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{name}() got an unexpected keyword argument {key!r}{hint}")
        if key in given:
            raise TypeError(f"{name}() got multiple values for argument {key!r}")
        given[key] = value
    missing = [flag.field for flag in flags if flag.required and flag.field not in given]
    if missing:
        raise TypeError(f"{name}() misses {', '.join(map(repr, missing))}")
    return {key: _value(value) for key, value in given.items()}


def _value(value: Any) -> Any:
    """Paths as text, lists as tuples, as the options hold them."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return tuple(map(_value, value)) if isinstance(value, list | tuple) else value


def _fill(kind: type, given: dict[str, Any], default: Any) -> Any:
    """An instance of a dataclass of options or of groups of them; what is used is taken out of `given`."""
    values: dict[str, Any] = {}
    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        hint = hints.get(field.name, None)
        own = getattr(default, field.name) if default is not None else None
        if dataclasses.is_dataclass(hint):
            values[field.name] = _fill(hint, given, own)  # type: ignore[arg-type]
        elif field.name in given:
            value = given.pop(field.name)
            several = "tuple[" in str(field.type) and isinstance(value, str)
            values[field.name] = (value,) if several else value
        elif default is not None:
            values[field.name] = own
    return kind(**values)


def _signature(flags: list[Flag]) -> inspect.Signature:
    parameters = []
    for flag in flags:
        by_name = flag.name.startswith("-")
        kind = inspect.Parameter.KEYWORD_ONLY if by_name else inspect.Parameter.POSITIONAL_OR_KEYWORD
        default = inspect.Parameter.empty if flag.required else flag.value
        parameters.append(inspect.Parameter(flag.field, kind, default=default))
    return inspect.Signature(sorted(parameters, key=lambda parameter: parameter.kind))


def _docstring(command: Command, flags: list[Flag]) -> str:
    lines = [f"{command.help}.", "", "Args:"]
    lines += [f"    {flag.field}: {flag.text}" for flag in flags]
    function = _source_docstring(command.function)
    _, found, rest = function.partition("Raises:")
    return "\n".join(lines) + (f"\n\nRaises:{rest.rstrip()}" if found else "")


def _source_docstring(place: str) -> str:
    """The docstring of the function at `module:name`, read from its source: nothing heavy is imported."""
    import ast
    import importlib.util

    module, _, name = place.partition(":")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    with open(spec.origin, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return ast.get_docstring(node) or ""
    return ""
