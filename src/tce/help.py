"""The text of `tce COMMAND --help`, out of the options' dataclasses, and usage errors in one line."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import re
import shlex
import shutil
import string
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from tce.command_table import NEXT, Command

NAME_WIDTH = 26  # of the column with flags
PLACES = (
    *("data", "lists", "out", "output", "ckpt", "weights", "savedir", "footage", "video", "path", "input"),
    *("db", "image", "csv", "sheet", "page"),
)


@dataclass(frozen=True)
class Flag:
    """One option as the help shows it."""

    field: str
    name: str  # --batch-size, or DATA where it is positional
    values: str  # INT, {a,b}, empty for a switch
    text: str
    default: str  # empty where there is none to show
    required: bool
    group: str
    value: Any = None  # the default itself


def flags_of(
    options: type, default: Any = dataclasses.MISSING, group: str = "", hidden: bool = False
) -> Iterator[Flag]:
    """The flags of a dataclass of options, or of groups of such, in order.

    Args:
        options: the dataclass.
        default: an instance whose values are the defaults, as a recipe gives it.
        group: heading under which its flags stand.
        hidden: also what only recipes and Python set.
    """
    hints, texts = get_type_hints(options, include_extras=True), _texts(options)
    for field in dataclasses.fields(options):
        hint, value = hints[field.name], _default(field, default)
        if dataclasses.is_dataclass(hint):
            yield from flags_of(hint, value, (hint.__doc__ or "").splitlines()[0].rstrip("."), hidden)  # type: ignore[arg-type]
            continue
        if "Suppress" in map(str, get_args(hint)[1:]) and not hidden:  # for recipes and Python only
            continue
        text = texts.get(field.name, "")
        yield _flag(field.name, hint, value, text, group or "Options")


def _flag(field: str, hint: Any, value: Any, text: str, group: str) -> Flag:
    marks = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    kind = get_args(hint)[0] if marks else hint
    positional = any("Positional" in str(mark) for mark in marks)
    flag = "--" + field.rstrip("_").replace("_", "-")  # `from_`: Python keeps `from` for itself
    if positional:
        metavar = next((mark.metavar for mark in marks if getattr(mark, "metavar", None)), field.upper())
        flag = metavar
    required = value in (dataclasses.MISSING, "")
    if kind is bool:
        return Flag(field, "--no-" + flag[2:] if value is True else flag, "", text, "", False, group, value)
    values = next((mark.metavar for mark in marks if getattr(mark, "nargs", None)), _values(field, kind))
    shown = "" if required else _shown(value)
    return Flag(field, flag, "" if positional else values, text, shown, required, group, value)


def _default(field: dataclasses.Field[Any], default: Any) -> Any:
    if default is not dataclasses.MISSING:
        return getattr(default, field.name)
    factory: Any = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def _shown(value: Any) -> str:
    if value is None or value in ((), dataclasses.MISSING):
        return ""
    return (
        " ".join(map(_shown, value))
        if isinstance(value, tuple)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


def _values(field: str, kind: Any) -> str:
    """What stands behind a flag: INT, NUMBER, {a,b}, PATH, TEXT; with ... where it takes several."""
    origin, inner = get_origin(kind), [part for part in get_args(kind) if part is not type(None)]
    if origin is Annotated:  # a number with its range
        return _values(field, inner[0])
    if origin in (Union, UnionType):
        return _values(field, inner[0]) if len(inner) == 1 else "VALUE"
    if origin is Literal:
        return "{" + ",".join(map(str, inner)) + "}"
    if origin is tuple:
        one = _values(field, inner[0])
        return f"{one} ..." if inner[-1] is Ellipsis else " ".join([one] * len(inner))
    if kind in (int, float):
        return "INT" if kind is int else "NUMBER"
    return "PATH" if field in PLACES or "folder" in field else "TEXT"


def _texts(options: type) -> dict[str, str]:
    """The docstring under each field, also of the classes it extends."""
    found: dict[str, str] = {}
    for kind in reversed(options.__mro__):
        if not dataclasses.is_dataclass(kind):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:]):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(field.target, ast.Name)
            ):
                found[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def help_text(
    prog: str, command: Command, flags: Sequence[Flag], output: Sequence[Flag], everything: bool
) -> str:
    """What `--help` prints.

    Args:
        prog: how the command was called.
        command: its entry in the table.
        flags: of its options.
        output: the flags that all commands share.
        everything: show all flags, not just the usual ones.
    """
    shown = [flag for flag in flags if everything or not command.usual or flag.field in command.usual]
    order = {name: place for place, name in enumerate(command.usual)}
    if command.usual and not everything:
        shown.sort(key=lambda flag: order[flag.field])
        groups = {"Options": shown}
    else:
        groups = {}
        for flag in shown:
            groups.setdefault(flag.group, []).append(flag)
    required = [
        flag.name if flag.name.isupper() else f"{flag.name} {flag.values}" for flag in flags if flag.required
    ]
    required.sort(key=lambda name: name.startswith("-"))  # what is positional comes first
    lines = [f"usage: {' '.join([prog, *required, '[options]'])}", "", f"{command.help}.", ""]
    width = max(60, min(shutil.get_terminal_size().columns, 100))
    for heading, members in [*groups.items(), ("Output", list(output))]:
        lines += [f"{heading}:", *(line for flag in members for line in _entry(flag, width)), ""]
    if command.examples:
        lines += ["Examples:", *(f"  {example}" for example in command.examples), ""]
    if len(shown) < len(flags):
        lines.append(f"{len(flags) - len(shown)} more options: {prog} --help-all")
    return "\n".join(lines).rstrip()


def _entry(flag: Flag, width: int) -> list[str]:
    head = f"  {flag.name} {flag.values}".rstrip()
    text = flag.text + (" Required." if flag.required else f" [{flag.default}]" if flag.default else "")
    wrapped = textwrap.wrap(text, width - NAME_WIDTH, break_long_words=False, break_on_hyphens=False) or [""]
    if len(head) > NAME_WIDTH - 2:
        return [head, *(" " * NAME_WIDTH + line for line in wrapped)]
    return [head.ljust(NAME_WIDTH) + wrapped[0], *(" " * NAME_WIDTH + line for line in wrapped[1:])]


def next_step(name: str, options: Any, figures: Mapping[str, Any]) -> str:
    """The line with what to do after a command; empty where there is none.

    Args:
        name: the command.
        options: what it was given.
        figures: what it returned; `kind` of a network and `type` distinguish what `tce info` describes.
    """
    key = name
    if name == "info" and "type" in figures:
        is_network = figures["type"] in ("checkpoint", "run")
        key = f"info {figures['kind'] if is_network else figures['type']}"
    template = NEXT.get(key, "")
    values = {key: _argument(value) for key, value in _flat(options).items()}
    needed = [key for _, key, _, _ in string.Formatter().parse(template) if key]
    if not template or any(values.get(key) is None for key in needed):
        return ""
    if figures.get("bad"):  # `tce check` itself prints how to repair what it found
        return ""
    return "next: " + template.format(**values)


def _flat(options: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        found |= _flat(value) if dataclasses.is_dataclass(value) else {field.name: value}
    return found


def _argument(value: Any) -> str | None:
    """A value as it is typed in a shell; None where there is none, or more than one."""
    if isinstance(value, tuple):
        return shlex.quote(value[0]) if len(value) == 1 and isinstance(value[0], str) else None
    return shlex.quote(value) if isinstance(value, str) and value else None


def usage_error(prog: str, command: Command, flags: Sequence[Flag], box: str) -> str:
    """Tyro's account of a usage error as one line: what is missing, unknown or wrong, and what to do.

    Args:
        prog: how the command was called.
        command: its entry in the table.
        flags: all flags that it takes.
        box: what tyro printed.
    """
    names = [flag.name for flag in flags]
    missing, unknown, text = _sections(box, names)
    problems = [_value_problem(text, flags)] if text else []
    for name in (name for name in unknown if name.startswith("-")):
        near = difflib.get_close_matches(name, names, 1)
        problems.append(f"unknown option {name}" + (f" (did you mean {near[0]}?)" if near else ""))
    if unknown and not problems:
        problems.append(f"unexpected {' '.join(unknown)}")
    if missing and not unknown:
        problems.append(f"missing {', '.join(missing)}")
    example = f"; for example: {command.examples[0]}" if missing and not unknown and command.examples else ""
    what = "; ".join(problems) or "these arguments cannot be read"
    return f"{prog}: {what}{example}; {prog} --help lists the options"


def _sections(box: str, names: Sequence[str]) -> tuple[list[str], list[str], str]:
    """The names of missing flags, the words not known, and any other text of an error box."""
    missing: list[str] = []
    unknown: list[str] = []
    other: list[str] = []
    section = other
    lines = [line.strip("│|╭╮╰╯─+ ") for line in box.splitlines()]
    for line in [line for line in lines if line][1:]:  # the first one is the title
        if not line.strip("-"):
            continue
        if line.startswith(("For full helptext", "Argument helptext")):
            section = []
        elif line.startswith("Missing from"):
            section = missing
        elif line.startswith("Unrecognized"):
            section = unknown
            unknown += [word.rstrip(",") for word in line.partition(":")[2].split()]
        elif section is missing:
            missing += [word for word in line.split()[:1] if word in names]
        else:
            section.append(line)
    return missing, unknown, " ".join(other)


def _value_problem(text: str, flags: Sequence[Flag]) -> str:
    """A wrong value of a flag: the flag, what it takes, what it was given."""
    name = next(iter(re.findall(r"--[\w-]+", text)), "")
    values = {flag.name: flag.values for flag in flags}.get(name, "")
    found = re.search(r"invalid choice ('.*?') |: ('[^']*')$", text)
    if not values or not (found or text.startswith("Missing value")):
        return text.rstrip(".")
    given = next(filter(None, found.groups())) if found else "nothing"
    return f"{name}; expected {values.strip('{}').replace(',', ', ')}; found {given}"
