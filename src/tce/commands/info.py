"""What a path holds (`tce info`): a checkpoint, a run, a collection, a dataset, embeddings or a video."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tce.commands.words import describe, short, spread
from tce.errors import OptionError, TceError
from tce.io import require_writable
from tce.options.info import InfoOptions
from tce.result import Result

CHECKPOINTS = (".safetensors", ".pth", ".pt", ".ckpt", ".tar", ".bin", ".pkl")
EMBEDDINGS = (".npz", ".npy")
TABLES = (".csv", ".tsv", ".parquet")

Kind = Literal["checkpoint", "run", "collection", "dataset", "video", "embeddings"]


def info(options: InfoOptions) -> Result:
    """Tell what a path holds, and draw a run's curves or a contact sheet.

    Raises:
        TceError: nothing there, nothing known, damaged, or a picture that cannot be written.
    """
    path, lists, split, sheet = options.path, options.lists, options.split, options.sheet
    kind = kind_of(path, lists is not None)
    for flag, given, kinds in (
        ("--sheet", sheet, ("dataset", "collection", "video")),
        ("--curves", options.curves, ("run",)),
        ("--lists", lists, ("dataset", "collection")),
    ):
        if given is not None and kind not in kinds:
            raise OptionError(flag, f"a {' or a '.join(kinds)}", f"{path}, which is of the kind {kind}")
    if sheet is not None:
        from tce.visualize.contact_sheet import check_suffix

        check_suffix(sheet)
        require_writable(sheet, "--sheet")
    if kind == "checkpoint":
        return tell_checkpoint(path)
    if kind == "run":
        return tell_run(path, options.curves)
    if kind == "embeddings":
        return tell_embeddings(path)

    from tce.commands import describe as footage

    if kind == "video":
        return footage.tell_video(path, sheet)
    if kind == "collection":
        return footage.tell_collection(path, lists, split, sheet)
    return footage.tell_dataset(path, lists, split, sheet, options.probe, options.workers)


def kind_of(path: str, listed: bool = False) -> Kind:
    """What a path holds, by its name and, of folders, by what lies in them.

    Args:
        path: file or folder, a collection on object storage, or `hf:NAME`.
        listed: a dataset's lists were given with it, so it is one.

    Raises:
        TceError: nothing is there.
    """
    if path.startswith("hf:") or path in ("lite0", "lite2"):
        return "checkpoint"
    place, suffix = Path(path), Path(path).suffix.lower()
    if "://" in path or (place / "clips.lance").is_dir():
        return "collection"
    if (place / "log.csv").is_file():
        return "run"
    if (place / "model.safetensors").is_file() or (place / "config.json").is_file():
        return "checkpoint"
    if place.is_dir():
        return "video" if not listed and _holds_frames(place) else "dataset"
    if not place.exists():
        raise TceError(path, "a file or a folder", "nothing there", "check the path")
    if suffix in CHECKPOINTS:
        return "checkpoint"
    if suffix in EMBEDDINGS:
        return "embeddings"
    return "dataset" if suffix in TABLES else "video"


def _holds_frames(folder: Path) -> bool:
    """Whether a folder is itself one clip: images in it, and no footage below."""
    from tce.data.find_clips import find_footage

    try:
        found = find_footage(folder)
    except TceError:
        return False  # the dataset's reader says what is wrong
    return len(found.folders) == len(found.paths) == 1 and (Path(found.root) / found.paths[0]).samefile(
        folder
    )


def tell_checkpoint(path: str) -> Result:
    """What a checkpoint is: format, network, sizes, and where its weights come from.

    Raises:
        TceError: not a checkpoint, or damaged.
    """
    from tce.model import checkpoint

    found = checkpoint.describe(path)
    apart = ("format", "kind", "architecture", "parameters", "hash", "provenance")
    shown = {
        "kind": found["kind"],
        "network": found.get("architecture"),
        "parameters": f"{found['parameters']:,}",
        **{name.replace("_", " "): short(value) for name, value in found.items() if name not in apart},
        "hash of the tensors": found["hash"],
        **{f"from: {name}": short(value) for name, value in (found.get("provenance") or {}).items()},
    }
    text = describe(f"{path}: checkpoint, {found['format']}", shown)
    return Result(text, {"type": "checkpoint", **found})


def tell_run(path: str, curves: str | None = None) -> Result:
    """What a run folder holds: how it was started, how far it is, each figure's way; draws the curves.

    Args:
        path: the folder.
        curves: picture to write; None: curves.png in the folder.

    Raises:
        TceError: its files cannot be read, or the picture cannot be written.
    """
    from tce.train.run_log import read_log
    from tce.visualize.run_plots import save_curves

    folder = Path(path)
    record, outcome = _json(folder / "options.json"), _json(folder / "result.json")
    rows = read_log(folder / "log.csv")
    first, last = _ends(rows)
    picture, drawn = None, []
    if rows:
        picture = require_writable(curves or folder / "curves.png", "--curves")
        drawn = save_curves(picture, rows, f"{folder.resolve().name}: tce {record.get('command', '')}")
    network = folder / "model.safetensors"
    shown = {
        "command": f"tce {record.get('command')}",
        "state": "finished" if outcome else f"at step {last.get('step', 0):.0f}, not finished",
        "recipe": record.get("options", {}).get("run", {}).get("recipe"),
        "clips": record.get("data", {}).get("clips"),
        "steps": f"{last.get('step', 0):.0f}, in epoch {last.get('epoch', 0) + 1:.4g}",
        **{
            name.replace("_", " "): f"{first[name]:.4g} -> {last[name]:.4g}"
            for name in last
            if name not in ("step", "epoch", "seconds")
        },
        "made with": short(record.get("versions", {})),
        "git commit": record.get("git"),
        "network": str(network) if network.exists() else None,
        "curves": str(picture) if picture else "none yet: nothing was logged",
    }
    figures = {
        "type": "run",
        "options": record,
        "first": first,
        "last": last,
        "result": outcome,
        "curves": str(picture) if picture else None,
        "drawn": drawn,
    }
    return Result(describe(f"{folder}: run", shown), figures)


def _json(path: Path) -> dict[str, Any]:
    """A run's JSON file; empty where it is not there (yet)."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise TceError(str(path), "JSON as tce writes it", str(error)) from error


def _ends(rows: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Each figure's first and last value; some stand in few rows."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for row in rows:
        first = {**row, **first}
        last = {**last, **row}
    return first, last


def tell_embeddings(path: str) -> Result:
    """What a file of embeddings holds.

    Raises:
        TceError: it holds none.
    """
    import numpy as np

    from tce.embedding.embedding_file import load_embeddings

    stored = load_embeddings(path)
    count, size = stored.embeddings.shape
    videos = len(np.unique(stored.video)) if stored.video is not None else None
    lengths = np.linalg.norm(stored.embeddings, axis=1)
    shown = {"frames": count, "numbers in each": size, "videos": videos, "length": spread(lengths)}
    figures = {"type": "embeddings", "frames": count, "size": size, "videos": videos}
    return Result(describe(f"{path}: embeddings", shown), figures)
