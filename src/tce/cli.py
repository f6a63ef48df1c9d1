"""The command line: one table from a command's name to its options and its function.

A command is a plain library function that takes one frozen dataclass of options and returns a `Result`.
Flags, help and defaults come from the dataclass. Nothing heavy is imported before the command is known.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args

from tce.errors import TceError


@dataclass(frozen=True)
class Command:
    """Where a command lives; both places are `module:name`, the options' module imports no torch."""

    function: str
    options: str
    help: str
    recipes: str = ""  # folder of src/tce/recipes with this command's named recipes


COMMANDS = {
    "demo": Command(
        "tce.commands.demo:demo",
        "tce.options.demo:DemoOptions",
        "see it work on generated clips, in about two minutes",
    ),
    "pack": Command(
        "tce.data.pack:pack",
        "tce.options.pack:PackOptions",
        "videos or frame folders -> a collection",
    ),
    "check": Command(
        "tce.data.check:check",
        "tce.options.check:CheckOptions",
        "list unreadable footage or damaged rows",
    ),
    "pretrain": Command(
        "tce.train.pretrain:pretrain",
        "tce.options.pretrain:PretrainOptions",
        "learn embeddings from unlabelled footage",
        "pretrain",
    ),
    "embed": Command(
        "tce.embedding.embed:embed_inputs",
        "tce.options.embed:EmbedOptions",
        "videos -> embeddings with video, frame and time",
    ),
    "tsne": Command(
        "tce.visualize.tsne:tsne", "tce.options.tsne:TsneOptions", "videos -> a t-SNE picture or film"
    ),
    "finetune": Command(
        "tce.train.finetune:finetune",
        "tce.options.finetune:FinetuneOptions",
        "train an action classifier",
        "finetune",
    ),
    "evaluate": Command(
        "tce.evaluation.evaluate:evaluate",
        "tce.options.evaluate:EvaluateOptions",
        "judge a checkpoint by a protocol",
    ),
    "compare": Command(
        "tce.evaluation.compare:compare",
        "tce.options.compare:CompareOptions",
        "several results in one table and chart",
    ),
    "classify": Command(
        "tce.evaluation.classify:classify",
        "tce.options.classify:ClassifyOptions",
        "a video's top classes over time",
    ),
    "convert": Command(
        "tce.model.convert:convert",
        "tce.options.convert:ConvertOptions",
        "any known checkpoint -> model.safetensors",
    ),
    "export": Command(
        "tce.model.export:export", "tce.options.export:ExportOptions", "a checkpoint -> ONNX, checked"
    ),
    "info": Command(
        "tce.commands.info:info",
        "tce.options.info:InfoOptions",
        "what a checkpoint, run, collection, dataset or video is",
    ),
}


@dataclass(frozen=True)
class OutputOptions:
    """How the command talks."""

    json: bool = False
    """The result as JSON on standard output; everything else goes to standard error."""
    verbose: bool = False
    """Say more about what is being done."""
    debug: bool = False
    """Show the full traceback of an error."""


def resolve(place: str) -> Any:
    """The object at `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


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
            "Start with `tce demo`, or with your own videos: tce pretrain FOLDER --out RUN",
        ]
    )


def _optional(info: Any) -> Any:
    """How tyro reads and shows `X | None`: as an X, "unset" where it is None, rather than as {None}|X."""
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
    """A command's options out of its arguments; a `--recipe` gives the defaults that flags override."""
    import tyro

    command = COMMANDS[name]
    options = resolve(command.options)
    default: Any = dataclasses.MISSING
    if command.recipes:
        from tce.recipes import apply_recipe, named_recipe

        default = apply_recipe(options, command.recipes, named_recipe(arguments))
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
        both,
        registry=registry,
        args=list(arguments),
        prog=prog or f"tce {name}",
        description=command.help,
        config=(tyro.conf.FlagCreatePairsOff,),
    )
    return parsed.options, parsed.output


def run(name: str, arguments: Sequence[str], prog: str | None = None) -> int:
    """Parse and run one command, print its result, and give the exit code (0, 1 or 130)."""
    try:
        options, output = parse(name, arguments, prog)
    except TceError as error:  # options that contradict each other
        print(f"tce: {error}", file=sys.stderr)
        return 1
    function = resolve(COMMANDS[name].function)
    return report(lambda: function(options), output)


def report(work: Callable[[], Any], output: OutputOptions) -> int:
    """Run `work`, print what it returns, and turn its errors into one line and an exit code."""
    from tce.progress import show_bars
    from tce.result import plain
    from tce.signals import raise_terminations

    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("tce").setLevel(logging.DEBUG if output.verbose else logging.INFO)
    show_bars()
    try:
        with raise_terminations():
            result = work()
    except KeyboardInterrupt as error:  # commands that keep some of their work say what
        print(str(error) or "stopped by Ctrl-C", file=sys.stderr)
        return 130
    except TceError as error:
        if output.debug:
            raise
        print(f"tce: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # a full disk, a missing right: the system's words name the file
        if output.debug:
            raise
        print(f"tce: {error.filename or 'input/output'}: {error.strerror or error}", file=sys.stderr)
        return 1
    if os.environ.get("RANK", "0") != "0":
        return 0  # of several processes started together the first one speaks
    if output.json:
        print(json.dumps(plain(result.figures), sort_keys=True))
    elif result.text:
        print(result.text)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """The `tce` program."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        from tce import __version__

        print(__version__)
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean `tce {near[0]}`?" if near else "`tce --help` lists the commands"
        print(f"tce: unknown command {name!r}; {hint}", file=sys.stderr)
        return 2
    try:
        return run(name, rest)
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
