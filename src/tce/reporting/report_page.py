"""The report as one HTML page: no script, no network, names from footage as text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from tce.reporting.charts import escape
from tce.reporting.comparison import KNN, Compared, Looked, Network
from tce.reporting.own_adaptation import Stability
from tce.reporting.report_pictures import Pictures
from tce.reporting.report_sections import (
    alike_section,
    groups_section,
    labelled_section,
    maps_section,
    network_kinds,
    unlabelled_section,
)
from tce.reporting.report_words import capital

MARKS = {
    "better": "worth it",
    "worse": "not worth it",
    "collapsed": "not worth it",
    "none": "no difference seen",
    "too little": "too little footage to tell",
}


def build_report_page(
    figures: Mapping[str, Any], found: Compared, looked: Looked, pictures: Pictures, stability: Stability
) -> str:
    """The page as text.

    Args:
        figures: of `describe_report`.
        found: the networks.
        looked: the footage.
        pictures: of the footage.
        stability: of the adaptation.
    """
    title = f"Report on {figures['footage']['path']}"
    kinds = network_kinds(found)
    parts = [
        _head(figures, found),
        _networks(figures),
        labelled_section(figures, found, kinds) if found.split is not None else "",
        unlabelled_section(figures, found, kinds, stability),
        groups_section(found, looked),
        maps_section(pictures),
        alike_section(pictures, found, looked),
        _limits(figures),
        _how(figures),
    ]
    body = "".join(part for part in parts if part)
    return (
        '<!DOCTYPE html>\n<html lang="en" translate="no">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{report_policy()}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n<meta name="color-scheme" content="light dark">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{stylesheet()}</style>\n</head>\n<body>\n<main>{body}</main>\n</body>\n</html>\n"
    )


def report_policy() -> str:
    """The page's Content Security Policy: its own style by its hash, its own pictures, and nothing else."""
    digest = base64.b64encode(hashlib.sha256(stylesheet().encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; "
        "connect-src 'none'; form-action 'none'; base-uri 'none'"
    )


@cache
def stylesheet() -> str:
    """The page's style."""
    return files("tce.reporting").joinpath("report.css").read_text(encoding="utf-8")


def _head(figures: Mapping[str, Any], found: Compared) -> str:
    footage = figures["footage"]
    lead = found.judged[0] if found.judged else None
    decision = lead.verdict.decision if lead is not None and lead.verdict is not None else "none"
    kind = "little" if decision == "too little" else decision
    lines = []
    if lead is not None and lead.verdict is not None:
        sentence = lead.verdict.text
        lead_in = f"{lead.name} is " if decision in ("better", "worse", "collapsed") else ""
        lines.append(f'<p class="say">{escape(capital(lead_in + sentence))}</p>')
        hint = f": {_hint(lead)}" if _hint(lead) else "."
        lines.append(f"<p><b>{escape(capital(lead.verdict.advice))}</b>{hint}</p>")
        lines.append(f"<p>{escape(_why(found, lead))}</p>")
    else:
        lines.append('<p class="say">Nothing was compared with the start</p>')
    for one in found.judged[1:]:
        assert one.verdict is not None
        words = f"{one.verdict.text}; {one.verdict.advice}."
        lines.append(f"<p><b>{escape(one.name)}</b>: {escape(words)} {_hint(one)}</p>")
    labels = figures["labels"]
    facts = {
        "clips": f"{footage['clips']:,}",
        "recordings": f"{footage['recordings']:,}",
        "frames seen": f"{footage['frames']:,}",
        "classes": "no labels" if labels is None else f"{len(labels['classes']):,}",
        "seconds": f"{sum(figures['seconds'].values()):.0f}",
    }
    if footage["pieces"] > footage["clips"]:
        facts = {"clips": facts["clips"], "pieces of them": f"{footage['pieces']:,}"} | facts
    entries = "".join(f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return (
        f'<header><p class="eyebrow">Was it worth it on this footage?</p><h1>{escape(footage["path"])}</h1>'
        f"</header>"
        f'<section class="verdict {kind}"><div class="mark">{MARKS[decision]}</div>{"".join(lines)}'
        f'<dl class="facts">{entries}</dl></section>'
    )


def _hint(one: Network) -> str:
    """How other commands use a network that is worth it."""
    if one.verdict is None or one.verdict.decision != "better" or not one.hint:
        return ""
    return f"<code>{escape(one.hint)}</code>"


def _why(found: Compared, one: Network) -> str:
    """What the verdict's figure is, in a sentence."""
    apart = one.against.get(found.measure)
    if apart is None:
        return ""
    return (
        f"By {found.measure}: {one.name} {apart.other:.1%}, start {apart.start:.1%}, on the same "
        f"{'test clips' if found.measure == KNN else 'held-out clips'}; in brackets the 95% interval over "
        f"recordings."
    )


def _networks(figures: Mapping[str, Any]) -> str:
    rows = []
    for name, facts in figures["networks"].items():
        if facts["role"] == "centred":
            what = f"{facts['of']}, each group's mean subtracted from its clips"
            rows.append(f"<tr><td><b>{escape(name)}</b></td><td colspan=4>{escape(what)}</td></tr>")
            continue
        source = facts["source"] or "random weights"
        shape = f"{facts['image_size']} px, {facts['crop']}"
        vectors = "-" if facts["numbers"] is None else f"{facts['layer']}, {facts['numbers']} numbers"
        cells = (source, facts["architecture"], shape, vectors)
        rows.append(
            f"<tr><td><b>{escape(name)}</b></td>"
            + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells)
            + "</tr>"
        )
    head = (
        "<tr><th>network</th><th>from</th><th>architecture</th><th>input</th><th>what is compared</th></tr>"
    )
    return (
        "<h2>What was compared</h2><p>Every network saw the same frames of the same clips; each clip was "
        "decoded "
        "once.</p>"
        f'<div class="card scroll"><table>{head}{"".join(rows)}</table></div>'
    )


def _limits(figures: Mapping[str, Any]) -> str:
    skipped = figures["footage"]["skipped"]
    parts = []
    if figures["limits"]:
        items = "".join(f"<li>{escape(capital(line))}.</li>" for line in figures["limits"])
        parts.append(f'<div class="card"><h3>What it cannot say</h3><ul>{items}</ul></div>')
    cautions = list(figures["cautions"])
    if skipped:
        first = next(iter(skipped.values()))
        cautions.append(f"{len(skipped)} clips could not be read and are left out; the first: {first}")
    if cautions:
        items = "".join(f"<li>{escape(capital(line))}.</li>" for line in cautions)
        parts.append(f'<div class="card"><h3>What to keep in mind</h3><ul>{items}</ul></div>')
    if not parts:
        return ""
    return f"<h2>Limits</h2>{''.join(parts)}"


def _how(figures: Mapping[str, Any]) -> str:
    rules = "".join(f"<li>{escape(rule)}</li>" for rule in figures["rules"])
    seconds = ", ".join(f"{name} {value:.0f} s" for name, value in figures["seconds"].items())
    versions = ", ".join(f"{name} {value}" for name, value in figures["versions"].items())
    return (
        "<h2>How this was made</h2>"
        f'<div class="card"><h3>The verdict\'s rules</h3><p class="soft">Applied in this order to '
        f"{escape(figures['measure'])}."
        f"</p><ol>{rules}</ol></div>"
        f'<div class="card"><h3>Again</h3><pre><code>{escape(figures["command"])}</code></pre>'
        f'<p class="soft">{escape(seconds)}. {escape(_passed(figures))}'
        f" Made {escape(figures['made'])} with "
        f"{escape(versions)}. The same "
        "figures are in report.json and report.md.</p></div>"
        "<footer>This page holds no script and uses no network.</footer>"
    )


def _passed(figures: Mapping[str, Any]) -> str:
    """How many frames passed a network, and what ran it."""
    if not figures["frames_passed"]:
        return "No frame passed a network: the features are those of an earlier report."
    return f"{figures['frames_passed']:,} frames passed a network in {'; '.join(figures['engines'])}."
