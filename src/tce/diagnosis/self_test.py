"""The self-test: a generated clip is decoded, embedded, written and read again, step by step."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tce.errors import TceError, printable

log = logging.getLogger("tce.diagnosis")

CLASSES, PER_CLASS, FRAMES, SIZE, FPS = 2, 2, 12, 96, 15
IMAGE_SIZE = 96
MOST_SECONDS = 60.0  # after this no further step is started
ROUNDING = 1e-4  # of the length of a unit vector
MOST_LOSS = 12.0  # mean difference in grey levels between the drawn frames and the decoded ones
MOST_APART = 1e-2  # of any entry of a unit vector, from one engine to the other


@dataclass
class Step:
    """One step of the self-test.

    Attributes:
        name: what is done.
        ok: whether it worked; None where it was not tried.
        seconds: it took.
        detail: what came out, or what went wrong.
    """

    name: str
    ok: bool | None
    seconds: float
    detail: str


@dataclass
class _State:
    """What the steps hand on."""

    folder: Path
    start: str
    clips: Any = None
    encoder: Any = None
    embeddings: Any = None
    steps: list[Step] = field(default_factory=list)


def self_test(folder: Path, start: str) -> list[Step]:
    """Run the steps, each only if those before it worked.

    Args:
        folder: a temporary folder is made in it, and removed.
        start: the network: lite2, lite0 or a checkpoint.

    Returns:
        Every step, also those that were not tried.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=".tce-doctor-", dir=folder) as place:
        state = _State(Path(place), start)
        for name, step in STEPS:
            log.info("self-test: %s", name)
            state.steps.append(_try(name, step, state, began))
    return state.steps


def _try(name: str, step: Callable[[_State], str], state: _State, began: float) -> Step:
    if any(not done.ok for done in state.steps):
        return Step(name, None, 0.0, "not tried")
    if time.monotonic() - began > MOST_SECONDS:
        return Step(name, None, 0.0, f"not tried: more than {MOST_SECONDS:.0f} s have passed")
    started = time.monotonic()
    try:
        ok, detail = True, step(state)
    except TceError as error:
        ok, detail = False, str(error)
    except Exception as error:  # a broken library may raise anything, and that is what is looked for
        log.debug("self-test: %s", name, exc_info=True)
        ok, detail = False, printable(f"{type(error).__name__}: {error}".splitlines()[0])
    detail = detail.replace(str(state.folder), "FOLDER")
    return Step(name, ok, round(time.monotonic() - started, 2), detail)


def _require(good: bool, expected: str, found: str) -> None:
    if not good:
        raise TceError("self-test", expected=expected, found=found)


def _generate(state: _State) -> str:
    from tce.video.synthetic import make_clips

    state.clips = make_clips(
        state.folder, CLASSES, PER_CLASS, FRAMES, SIZE, FPS, groups=2, test_groups=1, seed=0
    )
    return f"{CLASSES * PER_CLASS} clips of {FRAMES} frames"


def _videos(state: _State) -> list[Path]:
    return sorted(state.clips.videos.rglob("*.mp4"))


def _decode(state: _State) -> str:
    from tce.video.open_video import open_isolated
    from tce.video.synthetic import draw_clip

    first = _videos(state)[0]
    with open_isolated(first) as video:
        frames = video.frames(list(range(len(video))))
    _require(frames.shape == (FRAMES, SIZE, SIZE, 3), f"{FRAMES} frames of {SIZE}x{SIZE}", str(frames.shape))
    drawn = draw_clip(first.parent.name, 0, 0, FRAMES, SIZE, FPS, 0)
    apart = float(np.abs(frames.astype(np.int16) - drawn).mean())
    _require(
        apart < MOST_LOSS, "the frames that were encoded", f"a mean difference of {apart:.0f} grey levels"
    )
    return f"{len(frames)} frames of {SIZE}x{SIZE} in a child process, {apart:.1f} grey levels off"


def _load(state: _State) -> str:
    from tce.model.checkpoint import load_encoder

    state.encoder = load_encoder(state.start)
    return f"{state.start}: {state.encoder.feature_size} features"


def _embed(state: _State) -> str:
    from tce.embedding.embed import embed_sources
    from tce.model.engine import ENGINES

    videos = list(map(str, _videos(state)))
    found = {
        engine: embed_sources(videos, state.encoder, image_size=IMAGE_SIZE, engine=engine)
        for engine in ENGINES
        if engine != "auto"
    }
    state.embeddings = found["torch"]
    vectors = state.embeddings.vectors
    lengths = np.linalg.norm(vectors, axis=1)
    _require(bool(np.isfinite(vectors).all()), "finite numbers", "NaN or infinity")
    _require(bool(np.abs(lengths - 1).max() < ROUNDING), "unit vectors", f"lengths up to {lengths.max():.3f}")
    apart = float(np.abs(vectors - found["onnxruntime"].vectors).max())
    _require(apart < MOST_APART, "the same numbers from PyTorch and ONNX Runtime", f"{apart:.3g} apart")
    return f"{len(vectors)} frames; PyTorch and ONNX Runtime agree to {max(apart, 1e-8):.0e}"


def _write(state: _State) -> str:
    from tce.embedding.embedding_file import load_embeddings

    for name in ("embeddings.npz", "embeddings.parquet"):
        path = state.folder / name
        state.embeddings.save(path)
        again = load_embeddings(path)
        same = np.array_equal(again.vectors, state.embeddings.vectors)
        _require(same, f"what was written to {name}", "other numbers")
    return "embeddings as .npz and .parquet"


def _pack(state: _State) -> str:
    from tce.data.open_data import open_store
    from tce.data.pack import pack
    from tce.options.pack import PackOptions

    place = state.folder / "collection"
    pack(PackOptions(footage=(str(state.clips.videos),), out=str(place), workers=1))
    store = open_store(place)
    count, expected = int(np.sum(store.lengths)), CLASSES * PER_CLASS * FRAMES
    _require(count == expected, f"{expected} frames in the collection", str(count))
    return f"a collection of {len(store)} clips, {count} frames"


def _picture(state: _State) -> str:
    from tce.visualize.map_plot import map_figure
    from tce.visualize.plots import save_figure
    from tce.visualize.point_colours import choose_colours
    from tce.visualize.reduce import fit_pca

    path, stored = state.folder / "map.png", state.embeddings
    save_figure(map_figure(fit_pca(stored.vectors, 2), choose_colours(stored)), path)
    _require(path.stat().st_size > 1000, "a picture", f"{path.stat().st_size} bytes")
    return "a map as .png"


STEPS: tuple[tuple[str, Callable[[_State], str]], ...] = (
    ("generate clips", _generate),
    ("decode", _decode),
    ("load the network", _load),
    ("embed", _embed),
    ("write and read", _write),
    ("pack", _pack),
    ("draw", _picture),
)
