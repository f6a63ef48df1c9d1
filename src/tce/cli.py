"""The command line: parse the arguments of one command, run its function, print its result.

A command is a plain library function that takes one frozen dataclass of options and returns a result; the
table is in `tce.command_table`. Nothing heavy is imported before the command is known.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args

from tce.command_table import COMMANDS, Command, resolve
from tce.errors import TceError, printable

__all__ = ["COMMANDS", "Command", "OutputOptions", "main", "parse", "report", "resolve", "run"]


@dataclass(frozen=True)
class OutputOptions:
    """What is printed."""

    json: bool = False
    """Print the result as JSON on standard output; everything else goes to standard error."""
    verbose: bool = False
    """Log more of what is being done."""
    debug: bool = False
    """Show the full traceback of an error."""


def overview() -> str:
    """The text of `tce --help`."""
    from tce import __version__

    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"tce {__version__}: frame embeddings from unlabelled video",
            "",
            "usage: tce COMMAND [options]        tce COMMAND --help",
            "",
            *lines,
            "",
            "Start with `tce demo`, or with your own videos: tce info FOLDER",
        ]
    )


def _optional(info: Any) -> Any:
    """How tyro reads `X | None`: as an X, or as None for the word "unset"."""
    from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

    some = [kind for kind in get_args(info.type) if kind is not type(None)]
    if info.type_origin not in (Union, UnionType) or len(some) != 1 or len(get_args(info.type)) != 2:
        return None
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(some[0], info.markers))
    if not isinstance(spec, PrimitiveConstructorSpec) or spec.nargs != 1:
        return None
    return dataclasses.replace(
        spec,
        choices=spec.choices and (*spec.choices, "unset"),
        instance_from_str=lambda words: None if words == ["unset"] else spec.instance_from_str(words),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["unset"] if value is None else spec.str_from_instance(value),
    )


def parse(name: str, arguments: Sequence[str], prog: str | None = None) -> tuple[Any, OutputOptions]:
    """A command's options out of its arguments; a `--recipe` gives the defaults that flags override.

    Raises:
        SystemExit: after `--help` (0), or a usage error, printed in one line (2).
        TceError: options that contradict each other or lie outside their range.
    """
    command, prog = COMMANDS[name], prog or f"tce {name}"
    options = resolve(command.options)
    default: Any = dataclasses.MISSING
    if command.recipes:
        from tce.recipes import apply_recipe, named_recipe

        default = apply_recipe(options, command.recipes, named_recipe(arguments))
    asked = {"-h", "--help", "--help-all"} & set(arguments)
    if asked:
        from tce.help import flags_of, help_text

        flags, output = list(flags_of(options, default)), list(flags_of(OutputOptions))
        print(help_text(prog, command, flags, output, "--help-all" in asked))
        raise SystemExit(0)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return _read(options, default, arguments, prog)
    except SystemExit as stop:
        from tce.help import flags_of, usage_error

        flags = [*flags_of(options, default), *flags_of(OutputOptions)]
        print(printable(usage_error(prog, command, flags, printed.getvalue())), file=sys.stderr)
        raise SystemExit(2 if stop.code else 0) from None


def _read(options: type, default: Any, arguments: Sequence[str], prog: str) -> tuple[Any, OutputOptions]:
    """Options and output options by tyro, which fills dataclasses from arguments."""
    import tyro

    # Flags stand without their group's name, and the groups without the name of the whole.
    flat: Any = Annotated[options, tyro.conf.OmitArgPrefixes, tyro.conf.arg(name="")]
    output: Any = Annotated[OutputOptions, tyro.conf.OmitArgPrefixes]
    fields: list[Any] = [
        ("options", flat, dataclasses.field(default=default)),
        ("output", output, dataclasses.field(default=OutputOptions())),
    ]
    if default is dataclasses.MISSING:
        fields[0] = ("options", flat)
    both = dataclasses.make_dataclass("Invocation", fields)
    registry = tyro.constructors.ConstructorRegistry()
    registry.primitive_rule(_optional)
    parsed: Any = tyro.cli(
        both, registry=registry, args=list(arguments), prog=prog, config=(tyro.conf.FlagCreatePairsOff,)
    )
    return parsed.options, parsed.output


def run(name: str, arguments: Sequence[str], prog: str | None = None) -> int:
    """Parse and run one command, print its result, and give the exit code (0, 1, 2 or 130)."""
    with _standard_streams():
        try:
            options, output = parse(name, arguments, prog)
            if hasattr(options, "require_given"):
                options.require_given()  # before the command's imports, which take seconds
        except SystemExit as stop:
            return int(stop.code or 0)
        except TceError as error:  # options that contradict each other
            print(f"tce: {error}", file=sys.stderr)
            return 1
        function = resolve(COMMANDS[name].function)
        return report(lambda: function(options), output, lambda result: _next_step(name, options, result))
    return 1  # the reader of our output went away, as `| head` does


@contextlib.contextmanager
def _standard_streams() -> Any:
    """Prints any name to any terminal or pipe, also to one whose reader goes away."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # an ASCII terminal, a name that is not
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Printable(logging.Formatter):
    """Log lines without control characters: names in them come out of strangers' files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def _next_step(name: str, options: Any, result: Any) -> str:
    from tce.help import next_step

    return next_step(name, options, result.figures)


def report(work: Callable[[], Any], output: OutputOptions, after: Callable[[Any], str] | None = None) -> int:
    """Run `work`, print what it returns, and turn its errors into one line and an exit code.

    Args:
        work: the command.
        output: what is printed.
        after: gives a line to print after the result.
    """
    from tce.io import plain
    from tce.progress import show_bars
    from tce.signals import raise_terminations

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Printable("%(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("tce").setLevel(logging.DEBUG if output.verbose else logging.INFO)
    show_bars()
    try:
        with raise_terminations():
            result = work()
    except KeyboardInterrupt as error:  # commands that keep some of their work say what
        print(printable(str(error)) or "stopped by Ctrl-C", file=sys.stderr)
        return 130
    except TceError as error:
        if output.debug:
            raise
        print(f"tce: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:  # a full disk, a missing right: the system's words name the file
        if output.debug:
            raise
        text = f"tce: {error.filename or 'input/output'}: {error.strerror or error}"
        print(printable(text), file=sys.stderr)
        return 1
    if os.environ.get("RANK", "0") != "0":
        return 0  # of several processes started together only the first one prints
    if output.json:
        print(json.dumps(plain(result.figures), sort_keys=True))
    elif result.text:
        print(printable(result.text))
        if after is not None and "\nnext: " not in result.text and (line := after(result)):
            print(printable(line))
    return getattr(result, "exit_code", 0)


def main(arguments: Sequence[str] | None = None) -> int:
    """The `tce` program."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0] in COMMANDS:
        return run(arguments[0], arguments[1:])
    with _standard_streams():
        return _without_command(arguments)
    return 1


def _without_command(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        from tce import __version__

        print(__version__)
        return 0
    import difflib

    name = arguments[0]
    near = difflib.get_close_matches(name, COMMANDS, 1)
    hint = f"did you mean `tce {near[0]}`?" if near else "`tce --help` lists the commands"
    print(printable(f"tce: unknown command {name!r}; {hint}"), file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
