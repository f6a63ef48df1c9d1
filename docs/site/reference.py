"""Pages that MkDocs makes out of the code: the command line's reference."""

from __future__ import annotations

import html
from collections.abc import Iterator

from mkdocs.structure.files import File, Files

from tce.command_table import COMMANDS, Command, resolve
from tce.help import Flag, flags_of


def on_files(files: Files, config: object) -> Files:
    """Add the page of commands before MkDocs reads the others."""
    files.append(File.generated(config, "reference-cli.md", content=command_page()))
    return files


def command_page() -> str:
    """Every command with its examples and all of its options, as Markdown."""
    lines = [
        "# Command line",
        "",
        "`tce COMMAND --help` prints the usual options, `--help-all` all of them. From Python,",
        "`tce.COMMAND(...)` takes the same options as keywords. Every command has",
        "`--json`, `--verbose` and `--debug` as well.",
        "",
    ]
    for name, command in COMMANDS.items():
        lines += _command(name, command)
    return "\n".join(lines)


def _command(name: str, command: Command) -> Iterator[str]:
    yield from (f"## {name}", "", f"{command.help}.", "", "```", *command.examples, "```", "")
    groups: dict[str, list[Flag]] = {}
    for flag in flags_of(resolve(command.options)):
        groups.setdefault(flag.group, []).append(flag)
    for group, flags in groups.items():
        if len(groups) > 1:
            yield from (f"**{group}**", "")
        yield from ("| option | | default |", "|---|---|---|", *map(_row, flags), "")


def _row(flag: Flag) -> str:
    def cell(text: str) -> str:
        return html.escape(text, quote=False).replace("|", "\\|")

    name = f"`{flag.name} {flag.values}`".replace(" `", "`").replace("|", "\\|")
    default = "required" if flag.required else f"`{flag.default}`" if flag.default else ""
    return f"| {name} | {cell(flag.text)} | {default.replace('|', chr(92) + '|')} |"
