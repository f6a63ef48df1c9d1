"""Describe a path (`tce info`): a checkpoint, run, result, collection, dataset, embeddings or video."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tce.commands.describe import describe, short, spread
from tce.errors import OptionError, TceError
from tce.io import Result, require_writable
from tce.options.info import InfoOptions

CHECKPOINTS = (".safetensors", ".pth", ".pt", ".ckpt", ".tar", ".bin", ".pkl")
EMBEDDINGS = (".npz", ".npy")
TABLES = (".csv", ".tsv", ".parquet", ".txt")

RUN_FILES = ("log.csv", "options.json")

Kind = Literal["checkpoint", "onnx", "run", "result", "collection", "dataset", "video", "embeddings"]


def info(options: InfoOptions) -> Result:
    """Describe what each path holds, and draw a run's curves or a contact sheet.

    Raises:
        TceError: nothing there, nothing known, damaged, or a picture that cannot be written.
    """
    if len(options.path) == 1:
        return _describe_path(options.path[0], options)
    results, problems = [], []
    for path in options.path:
        try:
            results.append(_describe_path(path, options))
        except TceError as error:
            problems.append(f"{error}")
    if problems and not results:
        raise TceError("; ".join(problems))
    text = "\n\n".join([*(result.text for result in results), *problems])
    return Result(text, {"paths": [result.figures for result in results], "problems": problems})


def _describe_path(path: str, options: InfoOptions) -> Result:
    lists, split, sheet = options.lists, options.split, options.sheet
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
        return describe_checkpoint(path)
    if kind == "onnx":
        return describe_onnx_file(path)
    if kind == "run":
        return describe_run(path, options.curves)
    if kind == "result":
        return describe_result(path)
    if kind == "embeddings":
        return describe_embeddings(path)

    from tce.commands import describe as videos

    if kind == "video":
        return videos.describe_video(path, sheet)
    if kind == "collection":
        return videos.describe_collection(path, lists, split, sheet)
    return videos.describe_dataset(path, lists, split, sheet, options.probe, options.workers)


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
    if (place / "log.csv").is_file() or (place.name in RUN_FILES and _in_run(place)):
        return "run"
    if (place / "result.json").is_file() or place.name == "result.json":
        return "result"
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
    if suffix in TABLES:
        return "dataset"
    return "onnx" if suffix == ".onnx" or _may_be_onnx(place) else "video"


def _may_be_onnx(file: Path) -> bool:
    """By content; the first byte decides for most videos, before torch is imported."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        if opened.read(1) != b"\x08":
            return False
    from tce.model.export import is_onnx

    return is_onnx(file)


def _in_run(file: Path) -> bool:
    return file.is_file() and all((file.parent / name).is_file() for name in RUN_FILES)


def _holds_frames(folder: Path) -> bool:
    """Whether a folder is itself one clip: images in it, and no footage below."""
    from tce.data.find_clips import find_clips

    try:
        found = find_clips(folder)
    except TceError:
        return False  # the dataset's reader reports what is wrong
    return len(found.folders) == len(found.paths) == 1 and (Path(found.root) / found.paths[0]).samefile(
        folder
    )


def describe_checkpoint(path: str) -> Result:
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
        **({"training": state} if (state := checkpoint.unfinished(found.get("provenance"))) else {}),
        **{f"from: {name}": short(value) for name, value in _shown_origin(found.get("provenance")).items()},
    }
    text = describe(f"{path}: checkpoint, {found['format']}", shown)
    return Result(text, {"type": "checkpoint", **found})


def describe_onnx_file(path: str) -> Result:
    """An ONNX model's inputs and outputs.

    Raises:
        TceError: it is damaged.
    """
    from tce.model.export import describe_onnx

    found = describe_onnx(path)
    note = found.get("tce")
    own: dict[str, Any] = note if isinstance(note, dict) else {}
    shown = {
        **{f"input {name}": value for name, value in found.get("inputs", {}).items()},
        **{f"output {name}": value for name, value in found.get("outputs", {}).items()},
        "opset": found.get("opset"),
        "made with": found.get("producer"),
        "exported from": " ".join(str(own[key]) for key in ("kind", "architecture") if key in own) or None,
        "inputs and outputs": None if "inputs" in found else "pip install onnx to see them",
        "use": "for ONNX Runtime; tce reads the checkpoint that it was exported from",
    }
    return Result(describe(f"{path}: ONNX model", shown), {"type": "onnx", **found})


