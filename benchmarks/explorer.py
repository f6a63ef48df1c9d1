"""The explorer's page: time to build by number of frames, to open, and to move its map in Chromium.

    python benchmarks/explorer.py [--sizes 1000 10000 100000] [--no-pictures]

Random embeddings (100 groups in 128 dimensions) of videos of 100 frames; pictures are noisy shapes.
Pictures of a shown size are made once and repeated, so that making them is not counted.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from tce.explorer.explore import SIDES, SMALLEST_SIDE
from tce.explorer.map_layout import cluster, lay_out, nearest_frames, reduce
from tce.explorer.page import PageColumn, PageMap, PageVideo, build_page, category, sprite_sheets

PER_VIDEO = 100
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
MOVES = 60
# Moves the map a little in every animation frame: the time from one to the next, and that of drawing alone.
PAN = """moves => new Promise(done => {
  const map = explorer.scatters[0], between = [], drawing = [];
  let last = performance.now(), count = 0;
  const step = now => {
    between.push(now - last);
    last = now;
    if (++count > moves) return done([between.slice(1), drawing]);
    map.x += 0.002;
    const start = performance.now();
    map.paint();
    map.paintOver();
    drawing.push(performance.now() - start);
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
})"""


def build(frames: int, pictures: bool, folder: Path) -> tuple[Path, dict[str, float]]:
    rng = np.random.default_rng(0)
    group = rng.integers(0, 100, size=frames)
    vectors = rng.normal(size=(100, 128)).astype(np.float32)[group] * 2
    vectors += rng.normal(size=vectors.shape).astype(np.float32)
    counts = [PER_VIDEO] * (frames // PER_VIDEO)
    owner = np.repeat(np.arange(len(counts)), PER_VIDEO)
    side = next((side for most, side in SIDES if frames <= most), SMALLEST_SIDE) if pictures else 0
    coarse = rng.integers(0, 255, size=(PER_VIDEO, 6, 8, 3)).astype(np.uint8)
    shown = None
    if side:
        large = np.stack([cv2.resize(one, (side, side * 3 // 4)) for one in coarse])
        shown = np.clip(large + rng.normal(scale=8, size=large.shape), 0, 255).astype(np.uint8)
    seconds: dict[str, float] = {}
    clock = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal clock
        seconds[name] = time.perf_counter() - clock
        clock = time.perf_counter()

    reduced = reduce(vectors)
    lap("PCA")
    points = lay_out(reduced)
    lap("map")
    near = nearest_frames(reduced, owner, 8)
    lap("neighbours")
    columns = [category("group", [str(one) for one in group]), PageColumn("time", "number", owner * 1.0)]
    columns.append(category("cluster", [str(one) for one in cluster(reduced, 12)]))
    lap("clusters")
    size = (side, side * 3 // 4) if side else None
    sheets = sprite_sheets([shown] * len(counts), counts, side)
    lap("pictures")
    videos = [PageVideo(f"video {n}", f"{n}.mp4", PER_VIDEO, size) for n in range(len(counts))]
    frame = np.tile(np.arange(PER_VIDEO), len(counts))
    text = build_page(
        "benchmark", [PageMap("m", points, near)], videos, frame, frame / 4, columns, sheets, side
    )
    page = folder / f"{frames}.html"
    page.write_text(text)
    lap("page")
    return page, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--no-pictures", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pages, first = [], 0.0
        for frames in options.sizes:
            page, seconds = build(frames, not options.no_pictures, Path(folder))
            total = sum(seconds.values())
            first = first or total / frames
            stages = ", ".join(f"{name} {value:.1f}" for name, value in seconds.items())
            print(
                f"{frames:7,} frames: {total:6.1f} s ({stages}), {page.stat().st_size / 1e6:.1f} MB,"
                f" {total / frames / first:.2f} x the smallest's time a frame",
                flush=True,
            )
            pages.append(page)
        browser_path = shutil.which("chromium")
        if browser_path is None:
            print("no chromium: the page was not opened")
            return
        from playwright.sync_api import sync_playwright

        with sync_playwright() as driver:
            browser = driver.chromium.launch(executable_path=browser_path, args=FLAGS)
            for page in pages:
                tab = browser.new_page(viewport={"width": 1280, "height": 800})
                start = time.perf_counter()
                tab.goto(page.as_uri())
                tab.wait_for_selector("body[data-ready]")
                ready = time.perf_counter() - start
                between, drawing = tab.evaluate(PAN, MOVES)
                print(
                    f"{page.stem:>7} frames: ready after {ready:.2f} s; while the map moves {MOVES} times,"
                    f" median {statistics.median(between):.1f} ms a frame"
                    f" (drawing {statistics.median(drawing):.1f} ms)",
                    flush=True,
                )
                tab.close()
            browser.close()


if __name__ == "__main__":
    main()
