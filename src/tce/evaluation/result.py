"""A result of an evaluation: the content of result.json with its caveats, and reading it again."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tce.data.catalog import share_seen
from tce.device import choose_precision
from tce.embedding.embedding_file import read_arrays
from tce.errors import TceError
from tce.evaluation import report
from tce.evaluation.frozen_network import FrozenNetwork, short_name
from tce.evaluation.metrics import flat
from tce.evaluation.report import EvaluatedSplit, counted
from tce.io import Result
from tce.model.checkpoint import unfinished
from tce.options.evaluate import ALL, PLACEHOLDER, EvaluateOptions


def caveats(parts: Sequence[EvaluatedSplit], failed: Mapping[str, str]) -> list[str]:
    """A line for each thing that a reader of the metrics must know.

    Missing, short and failed clips; recordings or groups on both sides; a network that has seen the test
    clips, or whose training was not finished.

    Args:
        parts: the splits.
        failed: clip's id -> why it could not be read.
    """
    lines: list[str] = []
    for part in parts:
        lines += _of_network(part.network) + _of_clips(part) + _of_leaks(part)
    if failed:
        some = ", ".join(list(failed)[:5])
        lines.append(f"{counted(len(failed), 'clip')} could not be read and were left out: {some}")
    return list(dict.fromkeys(lines))


def _of_network(network: FrozenNetwork) -> list[str]:
    """Trainings, also of what it started from, that were stopped early; and its own training clips."""
    origin, lines = network.facts["provenance"] or {}, []
    for training in _ancestry(origin):
        state = unfinished(dict(training))
        if state:
            lines.append(f"the network's training ({training.get('made', 'unknown')}) is {state}")
    held_out = origin.get("held_out_clips")
    if held_out:
        trained = origin.get("train_clips")
        lines.append(
            f"{network.name} was trained on {trained} of its {trained + held_out} training clips; "
            f"{held_out} were held out for validation"
        )
    return lines


def _of_clips(part: EvaluatedSplit) -> list[str]:
    lines, split, settings = [], part.clips, part.result.settings
    name = split.split
    if split.missing:
        lines.append(
            f"split {name}: {counted(len(split.missing), 'listed clip')} "
            f"({split.missing_share:.1%}) not found"
        )
    if settings.get("short"):
        count, span = settings["short"], settings["frames_per_sample"]
        lines.append(
            f"split {name}: {count} clips have fewer than {span} frames, their last one was repeated"
        )
    if settings.get("center"):
        lines.append(
            f"split {name}: the mean of each {settings['center']}'s clips was subtracted, test clips "
            "included (their frames, not their labels)"
        )
    if settings.get("too_short"):
        lines.append(f"split {name}: {settings['too_short']} clips were too short and left out")
    lines += [f"split {name}: {note}" for note in part.result.caveats]
    return lines


def _of_leaks(part: EvaluatedSplit) -> list[str]:
    lines, split, result = [], part.clips, part.result
    name = split.split
    train, test = (split.recordings[rows].astype(str) for rows in (split.train, result.rows))
    shared = len(np.intersect1d(train, test))
    groups = len(set(split.groups[split.train]) & set(split.groups[result.rows]))
    uses_train = result.scores is not None or result.neighbours is not None or bool(result.draws)
    if shared and uses_train:
        lines.append(f"split {name}: {shared} recordings have pieces in both training and test clips")
    elif groups and uses_train:
        lines.append(f"split {name}: {groups} groups (people) have clips in both training and test clips")
    for origin in _ancestry(part.network.facts["provenance"]):
        lines += [f"split {name}: {line}" for line in _of_training(origin, part) if line]
    return list(dict.fromkeys(lines))


def _of_training(origin: Mapping[str, Any], part: EvaluatedSplit) -> Iterator[str]:
    """Which test clips a step of the network's training has used; nothing where there are none."""
    tuned = origin.get("made") == "tce finetune"
    how = "trained" if tuned else "pre-trained, without labels,"
    if "clips" in origin:
        ids = part.clips.store.catalog.ids[part.result.rows]
        share = share_seen(ids, origin["clips"])
        if share:
            yield f"the network was {how} on {share:.0%} of these test clips, by their names"
    elif origin.get("split") not in (None, part.clips.split):
        yield f"the network was {how} on split {origin['split']}, perhaps on these test clips"


