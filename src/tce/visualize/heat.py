"""Similarity of the frames of a video, or of two with their alignment (`tce heat`): a picture or film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tce.embedding.embed_command import gather, open_encoder
from tce.embedding.embedding_file import Embeddings, save_embeddings
from tce.errors import OptionError, TceError
from tce.io import require_writable
from tce.options.heat import HeatOptions
from tce.progress import Progress
from tce.video.base import DEFAULT_FPS, Video
from tce.video.open_video import open_isolated, open_video
from tce.visualize.alignment import align, partner_frames
from tce.visualize.film import FILMS, Image, save_film
from tce.visualize.film_scene import HIGHEST, Scene, disc
from tce.visualize.heat_plot import draw_matrix, heat_figure
from tce.visualize.map_film import GIF_FPS, GIF_HEIGHT, film_names, wanted_frames
from tce.visualize.plots import PICTURES, PictureResult, require_picture, save_figure
from tce.visualize.themes import Theme, rgb

FEWEST = 3  # frames of a video
MOST_CELLS = 25_000_000  # of the matrix: 100 MB
THUMBNAIL = 160  # pixels, longer side


@dataclass(frozen=True)
class Side:
    """One video of a matrix.

    Attributes:
        name: its path.
        vectors: float32 [n, D], of length 1.
        frame: [n] frame numbers.
        time: [n] seconds.
    """

    name: str
    vectors: NDArray[np.float32]
    frame: NDArray[np.int64]
    time: NDArray[np.float64]


def heat(options: HeatOptions) -> PictureResult:
    """Draw how similar the frames of a video are to one another, or those of two videos (`tce heat`).

    Of two videos the alignment path is drawn: which frame of one belongs to which of the other. As a film the
    first one plays at its own speed and the second one follows the path.

    Raises:
        TceError: an output that cannot be written, a video that cannot be read or has fewer than three
            frames, too many frames, or a film of one video.
    """
    output = _require_output(options)
    for name in options.videos:  # a wrong name is reported before the network is loaded
        open_video(name)
    encoder, weights = open_encoder(options.network)
    names = list(dict.fromkeys(options.videos))
    gathered = gather(names, encoder, options.network, options.every, partial=options.save_embeddings)
    if gathered.skipped:
        raise TceError(next(iter(gathered.skipped.values())))
    if options.save_embeddings is not None:
        save_embeddings(options.save_embeddings, gathered.stored)
    sides = [_side(gathered.stored, name) for name in (options.videos[0], options.videos[-1])]
    cells = len(sides[0].time) * len(sides[1].time)
    if cells > MOST_CELLS:
        fix = f"raise --every to {int(np.ceil(options.every * np.sqrt(cells / MOST_CELLS)))} or more"
        raise TceError("tce heat", f"at most {MOST_CELLS:,} pairs of frames", f"{cells:,}", fix)
    similarity = sides[0].vectors @ sides[1].vectors.T
    path = align(similarity) if len(options.videos) == 2 else None
    figures: dict[str, Any] = {
        "output": str(output),
        "videos": list(options.videos),
        "frames": [len(side.time) for side in sides[: len(options.videos)]],
        "weights": weights,
        "similarity_pairs": float(similarity.mean()),
    }
    if path is not None:
        figures |= {"similarity_path": float(similarity[path[:, 0], path[:, 1]].mean()), "path": path}
    figure = None
    if output.suffix.lower() in FILMS:
        assert path is not None
        figures |= _film(output, sides, similarity, path, options)
    else:
        figure = _picture(sides, similarity, path, weights, options)
        save_figure(figure, output)
    return PictureResult(_text(figures, weights), figures, str(output), figure)


def _text(figures: dict[str, Any], weights: str) -> str:
    videos = [
        f"{Path(name).name} ({count} frames)" for name, count in zip(figures["videos"], figures["frames"])
    ]
    text = f"{figures['output']}: {' and '.join(videos)}, {weights}\nmean cosine of all pairs of frames"
    text += f" {figures['similarity_pairs']:.3f}"
    if "similarity_path" in figures:
        text += f", along the alignment {figures['similarity_path']:.3f}"
    return text


def _require_output(options: HeatOptions) -> Path:
    """Where the picture or film goes.

    Raises:
        OptionError: a suffix that fits neither, or a film of one video.
        TceError: it cannot be written there.
    """
    path = Path(options.output)
    suffix = path.suffix.lower()
    if options.save_embeddings is not None:
        require_writable(options.save_embeddings, "--save-embeddings")
    if suffix not in FILMS:
        if suffix not in PICTURES:
            known = ", ".join((*PICTURES, *FILMS))
            raise OptionError(f"--output {path}", f"a name ending in {known}", suffix or "no suffix")
        if options.fps is not None:
            raise OptionError("--fps", "a film (--output FILE.mp4)", "a picture")
        return require_picture(path)
    if len(options.videos) < 2:
        raise OptionError(f"--output {path}", "two videos for a film", "one", "name a picture, such as .png")
    return require_writable(path)


def _side(stored: Embeddings, name: str) -> Side:
    assert stored.video is not None and stored.frame is not None and stored.time is not None
    mine = stored.video == name
    if mine.sum() < FEWEST:
        few = f"{mine.sum()} of {name}"
        raise TceError("tce heat", "three frames or more", few, "give a longer video, or a smaller --every")
    vectors = stored.vectors[mine].astype(np.float32)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return Side(name, vectors / lengths, stored.frame[mine], stored.time[mine].astype(np.float64))


def _picture(
    sides: Sequence[Side],
    similarity: NDArray[np.float32],
    path: NDArray[np.int64] | None,
    weights: str,
    options: HeatOptions,
) -> Any:
    names = film_names([side.name for side in sides]) if path is not None else [Path(sides[0].name).name] * 2
    shown = [_thumbnails(side, options.thumbnails) for side in (sides if path is not None else sides[:1])]
    title = f"{' and '.join(dict.fromkeys(names))} · {weights}" if options.title is None else options.title
    return heat_figure(
        similarity,
        sides[0].time,
        sides[1].time,
        (names[0], names[1]),
        (shown[0], shown[-1]),
        path,
        title,
        options.theme,
    )


def _thumbnails(side: Side, count: int) -> list[tuple[float, Image]]:
    """Frames spread evenly over a video, each in the middle of its part, made small."""
    count = min(count, len(side.frame))
    if count == 0:
        return []
    rows = ((np.arange(count) + 0.5) / count * len(side.frame)).astype(int)
    with open_isolated(side.name) as video:
        frames = video.frames(side.frame[rows])
    scale = min(1.0, THUMBNAIL / max(frames.shape[1:3]))
    size = max(1, round(frames.shape[2] * scale)), max(1, round(frames.shape[1] * scale))
    small = [np.asarray(cv2.resize(one, size, interpolation=cv2.INTER_AREA), np.uint8) for one in frames]
    return list(zip(side.time[rows].tolist(), small))


def _film(
    output: Path,
    sides: Sequence[Side],
    similarity: NDArray[np.float32],
    path: NDArray[np.int64],
    options: HeatOptions,
) -> dict[str, Any]:
    """Write the film of two videos in step, the first one at its own speed."""
    gif = output.suffix.lower() == ".gif"
    time = sides[0].time
    spacing = float(np.median(np.diff(time))) or 1 / DEFAULT_FPS
    keep = max(1, int(np.ceil(1 / spacing / GIF_FPS - 1e-6))) if gif and options.fps is None else 1
    rows = np.arange(0, len(time), keep)
    partners = partner_frames(path, len(time))[rows]
    rate = options.fps or 1 / (spacing * keep)
    seconds = np.arange(len(rows)) / rate if options.fps else time[rows] - time[0]
    with ExitStack() as stack:
        videos = [stack.enter_context(open_isolated(side.name)) for side in sides]
        names = film_names([side.name for side in sides])
        scene = Scene(
            [video.size for video in videos], names, [None] * 2, options.theme, GIF_HEIGHT if gif else HIGHEST
        )
        panel = HeatPanel(similarity, sides[0].time, sides[1].time, path, scene.side, scene.look, names)
        places = np.stack([rows, partners], axis=1)
        samples = []
        for share in np.linspace(0, 1, 6) if gif else ():
            pair = places[round(share * (len(places) - 1))]
            for number, (side, video, place) in enumerate(zip(sides, videos, pair.tolist())):
                scene.show(number, video.frames([int(side.frame[place])])[0], float(side.time[place]))
            panel.draw(pair[0], pair[1], scene.panel)
            samples.append(scene.picture.copy())
        with Progress(len(rows), "film", "frame") as progress:
            pictures = _pictures(scene, panel, sides, videos, places, seconds, progress)
            save_film(output, pictures, rate, samples, expected=len(rows))
    return {"fps": rate, "seconds": float(seconds[-1] + 1 / rate), "film_frames": len(rows)}


def _pictures(
    scene: Scene,
    panel: HeatPanel,
    sides: Sequence[Side],
    videos: Sequence[Video],
    places: NDArray[np.int64],
    seconds: NDArray[np.float64],
    progress: Progress,
) -> Iterator[tuple[float, Image]]:
    streams = [
        wanted_frames(video, side.frame[np.unique(own)]) for side, video, own in zip(sides, videos, places.T)
    ]
    before = [-1, -1]
    for step, pair in enumerate(places.tolist()):
        for number, place in enumerate(pair):
            if place != before[number]:
                scene.show(number, next(streams[number]), float(sides[number].time[place]))
                before[number] = place
        panel.draw(pair[0], pair[1], scene.panel)
        scene.progress(step / max(len(places) - 1, 1))
        yield float(seconds[step]), scene.picture
        progress.update()


class HeatPanel:
    """A square picture of the matrix with axes in seconds, on which the current pair of frames is marked.

    Args:
        similarity: [n, m].
        first: [n] seconds of the first video.
        second: [m] seconds of the second one.
        path: [k, 2] of `align`.
        side: height and width in pixels.
        look: the theme.
        names: of both videos.
    """

    def __init__(
        self,
        similarity: NDArray[np.floating[Any]],
        first: NDArray[np.float64],
        second: NDArray[np.float64],
        path: NDArray[np.int64],
        side: int,
        look: Theme,
        names: Sequence[str],
    ):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        dpi = 100 if side >= 400 else 72
        figure = Figure(figsize=(side / dpi, side / dpi), dpi=dpi, facecolor=look.ground)
        canvas = FigureCanvasAgg(figure)
        axes = figure.add_axes((58 / side, 46 / side, 1 - 70 / side, 1 - 58 / side))
        draw_matrix(axes, similarity, first, second, path, look)
        axes.set_xlabel("second, time (s)", fontsize=8.5, color=look.ink)
        axes.set_ylabel("first, time (s)", fontsize=8.5, color=look.ink)
        canvas.draw()
        self._ground: Image = np.asarray(canvas.buffer_rgba())[:side, :side, :3].copy()
        across = axes.transData.transform(np.stack([second, np.full(len(second), first[0])], axis=1))
        down = axes.transData.transform(np.stack([np.full(len(first), second[0]), first], axis=1))
        self.x, self.y = across[:, 0], side - down[:, 1]  # pixels; rows of an image count downwards
        box = axes.get_window_extent()
        self._box = round(box.x0), round(side - box.y1), round(box.x1), round(side - box.y0)
        self._mark, self._rim, self._radius = rgb(look.mark), rgb("#ffffff"), side / 70

    def draw(self, row: int, column: int, image: Image) -> None:
        """Draw the matrix into `image` [side, side, 3] and mark a pair of frames."""
        canvas = self._ground.copy()
        x, y = self.x[column], self.y[row]
        left, top, right, bottom = self._box
        cv2.line(canvas, (left, round(y)), (right, round(y)), self._mark, 1)
        cv2.line(canvas, (round(x), top), (round(x), bottom), self._mark, 1)
        disc(canvas, x, y, self._radius * 1.4, self._rim)
        disc(canvas, x, y, self._radius, self._mark)
        image[:] = canvas
