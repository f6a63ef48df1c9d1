"""The model card: what the network is, its data, protocol, figures and limits, without any private path."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from tce.data.catalog import describe_sketch
from tce.errors import printable

MARK = "<!-- written by tce publish -->"
PATHS = ("path", "lists", "data", "footage", "ckpt", "out", "weights")
PUBLIC = re.compile(r"lite0|lite2|random|hf:(?!//)[\w.-]+(?:/[\w.-]+)?|hf://[\w.-]+/[\w.-]+(?:@[\w./-]+)?")


def without_paths(value: Any, name: str = "") -> Any:
    """A description with the last part alone of every path: where files lay is nobody's business.

    Names of public networks stay as they are.

    Args:
        value: JSON types.
        name: the entry's name.
    """
    if isinstance(value, Mapping):
        return {key: without_paths(item, key) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(item, name) for item in value]
    if not isinstance(value, str) or PUBLIC.fullmatch(value):
        return value
    if name in PATHS or re.match(r"(?:[~/\\]|\.\.?[/\\]|[A-Za-z]:[/\\])", value):
        return last_part(value)
    return value


def last_part(path: str) -> str:
    """The last part of a path of any system."""
    path = path.removeprefix("hf:")
    kind = PureWindowsPath if "\\" in path or re.match(r"[A-Za-z]:", path) else PurePosixPath
    return kind(path).name


def text(value: Any) -> str:
    """A value as text that stays text in Markdown and HTML."""
    words = printable(str(value)).replace("\n", " ")
    return "".join(f"\\{char}" if char in "\\`*_[]<>|#" else char for char in words)


def model_card(
    name: str,
    config: Mapping[str, Any],
    digest: str,
    outcome: Mapping[str, Any],
    figures: Sequence[tuple[str, Sequence[str]]],
    about: str | None,
    limits: str | None,
    license: str | None,
    address: str,
) -> str:
    """The card as Markdown with the Hub's header.

    Args:
        name: of the network.
        config: its description, without paths.
        digest: the hash of its tensors.
        outcome: the run's result.json; empty where there is none.
        figures: titles of results, and their lines.
        about: what the videos show, in the user's words.
        limits: what it must not be used for, in the user's words.
        license: of the weights.
        address: what others give as --ckpt.
    """
    kind = config["kind"]
    provenance = config.get("provenance") or {}
    task = "video-classification" if kind == "classifier" else "image-feature-extraction"
    header = ["---", "library_name: tce", f"pipeline_tag: {task}"]
    header += [f"license: {license}"] if license else []
    header += ["tags:", "- tce", "- video", "- self-supervised", "---"]
    lines = [
        *header,
        MARK,
        f"# {text(name)}",
        "",
        f"{'A classifier' if kind == 'classifier' else 'An encoder'} of video frames "
        f"({text(config['architecture'])}, "
        f"{config['image_size']} pixels), made with tce (Temporally Coherent Embeddings).",
        "",
        "```",
        *_usage(kind, address),
        "```",
        "",
        "## Network",
        *_table(_network(config, digest)),
        "",
        "## Data",
        *_data(provenance, outcome, about),
        "",
        "## How it was made",
        *_table(_protocol(provenance)),
        "",
        "## Figures",
        *_figures(outcome, figures),
        "",
        "## Limits",
        *(f"- {line}" for line in _limits(kind, provenance, outcome, figures, limits)),
        "",
        "## Licence",
        f"The weights: {license}."
        if license
        else "None was stated for the weights: ask the publisher before you use them.",
        "They follow the licences of the start and of the videos as well.",
    ]
    return "\n".join(lines) + "\n"


def _usage(kind: str, address: str) -> list[str]:
    if kind == "classifier":
        return [f"tce classify clip.mp4 --ckpt {address}"]
    return [
        f"tce embed --ckpt {address} --input clip.mp4 --output clip.npz",
        f"tce explore FOLDER --ckpt {address} --output page.html",
    ]


def _table(rows: Sequence[tuple[str, Any]]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {text(name)} | {text(value)} |" for name, value in rows)]


def _network(config: Mapping[str, Any], digest: str) -> list[tuple[str, Any]]:
    rows = [
        ("architecture", config["architecture"]),
        ("input", f"{config['image_size']} px, {config['resize']}"),
    ]
    if config["kind"] == "classifier":
        classes = config.get("classes") or []
        shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        rows += [("classes", f"{config['num_classes']}: {shown}" if classes else config["num_classes"])]
    else:
        rows += [("embedding", f"{config['embedding_size']} numbers"), ("head", config["head"])]
    return [*rows, ("hash of the tensors", digest)]


def _data(provenance: Mapping[str, Any], outcome: Mapping[str, Any], about: str | None) -> list[str]:
    lines = [text(about), ""] if about else ["What the videos show was not stated.", ""]
    facts: list[tuple[str, Any]] = []
    clips = outcome.get("clips", provenance.get("train_clips"))
    if clips is None and isinstance(provenance.get("clips"), str):
        clips = describe_sketch(provenance["clips"])
    facts += [("clips", clips)] if clips is not None else []
    facts += [("frames", outcome["frames"])] if "frames" in outcome else []
    if isinstance(outcome.get("skipped"), Mapping):
        facts.append(("clips that could not be read", len(outcome["skipped"])))
    if provenance.get("split"):
        facts.append(("split", provenance["split"]))
    return lines + (_table(facts) if facts else ["How many clips is not recorded."])


def _protocol(provenance: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The entries of the provenance that are single values, those of its parts with the part's name."""
    rows = []
    for name, value in provenance.items():
        if name == "clips":
            continue
        if isinstance(value, Mapping):
            rows += [
                (f"{name}: {key}", item) for key, item in value.items() if _single(item) and key != "clips"
            ]
        elif _single(value):
            rows.append((name, value))
    return rows or [("made", "unknown")]


