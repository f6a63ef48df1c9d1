"""Films against redrawing a figure and against encoding alone; t-SNE against scikit-learn's.

    python benchmarks/visualize.py film [--frames 150] [--length 1500] [--rounds 3]
    python benchmarks/visualize.py tsne [--rows 50000]

The page of `tce explore` has a script of its own, benchmarks/explorer.py. Rates and ratios are of processor
time, so that other work on the machine counts less. Data are random walks, as videos are: 100 frames a video.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tce.embedding.embedding_file import Embeddings
from tce.video.synthetic import draw_clip
from tce.visualize.film import Image, save_film
from tce.visualize.film_scene import Scene
from tce.visualize.map_film import MapPanel, reels_of
from tce.visualize.reduce import fit_tsne
from tce.visualize.themes import LIGHT

FPS = 25
HEIGHT, WIDTH = 360, 480
NEIGHBOURS, QUERIES = 10, 2000


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of processor and of wall-clock time."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def film(count: int, length: int, rounds: int) -> None:
    clip = draw_clip("Squat", 0, 0, 50, HEIGHT, FPS, seed=0)
    images = [
        np.ascontiguousarray(np.pad(one, ((0, 0), (0, WIDTH - HEIGHT), (0, 0)), "edge")) for one in clip
    ]
    rng = np.random.default_rng(0)
    points = np.cumsum(rng.normal(size=(length, 2)), axis=0)
    frame = np.arange(length)
    stored = Embeddings(points, np.full(length, "clip.mp4"), frame, frame / FPS)
    reels = reels_of(stored)

    def drawn() -> Iterator[tuple[float, Image]]:
        scene = Scene([(HEIGHT, WIDTH)], ["clip"], [None])
        panel = MapPanel(points, reels, [LIGHT.points], [LIGHT.mark], scene.side, LIGHT)
        for row in range(count):
            scene.show(0, images[row % len(images)], row / FPS)
            panel.draw([row], 1.0, scene.panel)
            scene.progress(row / count)
            yield row / FPS, scene.picture

    ready = [picture.copy() for _, picture in drawn()]

    def redrawn() -> Iterator[tuple[float, Image]]:
        """The same with Matplotlib: artists are changed, the figure is drawn again for every frame."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        height, width = ready[0].shape[:2]
        figure = Figure(figsize=(width / 100, height / 100), dpi=100)
        canvas = FigureCanvasAgg(figure)
        left, right = figure.subplots(1, 2)
        left.scatter(*points.T, s=6)
        (line,) = left.plot([], [], color="red")
        (mark,) = left.plot([], [], "o", color="red")
        shown = right.imshow(images[0])
        title = right.set_title("0.0 s")
        for row in range(count):
            shown.set_data(images[row % len(images)])
            line.set_data(*points[max(0, row - FPS) : row + 1].T)
            mark.set_data(*points[row : row + 1].T)
            title.set_text(f"{row / FPS:.1f} s")
            canvas.draw()
            yield row / FPS, np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[:height, :width, :3])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "f.mp4"
        ways: dict[str, Callable[[], object]] = {
            "encoding alone": lambda: save_film(path, zip(frame[:count] / FPS, ready), FPS),
            "tce (drawing and encoding)": lambda: save_film(path, drawn(), FPS),
            "Matplotlib and encoding": lambda: save_film(path, redrawn(), FPS),
            "tce, drawing alone": lambda: [None for _ in drawn()],
            "Matplotlib, drawing alone": lambda: [None for _ in redrawn()],
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):  # in turn, so that each meets the same machine
            for name, work in ways.items():
                seconds[name].append(timed(work)[0])
    rates = {name: count / statistics.median(found) for name, found in seconds.items()}
    print(f"{count} frames of {ready[0].shape[1]} x {ready[0].shape[0]}, {length} points, median of {rounds}")
    for name, rate in rates.items():
        print(f"  {name:28s} {rate:7.1f} frames a second of processor time")
    alone, ours, redraw, draws, redraws = rates.values()
    print(f"  tce / encoding alone {ours / alone:.2f} (aim 0.70)")
    print(
        f"  tce / Matplotlib {ours / redraw:.1f} with encoding, {draws / redraws:.1f} drawing alone (aim 8)"
    )


def vectors(rows: int, size: int = 128, clip: int = 100) -> np.ndarray:
    """Unit vectors of random walks that begin near one of 20 centres: [rows, size]."""
    rng = np.random.default_rng(0)
    clips = rows // clip
    centre = rng.normal(size=(20, size))[rng.integers(0, 20, clips)] + rng.normal(size=(clips, size)) * 0.6
    walks = np.cumsum(rng.normal(size=(clips, clip, size)) * 0.12, axis=1)
    found = (centre[:, None] + walks).reshape(-1, size) + rng.normal(size=(clips * clip, size)) * 0.1
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def kept(data: np.ndarray, points: np.ndarray) -> float:
    """Share of the 10 nearest neighbours of 2,000 rows that are among their 10 nearest on the map."""
    from sklearn.neighbors import NearestNeighbors

    rows = np.random.default_rng(1).choice(len(data), min(QUERIES, len(data)), replace=False)
    near = [
        NearestNeighbors(n_neighbors=NEIGHBOURS + 1)
        .fit(one)
        .kneighbors(one[rows], return_distance=False)[:, 1:]
        for one in (data, points)
    ]
    return float(np.mean([len(set(a) & set(b)) / NEIGHBOURS for a, b in zip(*near)]))


def tsne(rows: int) -> None:
    from sklearn.manifold import TSNE

    data = vectors(rows)
    found: dict[str, np.ndarray] = {}
    ways: dict[str, Callable[[], np.ndarray]] = {
        "tce, default": lambda: fit_tsne(data),
        "tce, --pca-threshold 1": lambda: fit_tsne(data, pca=False),
        "scikit-learn, default": lambda: TSNE(random_state=0).fit_transform(data),
    }
    seconds = {}
    for name, work in ways.items():
        seconds[name], wall = timed(lambda name=name, work=work: found.update({name: work()}))
        share = kept(data, found[name])
        print(
            f"  {name:24s} {seconds[name]:7.1f} s of processor time ({wall:.0f} s by the clock),"
            f" {share:.1%} kept"
        )
    theirs = seconds["scikit-learn, default"]
    for name in list(ways)[:2]:
        print(f"  {name}: {theirs / seconds[name]:.1f} x scikit-learn's speed (aim 5)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["film", "tsne"])
    parser.add_argument("--frames", type=int, default=150)
    parser.add_argument("--length", type=int, default=1500, help="frames of the video: points on its map")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=50_000)
    options = parser.parse_args()
    if options.what == "film":
        film(options.frames, options.length, options.rounds)
    else:
        tsne(options.rows)


if __name__ == "__main__":
    main()
