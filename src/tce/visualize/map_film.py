"""The film of a map: a point moves over it while the videos play beside it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tce.embedding.embedding_file import Embeddings
from tce.errors import OptionError, TceError
from tce.options.tsne import TsneOptions
from tce.progress import Progress
from tce.video.base import DEFAULT_FPS, Video
from tce.video.open_video import open_isolated
from tce.visualize.film import Image, save_film
from tce.visualize.film_scene import HIGHEST, Scene, disc
from tce.visualize.plots import short_names
from tce.visualize.themes import THEMES, Theme, rgb

MOST_VIDEOS = 16
GIF_FPS = 15.0  # at most, unless --fps asks for another rate: GIFs are large
GIF_HEIGHT = 320
TIME_TOLERANCE = 0.05  # seconds by which stored times may differ from the footage's
PALETTE_SAMPLES = 6  # frames of each video from which a GIF's colours are chosen

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Reel:
    """One video's frames of a film.

    Attributes:
        name: its path.
        rows: [n] of the embeddings.
        frame: [n] frame numbers, rising.
        time: [n] seconds.
    """

    name: str
    rows: NDArray[np.int64]
    frame: NDArray[np.int64]
    time: NDArray[np.float64]

    @property
    def spacing(self) -> float:
        """Seconds from one frame to the next."""
        return float(np.median(np.diff(self.time))) if len(self.time) > 1 else 1 / DEFAULT_FPS


@dataclass(frozen=True)
class Plan:
    """When what is shown.

    Attributes:
        places: [steps, videos] which of a reel's frames is shown.
        clock: [steps] seconds in the videos.
        seconds: [steps] seconds in the film.
        rate: steps a second of the film.
    """

    places: NDArray[np.int64]
    clock: NDArray[np.float64]
    seconds: NDArray[np.float64]
    rate: float


def write_map_film(
    output: Path,
    stored: Embeddings,
    points: Points,
    options: TsneOptions,
    background: Points | None = None,
) -> dict[str, Any]:
    """Write the film of videos and their map.

    Args:
        output: film to write.
        stored: embeddings that name video, frame and time.
        points: [N, 2] their map.
        options: rate, tail and theme.
        background: [M, 2] points of an earlier map.

    Returns:
        Facts on the film: fps, seconds, and the number of its frames.

    Raises:
        TceError: footage that is gone, cannot be decoded or does not have these frames; too many videos.
    """
    reels = reels_of(stored)
    gif = output.suffix.lower() == ".gif"
    plan = plan_film(reels, options.fps, GIF_FPS if gif and options.fps is None else None)
    with ExitStack() as stack:
        videos = [stack.enter_context(open_isolated(reel.name)) for reel in reels]
        for reel, video in zip(reels, videos):
            require_frames(reel, video)
        look = THEMES[options.theme]
        colours = [look.palette[n % len(look.palette)] for n in range(len(reels))]
        names = film_names([reel.name for reel in reels])
        marks: list[str | None] = [None] if len(reels) == 1 else [*colours]
        highest = GIF_HEIGHT if gif else HIGHEST
        scene = Scene([video.size for video in videos], names, marks, options.theme, highest)
        if len(reels) == 1:
            panel = MapPanel(points, [reels[0]], [look.points], [look.mark], scene.side, look, background)
        else:
            panel = MapPanel(points, reels, colours, colours, scene.side, look, background)
        samples = _samples(scene, panel, reels, videos) if gif else []
        count = len(plan.seconds)
        with Progress(count, "film", "frame") as progress:
            pictures = _pictures(scene, panel, reels, videos, plan, options.tail, progress)
            save_film(output, pictures, plan.rate, samples, expected=count)
    return {"fps": plan.rate, "seconds": float(plan.seconds[-1] + 1 / plan.rate), "film_frames": count}


def reels_of(stored: Embeddings) -> list[Reel]:
    """The frames of each video in order.

    Raises:
        TceError: embeddings that do not say which frames they are of, or of too many videos.
    """
    if stored.video is None or stored.frame is None or stored.time is None:
        raise OptionError(
            "--vid", "embeddings with video, frame and time, as tce embed writes", "plain numbers"
        )
    names = list(dict.fromkeys(stored.video.tolist()))
    if len(names) > MOST_VIDEOS:
        fix = "name fewer, or leave --vid out to draw them all in a picture"
        raise OptionError("--vid", f"{MOST_VIDEOS} videos at most", str(len(names)), fix)
    reels = []
    for name in names:
        rows = np.flatnonzero(stored.video == name)
        rows = rows[np.argsort(stored.frame[rows], kind="stable")]
        reels.append(
            Reel(str(name), rows, stored.frame[rows].astype(np.int64), stored.time[rows].astype(np.float64))
        )
    return reels


def film_names(paths: Sequence[str]) -> list[str]:
    """Captions: as little of the paths as keeps them apart, without suffixes where that does."""
    stems = [Path(path).stem for path in paths]
    return stems if len(set(stems)) == len(stems) else short_names(paths)


def plan_film(reels: Sequence[Reel], fps: float | None, most: float | None = None) -> Plan:
    """When each frame is shown: one video's frames at their own times, several on the quickest one's clock.

    Args:
        reels: the videos.
        fps: frames a second of the film, whatever the videos' own rates; None for their own.
        most: frames a second at most, by leaving out frames; None for no limit.
    """
    spacing = max(min(reel.spacing for reel in reels), 1e-4)
    if len(reels) == 1:
        clock = reels[0].time - reels[0].time[0]
        places = np.arange(len(clock))[:, None]
    else:
        last = max(float(reel.time[-1]) for reel in reels)
        first = min(float(reel.time[0]) for reel in reels)
        clock = np.arange(math.floor((last - first) / spacing + 1e-6) + 1) * spacing
        at = clock[:, None] + first + spacing * 1e-3
        places = np.concatenate(
            [np.searchsorted(reel.time, at, side="right") - 1 for reel in reels], axis=1
        ).clip(0)
    keep = 1 if most is None else max(1, math.ceil(1 / spacing / most - 1e-6))
    clock, places = clock[::keep], places[::keep]
    rate = fps if fps is not None else 1 / (spacing * keep)
    seconds = np.arange(len(clock)) / rate if fps is not None else clock
    return Plan(places, clock, seconds, rate)


def require_frames(reel: Reel, video: Video) -> None:
    """Check that a video has the frames that were embedded, at their times.

    Raises:
        TceError: it does not.
    """
    expected = "the frames that were embedded"
    fix = "embed the videos again"
    length = len(video)
    if reel.frame[0] < 0 or reel.frame[-1] >= length:
        raise TceError(reel.name, f"{expected}, up to {reel.frame[-1]}", f"{length} frames", fix)
    apart = float(np.abs(video.times(reel.frame) - reel.time).max())
    if apart > TIME_TOLERANCE:
        raise TceError(reel.name, expected, f"times that differ by {apart:.3g} s", fix)


def wanted_frames(video: Video, numbers: NDArray[np.int64]) -> Iterator[Image]:
    """The frames with these rising numbers, decoded ahead of whoever draws them.

    Raises:
        TceError: one cannot be decoded.
    """
    step = int(np.gcd.reduce(np.diff(numbers))) if len(numbers) > 1 else 1
    wanted, place = numbers.tolist(), 0
    for indices, frames in video.stream(32, wanted[0], wanted[-1] + 1, max(1, step)):
        for number, frame in zip(indices.tolist(), frames):
            if place < len(wanted) and number == wanted[place]:
                place += 1
                yield frame
    if place < len(wanted):
        raise TceError(f"frame {wanted[place]} of {video.path}", "a frame that can be decoded", "none")


def _pictures(
    scene: Scene,
    panel: MapPanel,
    reels: Sequence[Reel],
    videos: Sequence[Video],
    plan: Plan,
    tail: float,
    progress: Progress,
) -> Iterator[tuple[float, Image]]:
    """The film's pictures and when each is shown; one array is changed again and again."""
    shown = [np.unique(plan.places[:, number]) for number in range(len(reels))]
    streams = [wanted_frames(video, reel.frame[own]) for video, reel, own in zip(videos, reels, shown)]
    before = [-1] * len(reels)
    steps = len(plan.seconds)
    for step in range(steps):
        for number, place in enumerate(plan.places[step].tolist()):
            if place != before[number]:
                scene.show(number, next(streams[number]), float(reels[number].time[place]))
                before[number] = place
        panel.draw(plan.places[step].tolist(), tail, scene.panel)
        scene.progress(step / max(steps - 1, 1))
        yield float(plan.seconds[step]), scene.picture
        progress.update()


