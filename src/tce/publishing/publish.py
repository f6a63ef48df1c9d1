"""The command `tce publish`: a network, its description and a model card as a folder, or on the Hub."""

from __future__ import annotations

import dataclasses
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tce.errors import OptionError, TceError
from tce.hub.hub_files import is_hub_address, parse_address, upload_folder
from tce.io import Result, atomic, require_writable, write_json
from tce.model.checkpoint import describe, load_classifier, load_encoder, save_model
from tce.options.publish import PublishOptions
from tce.publishing.model_card import MARK, last_part, model_card, without_paths

CARD, FIGURES = "README.md", "figures.json"
FILES = ("model.safetensors", "config.json", CARD, FIGURES)
KEPT_OUTCOME = (
    "kept_start",
    "start",
    "adapted",
    "chance",
    "held_out",
    "clips",
    "frames",
    "skipped",
    "image_size",
)
MOST_ROWS = 40  # of a result in the card


def publish(options: PublishOptions) -> Result:
    """Write a network's folder as Hugging Face Hub folders are: weights, description, card and figures.

    Nothing else of a run leaves: no training state, no sums over the footage, no log, and of paths their last
    part alone. `--ckpt FOLDER` or `--ckpt hf://owner/name` reads it again, with the same hash.

    Args:
        options: the run, the place, and what the card says.

    Returns:
        `to`, `files`, `hash`, `kind`.

    Raises:
        OptionError: a folder that holds something else.
        TceError: no network, a result that cannot be read, no place to write, or the Hub refuses.
    """
    address = is_hub_address(options.to)
    if address:
        parse_address(options.to)
    else:
        _require_place(options)
    facts = describe(options.run)
    figures = [_result_lines(place) for place in options.results]
    if address:
        with tempfile.TemporaryDirectory(prefix="tce-publish-") as place:
            _write(Path(place), options, facts, figures)
            upload_folder(options.to, Path(place), options.private, f"Publish {_name(options)} with tce")
    else:
        _write(Path(options.to), options, facts, figures)
    text = f"published {options.run} to {options.to}: {', '.join(FILES)}"
    written = {"to": options.to, "files": list(FILES), "hash": facts["hash"], "kind": facts["kind"]}
    return Result(text, written)


def _require_place(options: PublishOptions) -> None:
    folder = Path(options.to)
    there = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    card = folder / CARD
    ours = card.is_file() and MARK in card.read_text(encoding="utf-8", errors="replace")
    if there and not (options.force and ours):
        fix = "--force replaces it" if ours else "name a new folder"
        raise OptionError(f"--to {folder}", "a new or empty folder", f"{len(there)} files in it", fix)
    require_writable(card, "--to")


def _name(options: PublishOptions) -> str:
    if is_hub_address(options.to):
        return parse_address(options.to)[0].rpartition("/")[2]
    return Path(options.to).resolve().name


def _write(
    folder: Path,
    options: PublishOptions,
    facts: Mapping[str, Any],
    figures: Sequence[tuple[str, list[str], Mapping[str, Any]]],
) -> None:
    model = (load_classifier if facts["kind"] == "classifier" else load_encoder)(options.run)
    provenance = without_paths(model.config.provenance)
    if facts.get("format") not in (None, "tce") and not provenance.get("format"):
        provenance = {"format": facts["format"], **provenance}
    model.config = dataclasses.replace(model.config, provenance=provenance)
    save_model(folder, model, provenance)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    outcome = _outcome(Path(options.run))
    address = options.to if is_hub_address(options.to) else _name(options)
    card = model_card(
        _name(options),
        config,
        facts["hash"],
        outcome,
        [(title, lines) for title, lines, _ in figures],
        options.about,
        options.limits,
        options.license,
        address,
    )
    with atomic(folder / CARD, "w") as file:
        file.write(card)
    content = {"hash": facts["hash"], "run": outcome, "results": [part for _, _, part in figures]}
    write_json(folder / FIGURES, without_paths(content))


def _outcome(run: Path) -> dict[str, Any]:
    """What the run's result.json says of data and figures; empty where there is none."""
    path = (run if run.is_dir() else run.parent) / "result.json"
    if not path.is_file():
        return {}
    content = _json(path)
    found = {name: content[name] for name in KEPT_OUTCOME if name in content}
    if isinstance(found.get("skipped"), Mapping):  # names of files, which are nobody's business
        found["skipped"] = {str(number): "left out" for number in range(len(found["skipped"]))}
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TceError(str(path), expected="a result in JSON", found=str(error)) from error
    if not isinstance(content, dict):
        raise TceError(str(path), expected="a result in JSON", found="another value")
    return content


def _result_lines(place: str) -> tuple[str, list[str], dict[str, Any]]:
    """Title, lines for the card and content for figures.json of a result's folder.

    Raises:
        TceError: neither a result of tce evaluate nor one of tce report.
    """
    folder = Path(place)
    if (folder / "report.json").is_file():
        content = _json(folder / "report.json")
        return f"tce report: {content.get('measure', '')}", _report_lines(content), _report_part(content)
    if (folder / "result.json").is_file():
        from tce.evaluation.report import table
        from tce.evaluation.result import read_results

        found = read_results(folder)
        lines = [line for one in found for line in table(one).splitlines()]
        # A note may name a file or a folder of the publisher's.
        lines = [line for line in lines if not (line.startswith("note:") and re.search(r"[/\\]", line))]
        return "tce evaluate", lines[:MOST_ROWS], {"evaluate": [_evaluate_part(one) for one in found]}
    raise TceError(
        place,
        expected="a folder of tce evaluate or tce report",
        found="neither result.json nor report.json",
        fix="give the folder that it wrote",
    )


def _report_lines(content: Mapping[str, Any]) -> list[str]:
    footage = content.get("footage", {})
    lines = [
        f"{content.get('headline', '').rpartition(': ')[2]}",
        f"{footage.get('clips')} clips of {footage.get('recordings')} recordings",
    ]
    for name, entry in content.get("networks", {}).items():
        figure = entry.get(content.get("measure", ""))
        if isinstance(figure, Mapping) and isinstance(figure.get("value"), float):
            ends = figure.get("interval")
            span = f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else ""
            lines.append(f"  {name:<24} {100 * figure['value']:5.1f}%{span}")
    return lines


def _report_part(content: Mapping[str, Any]) -> dict[str, Any]:
    footage = {
        key: content["footage"][key] for key in ("clips", "recordings", "frames") if key in content["footage"]
    }
    networks = {
        name: {key: value for key, value in entry.items() if isinstance(value, Mapping) and key != "verdict"}
        for name, entry in content.get("networks", {}).items()
    }
    return {"report": {"footage": footage, "measure": content.get("measure"), "networks": networks}}


def _evaluate_part(content: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("protocol", "figures", "intervals", "chance_levels", "split")
    data = content.get("data", {})
    own = {name: content[name] for name in kept if name in content}
    own["data"] = {"name": last_part(str(data.get("path", ""))), "test_clips": data.get("test_clips")}
    return own
