"""What additions to contrast training bring, from scratch and from a pre-trained start.

Usage: python benchmarks/contrast.py --data DATA --out FOLDER --letters A-L
  DATA    the folder that holds gestures/, with videos/ and lists/
  A-L     the letters that settings are chosen by; M-Y are those to report, once

Every network learns from both people's clips of these letters, without labels (the frames of the clips that
are classified are among them), and is evaluated by kNN from each person to the other, plain and with each
person's mean subtracted. Every run is one line of FOLDER/contrast.jsonl; one that stands there is not
repeated, and an interrupted one resumes. Prints the table of what is done: means over both directions and the
seeds, the range of the seeds in brackets, and the difference to the first method of the same start.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from methods import letters as keep_letters
from methods import tce

LETTERS = ("A-L", "M-Y")
SIZE = 64
SCRATCH = ("--model", "resnet18", "--precision", "bf16")
LITE2 = ("--start", "lite2", "--precision", "float32")
GROUPS = ("--group", "group", "--batch-groups")


@dataclass(frozen=True)
class Method:
    """A way to pre-train.

    Attributes:
        start: what it is compared within, "scratch" or "lite2".
        flags: of `tce pretrain`; None: the network as it is.
        images: that pass the network, as a share of the budget.
    """

    start: str
    flags: tuple[object, ...] | None
    images: float = 1.0


METHODS = {
    "scratch: untrained": Method("scratch", None),
    "scratch: recipe default": Method("scratch", SCRATCH),
    "scratch: batches of one person": Method("scratch", (*SCRATCH, *GROUPS, 1)),
    "scratch: half of the batches of one person": Method("scratch", (*SCRATCH, *GROUPS, 0.5)),
    "lite2: frozen": Method("lite2", None),
    "lite2: recipe default": Method("lite2", LITE2, 0.5),
    "lite2: batches of one person": Method("lite2", (*LITE2, *GROUPS, 1), 0.5),
    "lite2: half of the batches of one person": Method("lite2", (*LITE2, *GROUPS, 0.5), 0.5),
    "lite2: batch statistics trained too": Method("lite2", (*LITE2, "--keep-statistics", "False"), 0.5),
    "lite2: backbone at the head's rate": Method("lite2", (*LITE2, "--backbone-lr", 1), 0.5),
    "lite2: one layer less trained": Method("lite2", (*LITE2, "--freeze", "_blocks.10"), 0.5),
}


@dataclass(frozen=True)
class Study:
    """Where everything lies.

    Attributes:
        footage: the packed clips of the letters.
        lists: lists of the letters.
        out: the folder to write to.
        letters: which.
        budget: images that pass the network.
    """

    footage: Path
    lists: Path
    out: Path
    letters: str
    budget: int

    @classmethod
    def prepared(cls, data: Path, out: Path, letters: str, budget: int) -> Study:
        """Pack the clips of the letters."""
        footage = out / f"gestures-{letters}"
        if not (footage / "report.json").exists():
            linked = out / "videos" / letters
            shutil.rmtree(linked, ignore_errors=True)
            linked.mkdir(parents=True)
            for folder in sorted((data / "gestures" / "videos").iterdir()):
                if re.match(f"Letter[{letters}]", folder.name):
                    (linked / folder.name).symlink_to(folder.resolve())
            tce("pack", linked, "--out", footage, "--short-side", 80)
        return cls(
            footage,
            keep_letters(data / "gestures" / "lists", out / "lists" / letters, letters),
            out,
            letters,
            budget,
        )

    def run(self, name: str, seed: int) -> dict[str, Any]:
        """Pre-train, then evaluate both ways."""
        method = METHODS[name]
        folder = self.out / "runs" / re.sub(r"\W+", "-", f"{name} {self.letters} {seed}")
        if method.flags is None:
            scratch = method.start == "scratch"
            network = ["--ckpt", "random", "--model", "resnet18"] if scratch else ["--ckpt", method.start]
        else:
            clips = len(list((self.out / "videos" / self.letters).glob("*/*.*")))
            epochs = max(1, round(method.images * self.budget / (2 * (clips // 64 * 64))))
            flags = ["--epochs", epochs, "--batch-size", 64, "--image-size", SIZE, "--seed", seed]
            flags += ["--monitor-epochs", 0, "--workers", 1, "--resume", "--out", folder]
            tce("pretrain", self.footage, *flags, *method.flags)
            network = ["--ckpt", folder]
        shared = [
            "--data",
            self.footage,
            "--lists",
            self.lists,
            "--split",
            "01,02",
            "--protocol",
            "knn",
            "--k",
            10,
        ]
        shared += ["--image-size", SIZE, "--crop", "squash", "--seed", seed, "--workers", 1]
        found = {"method": name, "letters": self.letters, "seed": seed}
        for key, flags in (("knn", []), ("centred", ["--center", "group"])):
            done = tce("evaluate", *network, *shared, *flags, "--out", folder / key)
            found[key] = {split: part["top1"] for split, part in done["splits"].items()}
        return found


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a row a method."""
    lines = ["| method | kNN | 01 / 02 | to the first | centred | to the first |", "|---" * 6 + "|"]
    first: dict[str, dict[str, float]] = {}
    for name, method in METHODS.items():
        own = [row for row in rows if row["method"] == name]
        if not own:
            continue
        means = {
            key: 100 * np.array([list(row[key].values()) for row in own]).mean() for key in ("knn", "centred")
        }
        base = (
            first.setdefault(method.start, means) if method.flags is None else first.get(method.start, means)
        )
        splits = 100 * np.array([list(row["knn"].values()) for row in own]).mean(axis=0)
        cells = [name]
        for key in ("knn", "centred"):
            each = [100 * float(np.mean(list(row[key].values()))) for row in own]
            spread = f" ({min(each):.1f} to {max(each):.1f})" if len(each) > 1 else ""
            cells.append(f"{means[key]:.1f}{spread}")
            if key == "knn":
                cells.append(" / ".join(f"{value:.1f}" for value in splits))
            cells.append("" if method.flags is None else f"{means[key] - base[key]:+.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--letters", choices=LETTERS, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--budget", type=int, default=20_000, help="images that pass the network in a run")
    args = parser.parse_args()
    study = Study.prepared(args.data, args.out, args.letters, args.budget)
    log = args.out / "contrast.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["method"], row["letters"], row["seed"]) for row in rows}
    for seed in args.seeds:
        for name in args.methods:
            if (name, args.letters, seed) in done:
                continue
            rows.append(study.run(name, seed))
            with log.open("a") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(rows[-1], flush=True)
    print(table([row for row in rows if row["letters"] == args.letters]))


if __name__ == "__main__":
    main()