def _ancestry(origin: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    """Where a network comes from, then where the weights that it started from came from, and so on."""
    while origin:
        yield origin
        origin = (origin.get("weights") or {}).get("provenance")


@dataclass
class EvaluationResult(Result):
    """Metrics of one protocol, or of several.

    Attributes:
        folder: where result.json, predictions and pictures are.
        predictions: the test clips' id, recording, label, prediction and values, by column; with "split".
        results: for `--protocol all`, protocol -> its own result.
        untrained: for `--protocol all`, protocol -> the untrained network's result.
    """

    folder: Path = field(default_factory=Path)
    predictions: dict[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    results: dict[str, EvaluationResult] = field(default_factory=dict, repr=False)
    untrained: dict[str, EvaluationResult] = field(default_factory=dict, repr=False)

    @property
    def metrics(self) -> dict[str, Any]:
        """Name -> value, such as top1 or recall@5; means over the splits."""
        return {name: flat(self.figures).get(name) for name in self.figures.get("figures", ())}

    @property
    def top1(self) -> float:
        """Share of the test clips whose class is predicted.

        Raises:
            AttributeError: the protocol predicts no classes.
        """
        if "top1" not in self.metrics:
            raise AttributeError(f"protocol {self.figures['protocol']} has no top1; see .metrics or .results")
        return self.metrics["top1"]

    def to_dataframe(self) -> Any:
        """The predictions as a pandas DataFrame, a row a test clip.

        Raises:
            TceError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise TceError(
                "to_dataframe", "pandas", "it is not installed", "pip install pandas, or use .predictions"
            ) from error
        return pandas.DataFrame(self.predictions)

    def _repr_html_(self) -> str:
        if self.results:
            return "".join(result._repr_html_() for result in self.results.values())
        caption = f"{self.figures['protocol']} of {self.figures['checkpoint']['name']}: "
        rows = report.result_rows(self.figures)
        caption += report.format_clips(self.figures["data"])
        return report.html_table(["metric", "value", "95% interval", "chance"], rows, caption)


def describe(
    options: EvaluateOptions,
    parts: Sequence[EvaluatedSplit],
    failed: Mapping[str, str],
) -> dict[str, Any]:
    """The content of result.json: metrics, intervals, and everything they depend on.

    Args:
        options: the protocol's settings.
        parts: its result on each split.
        failed: clip's id -> why it could not be read.
    """
    splits = {part.clips.split: _describe_split(part, options.seed) for part in parts}
    network, first = parts[0].network, parts[0]
    metrics, chance = report.mean_metrics(parts), report.mean_chance(parts)
    return {
        "protocol": first.result.protocol,
        **metrics,
        **({"chance": chance["top1"]} if "top1" in chance else {}),
        "figures": list(flat(metrics)),
        "intervals": report.intervals(parts, options.seed),
        "interval": "95%, bootstrap over recordings",
        "chance_levels": chance,
        "split": ",".join(splits),
        "splits": splits,
        "settings": first.result.settings,
        "crop": options.crop or network.crop,
        "image_size": options.image_size or network.network.config.image_size,
        "seed": options.seed,
        "checkpoint": {"name": _name(options.ckpt, network), **network.facts},
        "frozen": {"before": network.facts["hash"], "after": network.require_unchanged()},
        "data": {
            "path": options.data,
            "lists": options.lists,
            "fingerprint": first.clips.store.fingerprint(),
            "classes": len(first.clips.classes),
            "test_clips": sum(part["test_clips"] for part in splits.values()),
            "test_recordings": _recordings(parts),
            "train_clips": sum(part["train_clips"] for part in splits.values()),
            "failed": dict(failed),
        },
        "precision": choose_precision(options.precision, network.network.device),
        "device": str(network.network.device),
        "versions": {"python": platform.python_version(), "torch": version("torch"), "tce": _own_version()},
        "notes": caveats(parts, failed),
    }


def _describe_split(part: EvaluatedSplit, seed: int) -> dict[str, Any]:
    clips, result = part.clips, part.result
    return {
        **result.metrics,
        "intervals": report.intervals([part], seed),
        "chance_levels": result.chance,
        "settings": result.settings,
        **({"reading": result.reading} if result.reading else {}),
        "checkpoint": part.network.facts["hash"],
        "clips": clips.digest,
        "train_clips": result.settings.get("train", len(clips.train)),
        "test_clips": len(result.rows),
        "test_recordings": _recordings([part]),
        "missing": {
            "clips": len(clips.missing),
            "share": clips.missing_share,
            "examples": clips.missing[:5],
        },
        "per_class": report.class_rows(part),
    }


def _name(ckpt: str, network: FrozenNetwork) -> str:
    """The network's name; of a network for each split, what their names share."""
    if PLACEHOLDER not in ckpt:
        return network.name
    name = short_name(ckpt)
    if name.strip("-_") not in (PLACEHOLDER, f"split{PLACEHOLDER}"):
        return name
    parents = Path(ckpt).resolve().parts
    return parents[parents.index(name) - 1] if name in parents else name


def _recordings(parts: Sequence[EvaluatedSplit]) -> int:
    names = [part.clips.recordings[part.result.rows].astype(str) for part in parts]
    return len(np.unique(np.concatenate(names)))


def predictions_of(parts: Sequence[EvaluatedSplit]) -> dict[str, npt.NDArray[Any]]:
    """The test clips' values by column, [clips of all splits] each; with "split"."""
    columns = [report.prediction_columns(part) for part in parts]
    shared = [name for name in columns[0] if all(name in column for column in columns)]
    split = np.repeat([part.clips.split for part in parts], [len(column["id"]) for column in columns])
    return {"split": split} | {name: np.concatenate([column[name] for column in columns]) for name in shared}


def _own_version() -> str:
    from tce import __version__

    return __version__


def read_results(path: str | Path) -> list[dict[str, Any]]:
    """The results in a result.json, named itself or by its folder.

    Returns:
        One result; for `--protocol all` one for each protocol and network. Each has its predictions' folder
        under "folder", and under "baseline" whether it is the untrained network beside another.

    Raises:
        TceError: there is none, or it is no result of tce.
    """
    target = Path(path)
    target = target / "result.json" if target.is_dir() else target
    try:
        content = json.loads(target.read_text(encoding="utf-8"))
    except OSError as error:
        raise TceError(
            str(path),
            expected="a folder with result.json, as tce evaluate and tce finetune write it",
            found=error.strerror or str(error),
        ) from error
    except (ValueError, RecursionError) as error:
        raise TceError(
            str(target), expected="a result.json", found=f"no JSON ({error})", fix="give its folder"
        ) from error
    try:
        if content["protocol"] != ALL:
            found = [{**content, "folder": str(target.parent), "baseline": False}]
        else:
            found = [
                {**result, "folder": str(target.parent / result["folder"]), "baseline": group == "untrained"}
                for group in ("untrained", "results")  # differences are to the first
                for result in content[group].values()
            ]
        for result in found:  # all that is read of it
            (
                comparison_key(result),
                comparison_title(result),
                result["figures"],
                result["intervals"],
                result["settings"],
            )
            if not isinstance(result["protocol"], str):
                raise TypeError
    except (KeyError, TypeError, AttributeError) as error:
        raise TceError(
            str(target),
            expected="a result of tce evaluate or tce finetune",
            found="another file, such as a pre-training run's",
            fix="evaluate its network first: tce evaluate --ckpt RUN ...",
        ) from error
    return found


def read_predictions(result: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
    """Each test clip's values out of a result's predictions-SPLIT.npz, by column; with "split".

    Raises:
        TceError: a file is missing.
    """
    parts: list[dict[str, npt.NDArray[Any]]] = []
    for split in result["splits"]:
        path = Path(result["folder"]) / f"predictions-{split}.npz"
        try:
            arrays = read_arrays(path)  # its sizes are compared with the file's: a result can be a stranger's
            count = len(arrays["id"])
            columns = {name: array for name, array in arrays.items() if array.shape == (count,)}
        except (TceError, OSError, KeyError, TypeError) as error:
            raise TceError(
                str(path),
                expected="the predictions beside result.json",
                found=error.found if isinstance(error, TceError) else str(error),
                fix="run tce evaluate again",
            ) from error
        parts.append({"split": np.repeat(split, count), **columns})
    shared = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in shared}


def comparison_key(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What results must share to be compared: protocol, data, split and clips."""
    clips = [str(part.get("clips")) for part in result["splits"].values()]
    return result["protocol"], result["data"]["fingerprint"], result["split"], *clips


def comparison_title(result: Mapping[str, Any]) -> tuple[str, str, str, int, int]:
    """Protocol, name of the data, split, test clips, test recordings."""
    data = result["data"]
    name = Path(data["path"]).name
    return result["protocol"], name, result["split"], data["test_clips"], data["test_recordings"]
