"""Retrieval: what one person's clips find among another's, and what a search costs.

Of real clips: every clip of one group is a query among the clips of the other groups, as a sequence and with
`--any-order`; R@k is the share whose first k videos hold one of the same label, with the 95% interval over
queries (normal approximation), and chance beside it. Of generated trajectories (random walks in D numbers):
the seconds of a search, opening the index included, and the approximate index's recall against a flat scan.

    python benchmarks/retrieval.py recall --db DB [--query-group g01] [--search-group g02]
    python benchmarks/retrieval.py speed [--frames 100000] [--size 128] [--approximate]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from tce.retrieval import frame_table, index_writer
from tce.retrieval.frame_table import FrameRows, IndexSettings, VideoRecord
from tce.retrieval.index_writer import IndexWriter
from tce.retrieval.search_index import open_index

PER_VIDEO = 500  # frames of a generated trajectory


def recall(db: str, query_group: str, search_group: str) -> None:
    index = open_index(db)
    asked = [video for video in index.videos.values() if video.group == query_group]
    pool = [video.label for video in index.videos.values() if video.group == search_group]
    print(f"{len(asked)} clips of {query_group} against {len(pool)} of {search_group}, {index}")
    names = np.array(index.frames.names)[index.frames.code]
    for any_order in (False, True):
        found = {1: [], 5: []}
        chance = {1: [], 5: []}
        for video in asked:
            query = index.frames.vectors(np.flatnonzero(names == video.video))
            result = index.search(query, group=search_group, any_order=any_order, top=25)
            videos = list(dict.fromkeys(moment.video for moment in result))
            right = [index.videos[name].label == video.label for name in videos]
            share = pool.count(video.label) / len(pool)
            for k in found:
                found[k].append(any(right[:k]))
                chance[k].append(1 - (1 - share) ** k)
        shown = []
        for k, hits in found.items():
            mean, half = np.mean(hits), 1.96 * np.std(hits) / np.sqrt(len(hits))
            shown.append(f"R@{k} {mean:.3f} ± {half:.3f} (chance {np.mean(chance[k]):.3f})")
        print(f"{'any order' if any_order else 'in order '}: {', '.join(shown)}", flush=True)


def trajectories(frames: int, size: int, seed: int = 0) -> np.ndarray:
    """Unit vectors float32 [frames, size]: a random walk for each video."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(size=(frames, size)).astype(np.float32) * 0.15
    starts = np.arange(0, frames, PER_VIDEO)
    steps[starts] = rng.normal(size=(len(starts), size)) * 3
    for start in starts:
        part = steps[start : start + PER_VIDEO]
        np.cumsum(part, axis=0, out=part)
    return steps / np.linalg.norm(steps, axis=1, keepdims=True)


def speed(frames: int, size: int, approximate: bool) -> None:
    vectors = trajectories(frames, size)
    with tempfile.TemporaryDirectory() as folder:
        frame_table.ANN_ABOVE = 0 if approximate else frames
        index_writer.COMMIT_SECONDS = 1e9
        settings = IndexSettings("0" * 64, "embedding", size)
        started = time.perf_counter()
        with IndexWriter(folder, settings) as writer:
            for first in range(0, frames, PER_VIDEO):
                part = vectors[first : first + PER_VIDEO]
                rows = FrameRows(np.arange(len(part)), np.arange(len(part)) / 25, part, [b""] * len(part))
                name = f"/v/{first:08d}.mp4"
                writer.add(VideoRecord(name, name, 0.0, "/v", "1", frames=len(part)), rows)
            writer.commit()
            appended = time.perf_counter() - started
            kind = writer.finish()
        total = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
        built = time.perf_counter() - started - appended
        print(f"{frames:,} frames of {size} numbers, {kind}: appended {frames / appended:,.0f}/s")
        print(f"  on disk {total / 1e6:,.0f} MB, files joined and index built in {built:.1f} s")
        rng = np.random.default_rng(1)
        for length in (1, 16):
            seconds, hits = [], 0
            for row in (rng.integers(0, frames // PER_VIDEO, 10) * PER_VIDEO + 100).tolist():
                started = time.perf_counter()
                index = open_index(folder)
                result = index.search(vectors[row : row + length], top=10)
                seconds.append(time.perf_counter() - started)
                hits += result[0].from_ * 25 == row % PER_VIDEO or result[0].frame == row % PER_VIDEO
            print(
                f"  query of {length:>2}: {np.median(seconds):.2f} s with opening, finds itself {hits} of 10"
            )
        if approximate:
            found = 0
            for row in rng.integers(0, frames, 50).tolist():
                flat = np.argsort(-(vectors @ vectors[row]))[:10]
                ids = index.frames.hits(vectors[row], 10)
                found += len(set(flat.tolist()) & set(ids.tolist()))
            print(f"  recall@10 of the approximate index: {found / 500:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    found = commands.add_parser("recall")
    found.add_argument("--db", required=True)
    found.add_argument("--query-group", default="g01")
    found.add_argument("--search-group", default="g02")
    fast = commands.add_parser("speed")
    fast.add_argument("--frames", type=int, default=100_000)
    fast.add_argument("--size", type=int, default=128)
    fast.add_argument("--approximate", action="store_true")
    given = parser.parse_args()
    if given.command == "recall":
        recall(given.db, given.query_group, given.search_group)
    else:
        speed(given.frames, given.size, given.approximate)


if __name__ == "__main__":
    main()