def _shown_origin(origin: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where weights come from, with the number of clips in place of their hashes."""
    from tce.data.catalog import describe_sketch

    shown: dict[str, Any] = {}
    for name, value in (origin or {}).items():
        if name == "clips" and isinstance(value, str):
            shown[name] = describe_sketch(value)
        else:
            shown[name] = _shown_origin(value) if isinstance(value, dict) else value
    return shown


def describe_run(path: str, curves: str | None = None) -> Result:
    """What a run folder holds: how it was started, how far it is, each figure's course; draws the curves.

    Args:
        path: the folder.
        curves: picture to write; None: curves.png in the folder.

    Raises:
        TceError: its files cannot be read, or the picture cannot be written.
    """
    from tce.train.run_record import read_log
    from tce.visualize.plots import save_curves

    folder = Path(path).parent if Path(path).is_file() else Path(path)
    record, outcome = _json(folder / "options.json"), _json(folder / "result.json")
    rows = read_log(folder / "log.csv")
    first, last = _ends(rows)
    picture, drawn, undrawn = None, [], "none yet: nothing was logged"
    if rows:
        try:
            picture = require_writable(curves or folder / "curves.png", "--curves")
        except TceError as error:
            if curves is not None:
                raise
            undrawn = f"not drawn ({error.found}); --curves FILE draws them elsewhere"
    if picture is not None:
        title = f"{folder.resolve().name}: tce {record.get('command', '')}"
        drawn = save_curves(picture, rows, title, record.get("chance"))
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
        "curves": str(picture) if picture else undrawn,
    }
    figures = {
        "type": "run",
        "kind": ("classifier" if record.get("command") == "finetune" else "encoder")
        if network.exists()
        else None,
        "options": record,
        "first": first,
        "last": last,
        "result": outcome,
        "curves": str(picture) if picture else None,
        "drawn": drawn,
    }
    return Result(describe(f"{folder}: run", shown), figures)


def describe_result(path: str) -> Result:
    """What `tce evaluate` or `tce finetune` wrote: the figures of its result.json with their protocol.

    Raises:
        TceError: it is no result.
    """
    file = Path(path) if Path(path).is_file() else Path(path) / "result.json"
    found = _json(file)
    if not isinstance(found, dict) or "protocol" not in found:
        raise TceError(str(file), "a result of tce evaluate or tce finetune", "other JSON")
    checkpoint, data = found.get("checkpoint") or {}, found.get("data") or {}
    metrics = {name: value for name, value in found.items() if isinstance(value, float)}
    for protocol, cells in (found.get("summary") or {}).items():
        metrics |= {f"{protocol} {name}": cell["value"] for name, cell in cells.items()}
    recall = {f"recall@{k}": value for k, value in (found.get("recall") or {}).items()}
    shown = {
        "protocol": found["protocol"],
        "checkpoint": checkpoint.get("name"),
        "data": data.get("path"),
        "split": short(found.get("splits") and list(found["splits"])),
        "test clips": data.get("test_clips"),
        "classes": data.get("classes"),
        **{name: f"{value:.4g}" for name, value in {**metrics, **recall}.items()},
    }
    return Result(
        describe(f"{path}: result of tce {found.get('command', 'evaluate')}", shown),
        {"type": "result", **found},
    )


def _json(path: Path) -> dict[str, Any]:
    """A run's JSON file; empty where it is not there (yet)."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except (ValueError, RecursionError) as error:
        raise TceError(str(path), "JSON as tce writes it", str(error)) from error


def _ends(rows: Sequence[Mapping[str, float]]) -> tuple[dict[str, float], dict[str, float]]:
    """Each figure's first and last value; some stand in few rows."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for row in rows:
        first = {**row, **first}
        last = {**last, **row}
    return first, last


def describe_embeddings(path: str) -> Result:
    """What a file of embeddings holds.

    Raises:
        TceError: it holds none.
    """
    import numpy as np

    from tce.embedding.embedding_file import load_embeddings

    stored = load_embeddings(path)
    count, size = stored.vectors.shape
    videos = len(np.unique(stored.video)) if stored.video is not None else None
    lengths = np.linalg.norm(stored.vectors, axis=1)
    shown = {"frames": count, "numbers in each": size, "videos": videos, "length": spread(lengths)}
    figures = {"type": "embeddings", "frames": count, "size": size, "videos": videos}
    return Result(describe(f"{path}: embeddings", shown), figures)
