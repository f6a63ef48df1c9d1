"""Fine-tuning by the number of labels: from a strong start, from scratch, and a linear classifier.

Usage: python benchmarks/few_labels.py --data DATA --out FOLDER
  DATA    the folder that holds gestures/, with videos/ and lists/

Gestures, from each person to the other (splits 01 and 02). Reported are the letters M-Y; with --letters A-L
the others, to choose settings by. Every run is one line of FOLDER/labels.jsonl; one that stands there is not
repeated, and an interrupted one resumes. Prints the table of what is done, accuracy in percent with 95%
intervals over recordings (and seeds, where there are several).
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from methods import letters as keep_letters
from methods import tce

from tce.evaluation.metrics import mean_interval

LETTERS = {"A-L": "A-L", "M-Y": "M-Y"}
LABELS = ("1/class", "5/class", "10/class", "all")
SPLITS = ("01", "02")
ADAPTED = "ADAPTED"  # in flags: lite2 after `tce adapt`
PRETRAINED = "PRETRAINED"  # in flags: lite2 after `tce pretrain`
PRETRAIN_EPOCHS, PRETRAIN_SIZE = 7, 64  # 20,000 images
STRONG = ("--start", "lite2", "--image-size", 112)
# Few labels are few steps in an epoch, so they take more epochs.
EPOCHS = {"1/class": 60, "5/class": 30, "10/class": 20, "all": 10}
LONG = {"1/class": 120, "5/class": 60, "10/class": 60, "all": 60}


@dataclass(frozen=True)
class Method:
    """A way to train a classifier: its flags, and epochs by the number of labels (None: the recipe's)."""

    flags: tuple[object, ...]
    epochs: dict[str, int] | None = None


METHODS = {
    "from scratch: ResNet-18, differences, 64 px": Method(
        ("--model", "resnet18", "--image-size", 64, "--precision", "bf16"), LONG
    ),
    "linear on lite2": Method((*STRONG, "--recipe", "linear")),
    "linear on lite2, adapted": Method(("--start", ADAPTED, "--recipe", "linear")),
    "linear on lite2, pre-trained on the clips": Method(("--start", PRETRAINED, "--recipe", "linear")),
    "all of lite2: head first, then slowly": Method((*STRONG, "--input", "rgb", "--flip", 0), EPOCHS),
    "all of lite2, differences": Method((*STRONG, "--flip", 0), EPOCHS),
}
DEFAULT = tuple(name for name in METHODS if "differences" not in name or "scratch" in name)


def prepare(data: Path, out: Path, wanted: str) -> tuple[Path, Path]:
    """Packed clips, and lists of the wanted letters."""
    footage = out / "gestures"
    if not (footage / "options.json").exists():
        tce("pack", data / "gestures" / "videos", "--out", footage, "--short-side", 128)
    return footage, keep_letters(data / "gestures" / "lists", out / "lists" / wanted, wanted)


def network(name: object, footage: Path, out: Path) -> object:
    """A run of lite2 fitted to all clips, of all letters and both people, without labels; made once."""
    if name == ADAPTED:
        adapted = out / "adapted"
        if not (adapted / "model.safetensors").exists():
            shutil.rmtree(adapted, ignore_errors=True)
            size = ("--image-size", 112, "--crop", "squash")  # as fine-tuning sees the frames
            tce("adapt", footage, "--out", adapted, "--start", "lite2", *size)
        return adapted
    if name == PRETRAINED:
        flags = [
            "--epochs",
            PRETRAIN_EPOCHS,
            "--batch-size",
            64,
            "--image-size",
            PRETRAIN_SIZE,
            "--workers",
            1,
        ]
        flags += ["--monitor-epochs", 0, "--precision", "float32", "--resume"]
        tce("pretrain", footage, "--out", out / "pretrained", "--start", "lite2", *flags)
        return out / "pretrained"
    return name


def run(
    name: str, labels: str, split: str, seed: int, out: Path, wanted: str, places: Sequence[Path]
) -> dict:
    """Train on some labels of one person's clips, and test on the other's."""
    footage, lists = places
    method = METHODS[name]
    folder = (
        out
        / "runs"
        / "-".join([*name.replace(":", "").replace(",", "").split(), labels[:3], split, str(seed)])
    )
    flags = [network(flag, footage, out) for flag in method.flags]
    flags += [] if labels == "all" else ["--labels", labels]
    flags += [] if method.epochs is None else ["--epochs", method.epochs[labels]]
    shared = ["--data", footage, "--lists", lists, "--split", split, "--held-out", 0, "--seed", seed]
    shared += ["--validate-epochs", 1000, "--savedir", folder, "--workers", 1]
    shared += ["--resume"] if (folder / "options.json").exists() else []
    started = time.perf_counter()
    found = tce("finetune", *shared, *flags)
    seconds = time.perf_counter() - started
    predictions = np.load(folder / f"predictions-{split}.npz")
    return {
        "method": name,
        "letters": wanted,
        "labels": labels,
        "split": split,
        "seed": seed,
        "top1": found["top1"],
        "seconds": seconds,
        "hits": predictions["top1"].tolist(),
        "recordings": predictions["recording"].tolist(),
    }


def cell(rows: Sequence[dict[str, Any]]) -> str:
    """Mean over splits and seeds, with its interval over recordings; hits of several seeds are averaged."""
    hits, recordings = [], []
    for split in SPLITS:
        own = [row for row in rows if row["split"] == split]
        if not own:
            return ""
        hits.append(np.mean([row["hits"] for row in own], axis=0).tolist())
        recordings.append(own[0]["recordings"])
    mean = 100 * float(np.mean([np.mean(one) for one in hits]))
    found = mean_interval(hits, recordings)
    return f"{mean:.1f}" if found is None else f"{mean:.1f} ({100 * found[0]:.1f} to {100 * found[1]:.1f})"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown: a row a method, a column a number of labels."""
    lines = [f"| | {' | '.join(f'{one} labels' for one in LABELS)} | seconds, all labels |", "|---" * 6 + "|"]
    for name in METHODS:
        own = [row for row in rows if row["method"] == name]
        if own:
            cells = [cell([row for row in own if row["labels"] == labels]) for labels in LABELS]
            seconds = [row["seconds"] for row in own if row["labels"] == "all"]
            lines.append(f"| {name} | {' | '.join(cells)} | {np.mean(seconds):.0f} |" if seconds else "")
    return "\n".join(line for line in lines if line)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--letters", choices=LETTERS, default="M-Y")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", default=DEFAULT, choices=METHODS)
    parser.add_argument("--labels", nargs="+", default=LABELS, choices=LABELS)
    args = parser.parse_args()
    places = prepare(args.data, args.out, args.letters)
    log = args.out / "labels.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["method"], row["letters"], row["labels"], row["split"], row["seed"]) for row in rows}
    for seed in args.seeds:
        for name in args.methods:
            for labels in args.labels:
                for split in SPLITS:
                    if (name, args.letters, labels, split, seed) in done:
                        continue
                    rows.append(run(name, labels, split, seed, args.out, args.letters, places))
                    with log.open("a") as file:
                        file.write(json.dumps(rows[-1]) + "\n")
                    print(
                        {key: rows[-1][key] for key in ("method", "labels", "split", "seed", "top1")},
                        flush=True,
                    )
    print(table([row for row in rows if row["letters"] == args.letters]))


if __name__ == "__main__":
    main()
