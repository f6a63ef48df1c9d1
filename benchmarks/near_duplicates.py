"""Near-duplicates: planted copies of seven kinds among real clips, precision and recall of each kind.

`plant` writes the copies of `--copies` clips for each kind: half of them of the gestures' letters A to L,
on which the threshold was chosen, the rest of the other letters and of the fights. All clips of both and
pieces of the animals' recordings are distractors. `score` searches an index of originals and copies; right is
a pair of a copy and its original, or of two copies of one original; every other pair is wrong. A kind's
precision is that of the pairs of its copies, its recall the share of its copies found with their original.

    python benchmarks/near_duplicates.py plant --data DATA --out PLANTED [--copies 200]
    tce index PLANTED/originals PLANTED/copies --ckpt lite2 --image-size 112 --fps 10 --thumbnail 96 --db DB
    python benchmarks/near_duplicates.py score --db DB --planted PLANTED [--threshold 0.92]
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

import tce

Frames = NDArray[np.uint8]  # [n, H, W, 3]
Change = Callable[[Frames, float, np.random.Generator], tuple[Frames, float]]

PIECE_SECONDS = 0.9  # of the animals' recordings, which makes about 300 pieces
CHOSEN_ON = "ABCDEFGHIJKL"  # letters of the gestures on which thresholds were chosen


def reencoded(frames: Frames, fps: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """The frames themselves; the coarser compression is what changes them."""
    return frames, fps


def resized(frames: Frames, fps: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Half to three quarters of the size."""
    scale = rng.uniform(0.5, 0.75)
    height, width = (round(side * scale) for side in frames.shape[1:3])
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_AREA) for f in frames]), fps


