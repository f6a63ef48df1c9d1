"""The command `tce discover`: windows, clusters, smooth segments, and everything that shows them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.discovery.behaviour_model import (
    BehaviourModel,
    is_discovery,
    load_model,
    load_windows,
    save_windows,
)
from tce.discovery.clusters import fit_clusters
from tce.discovery.label_scores import Agreement, agreement, baselines, label_frames, read_label_spans
from tce.discovery.recordings import RecordedFrames, drop_short, gather_frames
from tce.discovery.segment_table import BoutTable
from tce.discovery.stability import Stability, check_stability, unstable
from tce.discovery.windows import WindowSpace, correlation_frames, fit_windows, half_width
from tce.errors import OptionError, TceError, printable
from tce.io import Result, atomic, require_writable, write_csv, write_json
from tce.options.discover import DiscoverOptions
from tce.options.network import NetworkOptions

log = logging.getLogger("tce.discover")

STABILITY = "stability"
EMBEDDINGS = "embeddings.npz"
RESULT = "result.json"
MOST_EXTRA = 3  # clusters fitted beyond --clusters, where some end up without a segment


@dataclass
class Discovery:
    """All that is known before anything is drawn.

    Attributes:
        model: the clusters and their names.
        windows: float32 [N, w].
        frames: their recordings.
        stability: None where it was not asked for.
    """

    model: BehaviourModel
    windows: NDArray[np.float32]
    frames: RecordedFrames
    stability: Stability | None = None


def discover(options: DiscoverOptions) -> Result:
    """Find behaviours and phases in videos without labels, and write what shows them (`tce discover`).

    Raises:
        TceError: an output that cannot be written, no footage that can be read, videos shorter than a window,
            frames that are all equal, more clusters than windows, a network other than the one that was
            applied or indexed, or labels of other videos.
    """
    again = is_discovery(options.footage[0])
    if again and len(options.footage) > 1:
        raise OptionError("FOOTAGE", "one DISCOVERY", " ".join(options.footage))
    out = Path(options.out or (options.footage[0] if again else ""))
    if not options.out and not again:
        raise OptionError("--out", "a folder to write", "none", "--out DISCOVERY")
    require_writable(out / RESULT, "--out")
    spans = read_label_spans(options.labels) if options.labels is not None else None
    if again:
        found = _redraw(options.footage[0], options)
    elif options.apply is not None:
        found = _apply(options)
    else:
        found = _fit(options, out, spans is not None)
    return _write(found, out, options, spans)


def _fit(options: DiscoverOptions, out: Path, with_raw: bool) -> Discovery:
    network = options.network
    frames = gather_frames(options, network, with_raw)
    _keep_embeddings(frames, out, options)
    frames = drop_short(frames, options.window)
    rates = frames.rates
    space, windows = fit_windows(
        frames.vectors, frames.spans, rates, options.window, options.change, network.seed
    )
    overlap = float(np.median([2 * half_width(options.window, rate) + 1 for rate in rates]))
    apart = correlation_frames(windows, frames.spans, overlap)
    shared = overlap if options.clusters is not None else apart
    model, fitted = _fit_model(options, frames, space, windows, shared)
    stability = None
    if options.refits:
        stability = check_stability(
            model, windows, frames, options.method, fitted, overlap, options.refits, network.seed
        )
    return Discovery(model, windows, frames, stability)


def _fit_model(
    options: DiscoverOptions,
    frames: RecordedFrames,
    space: WindowSpace,
    windows: NDArray[np.float32],
    shared: float,
) -> tuple[BehaviourModel, int]:
    """Clusters that have segments, and how many were fitted.

    Windows that lie over the change of two behaviours can make a cluster of their own, which no segment has.
    Where a number is asked for, more clusters are fitted until so many have segments.
    """
    wanted = options.clusters
    best: tuple[BehaviourModel, int] | None = None
    for more in range(1 + (MOST_EXTRA if wanted is not None else 0)):
        count = wanted + more if wanted is not None else None
        if more and wanted is not None and wanted + more > len(windows) / shared:
            break
        fit = fit_clusters(
            windows, options.method, count, options.most_clusters, shared, options.network.seed
        )
        described = {
            "method": options.method,
            "change": options.change,
            "bic": fit.bic,
            "noise": fit.noise,
            "fitted": len(fit.clusters),
            "independent_windows": int(len(windows) / shared),
            "seed": options.network.seed,
            "footage": list(options.footage),
        }
        network = dict(frames.network) or {"ckpt": None, "center": options.network.center}
        model = BehaviourModel(
            space, fit.clusters, {}, options.shortest, options.bout, options.fps, network, described
        ).without_unused(windows, frames)
        fits = wanted is None or len(model.clusters) <= wanted
        if best is None or (fits and len(model.clusters) > len(best[0].clusters)):
            best = model, len(fit.clusters)
        if wanted is None or len(best[0].clusters) == wanted:
            break
    assert best is not None
    return best


def _keep_embeddings(frames: RecordedFrames, out: Path, options: DiscoverOptions) -> None:
    """Keep what took long to compute: the embeddings of footage, as `tce embed` writes them."""
    if len(options.footage) == 1 and not frames.network.get("engine"):  # they were stored before
        return
    from tce.embedding.embedding_file import Embeddings, save_embeddings

    paths = [one.path if os.path.exists(one.path) else one.name for one in frames.recordings]
    if len(set(paths)) != len(paths):
        paths = [one.name for one in frames.recordings]
    owners = np.repeat(np.array(paths, str), [rows.stop - rows.start for rows in frames.spans])
    stored = Embeddings(np.asarray(frames.vectors, np.float32), owners, frames.frame, frames.time)
    save_embeddings(str(out / EMBEDDINGS), stored)


def _apply(options: DiscoverOptions) -> Discovery:
    """Windows of other footage under a model that stays as it is."""
    assert options.apply is not None
    model = load_model(options.apply)
    known = {name: value for name, value in model.network.items() if name in _network_fields()}
    given = options.network
    if given.ckpt is None:
        network = replace(given, **{name: value for name, value in known.items() if name in _FIXED})
    else:
        network = replace(
            given,
            **{name: value for name, value in known.items() if name in ("layer", "image_size", "center")},
        )
    frames = gather_frames(replace(options, fps=model.fps), network, with_raw=False)
    own, used = model.network.get("hash"), frames.network.get("hash")
    if own is not None and used is not None and own != used:
        raise TceError(
            f"--apply {options.apply}",
            f"the network that it was made with ({model.network.get('ckpt')})",
            f"another one ({frames.network.get('ckpt')})",
            "leave --ckpt out, or discover anew with the other network",
        )
    size = len(model.space.frame_mean)
    if frames.vectors.shape[1] != size:
        raise TceError(
            f"--apply {options.apply}", f"embeddings of {size} numbers", f"{frames.vectors.shape[1]}"
        )
    frames = drop_short(frames, model.space.seconds)
    windows = model.space.describe(frames.vectors, frames.spans, frames.rates)
    return Discovery(model, windows, frames)


_FIXED = ("ckpt", "model", "output_size", "image_size", "layer", "center")


def _network_fields() -> set[str]:
    from dataclasses import fields

    return {field.name for field in fields(NetworkOptions)}


def _redraw(folder: str, options: DiscoverOptions) -> Discovery:
    """A discovery with its names.csv as it is now."""
    if options.apply is not None:
        raise OptionError("--apply", "footage to apply it to", f"the discovery {folder} itself")
    model = load_model(folder)
    windows, frames = load_windows(folder)
    stability = None
    path = Path(folder) / f"{STABILITY}.npz"
    if path.is_file():
        from tce.embedding.embedding_file import read_arrays

        arrays = read_arrays(path)
        if {"windows", "seeds", "halves"} <= set(arrays):
            stability = Stability(arrays["windows"], arrays["seeds"], arrays["halves"])
    return Discovery(model, windows, frames, stability)


def _write(found: Discovery, out: Path, options: DiscoverOptions, spans: dict[str, Any] | None) -> Result:
    from tce.discovery.example_clips import choose_examples, write_examples
    from tce.discovery.segment_exports import write_exports
    from tce.discovery.segment_plots import behaviour_names, draw_all
    from tce.discovery.summary_page import write_page

    model, frames = found.model, found.frames
    segments, _ = model.segments(found.windows, frames)
    table = BoutTable.of(segments, model.behaviours, frames)
    stability = found.stability.figures(model) if found.stability is not None else {}
    marks = [unstable(stability, behaviour) for behaviour in model.behaviours]
    scores = _compare(spans, segments, frames, model, options) if spans is not None else {}
    model.save(out)
    save_windows(str(out), found.windows, frames)
    if found.stability is not None:
        _write_stability(out, found.stability, stability, model)
    table.write(out)
    draw_all(out, model, table, marks)
    names = behaviour_names(table, marks)
    films: dict[str, str] = {}
    if options.examples:
        chosen = choose_examples(model, table, found.windows, frames, options.examples)
        films = write_examples(out, table, chosen, names, options.workers)
    exports = write_exports(out, table)
    figures = _figures(out, found, table, stability, scores, films, exports)
    write_json(out / RESULT, figures)
    write_page(out, table, names, figures)
    return Result(_text(figures, names), figures)


def _write_stability(out: Path, stability: Stability, figures: dict[str, Any], model: BehaviourModel) -> None:
    with atomic(out / f"{STABILITY}.npz") as file:
        np.savez(file, windows=stability.windows, seeds=stability.seeds, halves=stability.halves)
    rows: list[Sequence[Any]] = [("cluster", "behaviour", "seeds", "halves", "stable")]
    for behaviour in model.behaviours:
        own = figures["behaviours"][behaviour.key]
        shown = [round(own[name], 3) if name in own else None for name in ("seeds", "halves")]
        rows.append((behaviour.key, printable(behaviour.name), *shown, "yes" if own["stable"] else "no"))
    with atomic(out / f"{STABILITY}.csv", "w") as file:
        write_csv(file, rows)


def _compare(
    spans: dict[str, Any],
    segments: Sequence[Sequence[Any]],
    frames: RecordedFrames,
    model: BehaviourModel,
    options: DiscoverOptions,
) -> dict[str, Any]:
    """The segments against labels, with baselines."""
    assert options.labels is not None
    times = [frames.time[rows] for rows in frames.spans]
    truth, names = label_frames(spans, [one.path for one in frames.recordings], times, options.labels)
    found = [
        np.concatenate([np.full(one.stop - one.first, one.cluster, np.int64) for one in own])
        for own in segments
    ]
    clusters = len(model.behaviours)
    base = frames.raw if frames.raw is not None else frames.vectors if frames.vectors.shape[1] else None
    raw = [base[rows] for rows in frames.spans] if base is not None else None
    by: dict[str, Agreement] = {"found": agreement(truth, found)}
    by |= baselines(truth, found, clusters, raw, options.network.seed)
    labelled = int(sum((row >= 0).sum() for row in truth))
    return {
        "labels": names,
        "frames": labelled,
        "clusters": clusters,
        "figures": {name: one.figures() for name, one in by.items()},
    }


def _figures(
    out: Path,
    found: Discovery,
    table: BoutTable,
    stability: dict[str, Any],
    scores: dict[str, Any],
    films: dict[str, str],
    exports: list[str],
) -> dict[str, Any]:
    model = found.model
    total = max(sum(table.lengths), 1e-9)
    behaviours = []
    for behaviour, own in zip(table.behaviours, table.durations(), strict=True):
        entry: dict[str, Any] = {
            "cluster": behaviour.key,
            "name": behaviour.name,
            "bouts": len(own),
            "seconds": float(own.sum()),
            "share": float(own.sum()) / total,
            "median_bout": float(np.median(own)) if len(own) else None,
            "film": films.get(behaviour.key),
        }
        entry |= stability.get("behaviours", {}).get(behaviour.key, {})
        behaviours.append(entry)
    return {
        "out": str(out),
        "videos": len(table.recordings),
        "seconds": total,
        "windows": len(found.windows),
        "clusters": len(model.clusters),
        "behaviours": behaviours,
        "segments": len(table.bouts),
        "window": model.space.seconds,
        "shortest": model.shortest,
        "bout": model.bout,
        "fit": model.fit,
        "network": model.network,
        "stability": {name: stability.get(name) for name in ("seeds", "halves")} if stability else None,
        "labels": scores or None,
        "skipped": found.frames.skipped,
        "exports": exports,
    }


def _text(figures: dict[str, Any], names: Sequence[str]) -> str:
    count = figures["videos"]
    lines = [
        f"{figures['out']}: {len(names)} behaviours in {figures['segments']:,} segments of {count:,} "
        f"video{'s' * (count != 1)}, {figures['seconds']:,.0f} s"
    ]
    width = max(9, *(len(name) for name in names))
    head = f"{'behaviour':<{width}}  {'share':>6}  {'bouts':>6}  {'median':>7}"
    stable = figures["stability"] is not None
    lines.append(head + ("  comes back: seeds, halves" if stable else ""))
    for name, one in zip(names, figures["behaviours"], strict=True):
        median = f"{one['median_bout']:.2f} s" if one["median_bout"] is not None else "-"
        line = f"{printable(name):<{width}}  {one['share']:>6.1%}  {one['bouts']:>6,}  {median:>7}"
        if stable:
            shown = [f"{one[key]:.2f}" if one.get(key) is not None else "-" for key in ("seeds", "halves")]
            line += f"  {', '.join(shown)}" + ("" if one.get("stable", True) else "  does not come back")
        lines.append(line)
    if stable:
        pairs = [
            f"{figures['stability'][key]:.2f} {words}"
            for key, words in (("seeds", "over seeds"), ("halves", "over halves"))
            if figures["stability"][key] is not None
        ]
        lines.append(f"adjusted Rand index of refits: {', '.join(pairs) or 'none was possible'}")
    if figures["labels"]:
        lines += _score_lines(figures["labels"])
    if figures["skipped"]:
        more = ", ..." if len(figures["skipped"]) > 9 else ""
        listed = ", ".join(map(printable, list(figures["skipped"])[:9]))
        lines.append(f"skipped {len(figures['skipped'])}: {listed}{more} (reasons above)")
    lines.append(f"look at {figures['out']}/index.html; name, merge or split clusters in names.csv")
    return "\n".join(lines)


def _score_lines(scores: dict[str, Any]) -> list[str]:
    columns = {
        "adjusted_rand": "ARI",
        "mutual_information": "NMI",
        "accuracy": "frames",
        "f1@10": "F1@10",
        "f1@25": "F1@25",
        "f1@50": "F1@50",
    }
    width = max(len(name) for name in scores["figures"])
    lines = [
        f"against {len(scores['labels'])} labels on {scores['frames']:,} frames:",
        f"{'':<{width}}  " + "  ".join(f"{name:>6}" for name in columns.values()),
    ]
    for name, own in scores["figures"].items():
        lines.append(f"{name:<{width}}  " + "  ".join(f"{own[key]:>6.2f}" for key in columns))
    return lines