def _samples(scene: Scene, panel: MapPanel, reels: Sequence[Reel], videos: Sequence[Video]) -> list[Image]:
    """Pictures from all over the film, for the colours of a GIF."""
    samples = []
    for share in np.linspace(0, 1, PALETTE_SAMPLES):
        places = [round(share * (len(reel.frame) - 1)) for reel in reels]
        for number, (reel, video, place) in enumerate(zip(reels, videos, places)):
            (frame,) = video.frames([int(reel.frame[place])])
            scene.show(number, frame, float(reel.time[place]))
        panel.draw(places, 1.0, scene.panel)
        samples.append(scene.picture.copy())
    return samples


class MapPanel:
    """A square picture of all points, on which one point a video moves, with a tail that fades.

    Attributes:
        pixels: [N, 2] x and y of the points.

    Args:
        points: [N, 2] map.
        reels: the videos.
        colours: of each video's points.
        marks: of each video's moving point.
        side: height and width in pixels.
        look: the theme.
        background: [M, 2] points of an earlier map, drawn in grey.
    """

    def __init__(
        self,
        points: Points,
        reels: Sequence[Reel],
        colours: Sequence[str],
        marks: Sequence[str],
        side: int,
        look: Theme,
        background: Points | None = None,
    ):
        from tce.visualize.map_plot import upright

        whole = points if background is None else np.concatenate([background, points])
        turned = upright(whole)
        low, high = turned.min(axis=0), turned.max(axis=0)
        scale = side * 0.88 / max(float((high - low).max()), 1e-12)
        pixels = (turned - (low + high) / 2) * scale * (1, -1) + side / 2  # rows of an image count downwards
        self.pixels = pixels[len(whole) - len(points) :]
        self._reels, self._look, self._side = reels, look, side
        self._marks = [rgb(mark) for mark in marks]
        self._ground = np.full((side, side, 3), rgb(look.panel), np.uint8)
        cv2.rectangle(self._ground, (0, 0), (side - 1, side - 1), rgb(look.rule), 1)
        dot = float(np.clip(side / 18 / np.sqrt(len(points)), side / 320, side / 100))
        for x, y in pixels[: len(whole) - len(points)]:
            disc(self._ground, x, y, dot * 0.8, _mixed(look.faint, look.panel, 0.4))
        for reel, colour in zip(reels, colours):
            for x, y in self.pixels[reel.rows]:
                disc(self._ground, x, y, dot, _mixed(colour, look.panel, 0.62))

    def draw(self, places: Sequence[int], tail: float, image: Image) -> None:
        """Draw the map into `image` [side, side, 3] with each reel's frame of `places` marked.

        Args:
            places: which of each reel's frames is shown.
            tail: seconds that a tail goes back.
            image: changed.
        """
        canvas = self._ground.copy()
        for reel, place, mark in zip(self._reels, places, self._marks):
            first = int(np.searchsorted(reel.time, reel.time[place] - tail - 1e-9))
            if tail > 0 and first < place:
                ages = (reel.time[place] - reel.time[first:place]) / tail  # of each line's older end
                self._tail(canvas, self.pixels[reel.rows[first : place + 1]], 1 - ages, mark)
        radius = self._side / 62
        for reel, place, mark in zip(self._reels, places, self._marks):
            x, y = self.pixels[reel.rows[place]]
            disc(canvas, x, y, radius * 1.4, rgb(self._look.panel))  # a rim parts it from its neighbours
            disc(canvas, x, y, radius, mark)
        image[:] = canvas

    def _tail(
        self, canvas: Image, path: Points, strength: NDArray[np.float64], mark: tuple[int, int, int]
    ) -> None:
        """Blend a line through `path` [n, 2] into the canvas, its parts [n - 1] of a strength from 0 to 1."""
        margin = self._side // 60 + 2
        low = np.floor(path.min(axis=0)).astype(int) - margin
        high = np.ceil(path.max(axis=0)).astype(int) + margin
        (left, top), (right, bottom) = np.clip(low, 0, self._side), np.clip(high, 0, self._side)
        area = canvas[top:bottom, left:right]
        mask = np.zeros(area.shape[:2], np.uint8)
        whole = np.round((path - (left, top)) * 16).astype(int).tolist()
        width = max(2, self._side // 150)
        for before, after, share in zip(whole, whole[1:], strength.tolist()):
            cv2.line(mask, before, after, int(235 * max(0.06, share)), width, cv2.LINE_AA, 4)
        alpha = mask[:, :, None].astype(np.uint16)
        colour = np.array(mark, np.uint16)
        area[:] = ((area * (255 - alpha) + colour * alpha) // 255).astype(np.uint8)


def _mixed(colour: str, ground: str, share: float) -> tuple[int, int, int]:
    one, other = rgb(colour), rgb(ground)
    mixed = [round(share * a + (1 - share) * b) for a, b in zip(one, other)]
    return mixed[0], mixed[1], mixed[2]
