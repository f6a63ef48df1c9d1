"""The command `tce cycles`: repetitions of a video, with a picture and a table."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.discovery.recordings import RecordedFrames, gather_frames
from tce.discovery.repetition import Repetition, find_repetition
from tce.errors import OptionError, TceError, printable
from tce.io import Result, atomic, require_writable, write_csv
from tce.options.cycles import CyclesOptions
from tce.options.discover import DiscoverOptions

LEAST_FRAMES = 4  # in the shortest period
MOST_SHOWN = 600  # frames a side of the picture's self-similarity


def cycles(options: CyclesOptions) -> Result:
    """Count the repetitions in a video, and find their period over time (`tce cycles`).

    Raises:
        TceError: an output that cannot be written, a video that cannot be read, is shorter than two of the
            longest periods, or has only equal frames; several videos.
    """
    for flag, path in (("--output", options.output), ("--csv", options.csv)):
        if path is not None:
            require_writable(path, flag)
    frames = gather_frames(
        DiscoverOptions((options.video,), fps=options.fps), options.network, with_raw=False
    )
    if len(frames.recordings) != 1:
        raise TceError(options.video, "one video", f"{len(frames.recordings)}", "name one of them")
    rate = frames.rates[0]
    shortest, longest = _lags(options, rate, len(frames.time))
    if np.abs(frames.vectors - frames.vectors.mean(axis=0)).max() < 1e-6:
        raise TceError(options.video, "frames that differ", f"{len(frames.vectors)} equal ones")
    found = find_repetition(_even(frames, rate), shortest, longest, options.threshold)
    time = frames.time[0] + np.arange(len(found.period)) / rate
    if options.csv is not None:
        _write_table(options.csv, time, found, rate)
    if options.output is not None:
        _picture(options.output, frames, time, found, rate, options)
    return _result(options, found, time, rate)


def _lags(options: CyclesOptions, rate: float, count: int) -> tuple[int, int]:
    """Shortest and longest period in frames."""
    shortest, longest = round(options.shortest * rate), round(options.longest * rate)
    if options.shortest * rate < LEAST_FRAMES - 0.5:
        raise OptionError(
            "--shortest",
            f"at least {LEAST_FRAMES / rate:.2g} s, {LEAST_FRAMES} frames at {rate:.3g} frames a second",
            f"{options.shortest:g}",
            "give a longer one, or a higher --fps where the video has more frames",
        )
    if count < 2 * longest:
        most = count / 2 / rate
        raise OptionError(
            "--longest",
            f"at most half of the video, {most:.3g} s",
            f"{options.longest:g}",
            f"give --longest {most:.2g} or less" if most > options.shortest else "give a longer video",
        )
    return shortest, longest


def _even(frames: RecordedFrames, rate: float) -> NDArray[np.float64]:
    """Vectors at a constant rate: those of the nearest frames in time."""
    wanted = frames.time[0] + np.arange(round((frames.time[-1] - frames.time[0]) * rate) + 1) / rate
    after = np.searchsorted(frames.time, wanted).clip(1, len(frames.time) - 1)
    before = after - 1
    nearest = np.where(wanted - frames.time[before] <= frames.time[after] - wanted, before, after)
    return np.asarray(frames.vectors[nearest], np.float64)


def _stretches(found: Repetition, time: NDArray[np.float64], rate: float) -> list[dict[str, float]]:
    """Where it repeats: start, end, count and median period of each stretch, in seconds."""
    repeats = np.isfinite(found.period).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], repeats, [0]])))
    rows = []
    for first, stop in zip(edges[::2].tolist(), edges[1::2].tolist()):
        before = found.count[first - 1] if first else 0.0
        rows.append(
            {
                "start": float(time[first]),
                "end": float(time[stop - 1] + 1 / rate),
                "count": float(found.count[stop - 1] - before),
                "period": float(np.median(found.period[first:stop])) / rate,
                "confidence": float(found.confidence[first:stop].mean()),
            }
        )
    return rows


def _result(options: CyclesOptions, found: Repetition, time: NDArray[np.float64], rate: float) -> Result:
    stretches = _stretches(found, time, rate)
    figures: dict[str, Any] = {
        "video": options.video,
        "count": found.total,
        "seconds": float(time[-1] - time[0] + 1 / rate),
        "fps": rate,
        "stretches": stretches,
        "written": [path for path in (options.output, options.csv) if path is not None],
    }
    name = printable(os.path.basename(os.path.normpath(options.video)))
    if not stretches:
        text = f"{name}: no repetition with a correlation of {options.threshold:g} or more"
        figures["period"] = None
    else:
        figures["period"] = float(np.nanmedian(found.period)) / rate
        text = f"{name}: {found.total:.1f} repetitions, period {figures['period']:.2f} s (median)"
        for one in stretches:
            text += (
                f"\n{one['start']:>8.2f} to {one['end']:.2f} s: {one['count']:.1f} repetitions, "
                f"period {one['period']:.2f} s, correlation {one['confidence']:.2f}"
            )
    if figures["written"]:
        text += f"\nwritten: {', '.join(figures['written'])}"
    return Result(text, figures)


def _write_table(path: str, time: NDArray[np.float64], found: Repetition, rate: float) -> None:
    rows: list[tuple[Any, ...]] = [("time", "period", "confidence", "count")]
    for at, period, confidence, count in zip(
        time.tolist(), (found.period / rate).tolist(), found.confidence.tolist(), found.count.tolist()
    ):
        shown = None if np.isnan(period) else round(period, 4)
        rows.append((round(at, 3), shown, round(confidence, 4), round(count, 3)))
    with atomic(path, "w") as file:
        write_csv(file, rows)


def _picture(
    path: str,
    frames: RecordedFrames,
    time: NDArray[np.float64],
    found: Repetition,
    rate: float,
    options: CyclesOptions,
) -> None:
    """Self-similarity at the left; period and count along time at the right."""
    from tce.visualize.plots import literal
    from tce.visualize.result_plots import BAR_COLOURS, FAINT, INK, RULE, new_figure, save, shortened

    figure = new_figure(11.0, 4.6)
    grid = figure.add_gridspec(3, 2, width_ratios=[1, 1.5], height_ratios=[1.5, 1, 1])
    left = figure.add_subplot(grid[:, 0])
    vectors = _even(frames, rate)
    step = max(1, -(-len(vectors) // MOST_SHOWN))
    rows = vectors[::step] - vectors.mean(axis=0)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    span = (float(time[0]), float(time[-1] + 1 / rate))
    left.imshow(rows @ rows.T, cmap="magma", extent=(*span, span[1], span[0]), interpolation="nearest")
    left.set_title("similarity of every two frames", fontsize=9, color=INK, loc="left")
    left.set_xlabel("time (s)", fontsize=8.5)
    left.set_ylabel("time (s)", fontsize=8.5)
    top, middle, bottom = (figure.add_subplot(grid[row, 1]) for row in range(3))
    extent = (*span, found.lags[0] / rate, found.lags[-1] / rate)
    shown = found.similarity.T
    top.imshow(shown, cmap="magma", vmin=-0.3, vmax=1, aspect="auto", origin="lower", extent=extent)
    top.plot(time, found.period / rate, color="white", lw=1.6)
    top.set_ylabel("lag (s)", fontsize=8.5)
    top.set_title("correlation with a later moment; white: the period", fontsize=9, color=INK, loc="left")
    middle.plot(time, found.confidence, color=BAR_COLOURS[0], lw=1.4)
    middle.axhline(options.threshold, color=FAINT, lw=0.9, ls=(0, (4, 3)))
    middle.set_ylim(0, 1.02)
    middle.set_ylabel("correlation", fontsize=8.5)
    bottom.plot(time, found.count, color=BAR_COLOURS[1], lw=1.8)
    bottom.set_ylim(0, None)
    bottom.set_ylabel("count", fontsize=8.5)
    bottom.set_xlabel("time (s)", fontsize=8.5)
    for axes in (top, middle, bottom):
        axes.set_xlim(*span)
    for axes in (left, top, middle, bottom):
        axes.tick_params(labelsize=8, color=RULE)
        for spine in axes.spines.values():
            spine.set_color(RULE)
    for axes in (middle, bottom):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.93")
    for axes in (top, middle):
        axes.tick_params(labelbottom=False)
    name = shortened(Path(os.path.normpath(options.video)).name, 60)
    title = f"{name}: {found.total:.1f} repetitions"
    figure.suptitle(literal(title), fontsize=10, color=INK, x=0.01, ha="left")
    save(figure, path)
