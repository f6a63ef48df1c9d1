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
COLOURS = 256  # of a GIF

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
                    options = {} if gif else {"crf": QUALITY}
                    stream = output.add_stream("gif" if gif else "libx264", rate=fraction, options=options)
                    stream.height, stream.width = picture.shape[:2]
                    stream.pix_fmt = "pal8" if gif else "yuv420p"  # what every player shows
                    stream.codec_context.time_base = Fraction(1, clock)
                    palette = _palette(list(samples) or [picture]) if gif else None
                frame = (
                    _reduced(picture, palette) if gif else av.VideoFrame.from_ndarray(picture, format="rgb24")
                )
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


def _palette(samples: Sequence[Image]) -> Any:
    """256 colours for all frames of a GIF, as Pillow's picture with a palette."""
    from PIL import Image as Pictures

    rows = np.concatenate([sample[::2, ::2].reshape(-1, 3) for sample in samples])
    side = int(np.ceil(np.sqrt(len(rows))))
    square = np.resize(rows, (side, side, 3))
    return Pictures.fromarray(square).quantize(COLOURS, method=Pictures.Quantize.MEDIANCUT)


def _reduced(picture: Image, palette: Any) -> Any:
    """A picture in the palette's colours, as PyAV's frame."""
    import av
    from PIL import Image as Pictures

    # Without dithering: dots that flicker from frame to frame look worse than flat colours, and take space.
    found = Pictures.fromarray(picture).quantize(palette=palette, dither=Pictures.Dither.NONE)
    colours = np.zeros((COLOURS, 4), np.uint8)
    known = np.array(palette.getpalette(), np.uint8).reshape(-1, 3)
    colours[: len(known), 1:] = known
    colours[:, 0] = 255  # opaque
    pixels: Any = (np.asarray(found), colours)  # PyAV takes them so
    return av.VideoFrame.from_ndarray(pixels, format="pal8")
