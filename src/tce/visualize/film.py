"""Writing films: H.264 that browsers play, or GIF; each picture is encoded as soon as it is drawn."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import TceError
from tce.io import atomic

FILMS = (".mp4", ".m4v", ".mov", ".mkv", ".gif")
CONTAINERS = {".mov": "mov", ".mkv": "matroska", ".gif": "gif"}
CLOCK = 90_000  # ticks a second of H.264 files
GIF_CLOCK = 100  # a GIF counts in hundredths of a second
QUALITY = "18"  # x264's crf: text and thin lines stay clean
PRESET = "veryfast"  # x264's: films take a third of the time, and about a fifth more space
COLOURS = 256  # of a GIF
FLAT_COLOURS = 12  # of them exact
MOST_ERROR = 4.0  # mean of a picture's levels, of 255, above which other colours are chosen

Image = NDArray[np.uint8]  # [H, W, 3] RGB


def save_film(
    path: str | os.PathLike[str],
    pictures: Iterable[tuple[float, Image]],
    rate: float,
    samples: Sequence[Image] = (),
    expected: int | None = None,
) -> int:
    """Write a film; memory does not grow with its length.

    Args:
        path: film to write, one of `FILMS` by its suffix; replaced if it exists.
        pictures: seconds at which each is shown, rising, and the picture, uint8 [H, W, 3] RGB of one even
            height and width. It is read before the next one is asked for.
        rate: pictures a second, for the last one's duration and the encoder.
        samples: pictures as they will come, for the colours of a GIF; the first one alone if none are given.
        expected: number of pictures; another number is an error.

    Returns:
        Number of pictures written.

    Raises:
        TceError: a suffix that is no film's, or another number of pictures than expected.
    """
    path = Path(path)
    require_film(path)
    import av

    gif = path.suffix.lower() == ".gif"
    clock = GIF_CLOCK if gif else CLOCK
    written, last = 0, -1
    with atomic(path) as file:
        with av.open(file, "w", format=CONTAINERS.get(path.suffix.lower(), "mp4")) as output:
            stream: Any = None
            palette: Any = None
            for seconds, picture in pictures:
                if stream is None:
                    fraction = Fraction(rate).limit_denominator(1001)
                    options = {} if gif else {"crf": QUALITY, "preset": PRESET}
                    stream = output.add_stream("gif" if gif else "libx264", rate=fraction, options=options)
                    stream.height, stream.width = picture.shape[:2]
                    stream.pix_fmt = "pal8" if gif else "yuv420p"  # what every player shows
                    stream.codec_context.time_base = Fraction(1, clock)
                    palette = _Palette(list(samples) or [picture]) if gif else None
                frame = palette.frame(picture) if gif else av.VideoFrame.from_ndarray(picture, format="rgb24")
                last = max(last + 1, round(seconds * clock))
                frame.pts, frame.time_base = last, Fraction(1, clock)
                output.mux(stream.encode(frame))
                written += 1
            if stream is not None:
                output.mux(stream.encode())
        if written == 0 or expected not in (None, written):
            raise TceError(f"film {path}", f"{expected or 'some'} frames", str(written))
    return written


def require_film(path: str | os.PathLike[str], what: str = "film") -> None:
    """Check that a film can have this name.

    Raises:
        TceError: it cannot.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in FILMS:
        raise TceError(f"{what} {path}", f"a name ending in {', '.join(FILMS)}", suffix or "no suffix")


class _Palette:
    """256 colours for the pictures of a GIF; others are chosen when a picture would look wrong in them.

    One palette for all frames keeps still parts still, and the file small.

    Args:
        samples: pictures as they will come.
    """

    def __init__(self, samples: Sequence[Image]):
        self._choose(samples)

    def frame(self, picture: Image) -> Any:
        """A picture in the palette's colours, as PyAV's frame."""
        import av

        found = self._reduced(picture)
        part = np.asarray(found)[::4, ::4]
        error = np.abs(self._colours[part, 1:].astype(np.int16) - picture[::4, ::4]).mean()
        if error > MOST_ERROR:
            self._choose([picture])
            found = self._reduced(picture)
        pixels: Any = (np.asarray(found), self._colours)  # PyAV takes them so
        return av.VideoFrame.from_ndarray(pixels, format="pal8")

    def _reduced(self, picture: Image) -> Any:
        from PIL import Image as Pictures

        # Without dithering: dots that flicker from frame to frame look worse than flat colours.
        return Pictures.fromarray(picture).quantize(palette=self._palette, dither=Pictures.Dither.NONE)

    def _choose(self, samples: Sequence[Image]) -> None:
        from PIL import Image as Pictures

        rows = np.concatenate([sample[::2, ::2].reshape(-1, 3) for sample in samples])
        side = int(np.ceil(np.sqrt(len(rows))))
        square = Pictures.fromarray(np.resize(rows, (side, side, 3)))
        palette = square.quantize(COLOURS, method=Pictures.Quantize.MEDIANCUT)
        known = np.zeros((COLOURS, 3), np.uint8)
        listed = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)[:COLOURS]
        known[: len(listed)] = listed
        # Median cut gives means: the ground and the other flat colours get theirs exactly.
        flat, counts = np.unique(rows, axis=0, return_counts=True)
        for colour in flat[np.argsort(-counts, kind="stable")[:FLAT_COLOURS]]:
            known[np.abs(known.astype(np.int16) - colour).sum(axis=1).argmin()] = colour
        palette.putpalette(known.tobytes())
        self._palette = palette
        self._colours = np.concatenate([np.full((COLOURS, 1), 255, np.uint8), known], axis=1)  # opaque