def _single(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def _figures(outcome: Mapping[str, Any], figures: Sequence[tuple[str, Sequence[str]]]) -> list[str]:
    lines = []
    if outcome.get("held_out"):
        lines += [
            f"Frames that find their own clip among {outcome['held_out']} held-out ones, without labels: "
            f"start "
            f"{outcome['start']:.1%}, adapted {outcome['adapted']:.1%} (chance {outcome['chance']:.1%}).",
            "",
        ]
    for title, rows in figures:
        lines += [
            f"**{text(title)}**",
            "",
            "```",
            *(printable(row).replace("```", "'''") for row in rows),
            "```",
            "",
        ]
    return lines[:-1] if lines else ["None were given."]


def _limits(
    kind: str,
    provenance: Mapping[str, Any],
    outcome: Mapping[str, Any],
    figures: Sequence[tuple[str, Sequence[str]]],
    limits: str | None,
) -> list[str]:
    lines = [text(limits)] if limits else []
    if not figures:
        lines.append(
            "It was not evaluated with labels here: measure it on your clips (`tce evaluate`, `tce report`)."
        )
    step, steps = provenance.get("step"), provenance.get("steps")
    if isinstance(step, int) and isinstance(steps, int) and step < steps:
        lines.append(f"Its training was stopped at step {step} of {steps}.")
    if outcome.get("kept_start"):
        lines.append("The adaptation was not better on held-out clips: this is the start, unchanged.")
    if provenance.get("made") == "tce adapt":
        lines.append(
            "It was fitted to one set of videos. Other people, cameras or places may need an adaptation of "
            "their own."
        )
        if not outcome.get("held_out"):
            lines.append("Too few clips were held out to check it.")
    if kind == "classifier":
        lines.append("It names one of its classes for any video, also for one that shows none of them.")
    lines.append(
        "Embeddings can tell people, cameras and places apart; what was learned from may show in them."
    )
    return lines