def cropped(frames: Frames, fps: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Two to eight per cent off each side."""
    height, width = frames.shape[1:3]
    top, bottom = (round(height * share) for share in rng.uniform(0.02, 0.08, 2))
    left, right = (round(width * share) for share in rng.uniform(0.02, 0.08, 2))
    return frames[:, top : height - bottom, left : width - right], fps


def shortened(frames: Frames, fps: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """A part of half to three quarters of the length."""
    count = round(len(frames) * rng.uniform(0.5, 0.75))
    first = int(rng.integers(0, len(frames) - count + 1))
    return frames[first : first + count], fps


def letterboxed(frames: Frames, fps: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Black bars of an eighth to a sixth of the height or width on both sides."""
    share, upright = rng.uniform(1 / 8, 1 / 6), rng.random() < 0.5
    bar = round(frames.shape[1 if upright else 2] * share)
    pads = ((0, 0), (bar, bar), (0, 0), (0, 0)) if upright else ((0, 0), (0, 0), (bar, bar), (0, 0))
    return np.pad(frames, pads), fps


def other_rate(frames: Frames, fps: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Another frame rate, half to 0.8 of the original's, of the frames nearest in time."""
    new = fps * rng.uniform(0.5, 0.8)
    rows = np.minimum(np.rint(np.arange(0, len(frames) / fps, 1 / new) * fps), len(frames) - 1).astype(int)
    return frames[rows], new


def mirrored(frames: Frames, fps: float, rng: np.random.Generator) -> tuple[Frames, float]:
    """Left and right exchanged."""
    return frames[:, :, ::-1], fps


KINDS: dict[str, Change] = {
    one.__name__: one for one in (reencoded, resized, cropped, shortened, letterboxed, other_rate, mirrored)
}


def write(path: Path, frames: Frames, fps: float, crf: int) -> None:
    height, width = (side - side % 2 for side in frames.shape[1:3])
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = container.add_stream(
            "libx264", rate=rate, options={"crf": str(crf), "preset": "veryfast", "threads": "1"}
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), "rgb24")
            for packet in stream.encode(picture):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def originals(data: Path, out: Path) -> list[Path]:
    """Copy the clips of the gestures and fights, and cut the animals' recordings into pieces."""
    found = []
    for name in ("gestures", "fights"):
        for path in sorted((data / name / "videos").rglob("*.mp4")):
            target = out / name / path.relative_to(data / name / "videos")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            found.append(target)
    for path in sorted((data / "animals" / "videos").rglob("*.mp4")) + sorted(
        (data / "fly_courtship").rglob("*.mp4")
    ):
        with tce.open_video(path) as video:
            count = round(PIECE_SECONDS * video.fps)
            for number in range(len(video) // count):
                piece = video.frames(range(number * count, (number + 1) * count))
                write(out / "animals" / f"{path.stem}_{number:03d}.mp4", piece, video.fps, 20)
    return found


def plant(data: Path, out: Path, copies: int) -> None:
    rng = np.random.default_rng(0)
    clips = originals(data, out / "originals")
    first = [path for path in clips if "gestures" in path.parts and path.parent.name[-1] in CHOSEN_ON]
    second = [path for path in clips if "gestures" in path.parts and path.parent.name[-1] not in CHOSEN_ON]
    fights = [path for path in clips if "fights" in path.parts]
    planted = {}
    for kind, change in KINDS.items():
        for pool, count in (
            (first, copies // 2),
            (second, copies // 4),
            (fights, copies - copies // 2 - copies // 4),
        ):
            for row in rng.choice(len(pool), count, replace=False).tolist():
                with tce.open_video(pool[row]) as video:
                    frames, fps = np.asarray(video.frames(range(len(video)))), video.fps
                changed, rate = change(frames, fps, rng)
                path = out / "copies" / kind / f"{len(planted):05d}.mp4"
                write(path, changed, rate, 36 if kind == "reencoded" else 28)
                chosen = pool is first
                planted[str(path.relative_to(out))] = {
                    "original": str(pool[row].relative_to(out)),
                    "kind": kind,
                    "chosen": chosen,
                }
    (out / "planted.json").write_text(json.dumps(planted, indent=1))
    print(f"{len(planted)} copies of {len(clips)} clips in {out}")


def score(db: str, planted: Path, thresholds: list[float]) -> None:
    made = json.loads((planted / "planted.json").read_text())
    started = time.perf_counter()
    found = tce.near_duplicates(db, mirror=True, threshold=min(thresholds))
    seconds = time.perf_counter() - started
    print(f"{found.figures['videos']:,} videos, {found.figures['frames']:,} frames: {seconds:.0f} s")

    def name(video: str) -> str:
        return str(Path(video).relative_to(planted.resolve()))

    def root(video: str) -> str:
        return made[video]["original"] if video in made else video

    def is_chosen(video: str) -> bool:
        path = Path(root(video))
        return "gestures" in path.parts and path.parent.name[-1] in CHOSEN_ON

    pairs = [(name(pair.video.video), name(pair.other.video), pair.score) for pair in found]
    for threshold in thresholds:
        kept = {tuple(sorted(pair[:2])) for pair in pairs if pair[2] >= threshold}
        for chosen in (True, False):
            where = "letters A to L (chosen on)" if chosen else "other letters and fights"
            print(f"threshold {threshold:g}, {where}")
            part = {pair for pair in kept if is_chosen(pair[0]) == chosen}
            wrong = [pair for pair in part if root(pair[0]) != root(pair[1])]
            print(f"  all: {len(part):,} pairs, precision {1 - len(wrong) / max(1, len(part)):.3f}")
            both = sum(pair[0] not in made and pair[1] not in made for pair in wrong)
            print(f"  of {len(wrong)} wrong ones {both} are of two originals")
            for kind in KINDS:
                copies = [one for one, how in made.items() if how["kind"] == kind and how["chosen"] == chosen]
                hit = sum(tuple(sorted((one, made[one]["original"]))) in part for one in copies)
                own = [pair for pair in part if any(made.get(one, {}).get("kind") == kind for one in pair)]
                bad = sum(root(pair[0]) != root(pair[1]) for pair in own)
                print(
                    f"  {kind:<12} precision {1 - bad / max(1, len(own)):.3f}, "
                    f"recall {hit / len(copies):.3f} of {len(copies)}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("plant")
    make.add_argument("--data", type=Path, required=True)
    make.add_argument("--out", type=Path, required=True)
    make.add_argument("--copies", type=int, default=200)
    count = commands.add_parser("score")
    count.add_argument("--db", required=True)
    count.add_argument("--planted", type=Path, required=True)
    count.add_argument("--threshold", type=float, nargs="+", default=[0.92])
    given = parser.parse_args()
    if given.command == "plant":
        plant(given.data, given.out, given.copies)
    else:
        score(given.db, given.planted, given.threshold)


if __name__ == "__main__":
    main()
