"""The report as Markdown: the same figures as the page, for a repository or an issue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tce.errors import printable
from tce.reporting.comparison import KNN, RETRIEVAL, Compared, few_name
from tce.reporting.report_words import capital, percent
from tce.reporting.verdict import difference_words


def build_report_text(figures: Mapping[str, Any], found: Compared) -> str:
    """The report as Markdown.

    Args:
        figures: of `describe_report`.
        found: the networks.
    """
    footage = figures["footage"]
    lines = [
        f"# Report on {cell(footage['path'])}",
        "",
        f"**{cell(capital(figures['headline']))}.**",
        "",
        f"{footage['clips']:,} clips of {footage['recordings']:,} recordings, "
        f"{footage['frames']:,} frames seen.",
    ]
    for one in found.judged[1:]:
        assert one.verdict is not None
        lines += ["", f"{cell(one.name)}: {cell(one.verdict.text)}; {cell(one.verdict.advice)}."]
    if found.split is not None:
        labels = figures["labels"]
        lines += [
            "",
            "## With labels",
            f"{len(labels['classes'])} classes, {labels['tested']:,} tested clips, "
            f"{cell(labels['chosen'])}; chance "
            f"{percent(labels['chance'])}.",
            "",
        ]
        shots = list(found.start.labels.few) if found.start.labels is not None else []
        lines += _table(figures, found, [KNN, *map(few_name, shots), "linear classifier"])
    lines += ["", "## Without labels", ""]
    if found.start.retrieval is not None:
        lines += [f"{capital(RETRIEVAL)} (chance {percent(found.start.retrieval.chance)}).", ""]
    lines += _table(figures, found, [RETRIEVAL])
    for title, entries in (("What it cannot say", "limits"), ("What to keep in mind", "cautions")):
        if figures[entries]:
            lines += ["", f"## {title}", *(f"- {cell(capital(line))}." for line in figures[entries])]
    lines += ["", "## Rules", *(f"{number}. {rule}" for number, rule in enumerate(figures["rules"], 1))]
    versions = ", ".join(f"{name} {value}" for name, value in figures["versions"].items())
    lines += [
        "",
        "## Again",
        "",
        f"    {printable(figures['command'])}",
        "",
        f"Made {figures['made']} with {versions}.",
    ]
    return "\n".join(lines) + "\n"


def _table(figures: Mapping[str, Any], found: Compared, names: Sequence[str]) -> list[str]:
    """A row for each network: values with intervals, and their differences to the start."""
    head = ["network", *(column for name in names for column in (name, "less the start"))]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for one in found.networks:
        cells = [cell(one.name)]
        for name in names:
            entry = figures["networks"][one.name].get(name)
            cells.append("-" if entry is None else percent(entry["value"], entry["interval"]))
            apart = one.against.get(name)
            cells.append("" if apart is None else difference_words(apart))
        if any(text not in ("-", "") for text in cells[1:]):
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def cell(text: str) -> str:
    """Text that stays text in a table and a paragraph of Markdown."""
    text = printable(text).replace("\n", " ")
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#" else char for char in text)
