"""The recordings whose behaviours are looked for: embedded now, or read from embeddings or an index.

Nothing is decoded here: `tce.embedding.embed_videos` embeds, `tce.retrieval` finds footage and samples it.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tce.errors import OptionError, TceError
from tce.options.discover import DiscoverOptions
from tce.options.network import NetworkOptions
from tce.video.base import DEFAULT_FPS

log = logging.getLogger("tce.discover")

EMBEDDING_SUFFIXES = (".npz", ".parquet", ".npy", ".pkl", ".pickle")

Vectors = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Recording:
    """One video, or a piece of one.

    Attributes:
        name: what tables and pictures call it, unique.
        path: the file or folder that plays it; may be gone.
        offset: seconds of that file at which the first frame of its clip in `store` lies.
        group: who or what it shows, if known.
        store: collection that holds its frames, or "".
        clip: its id there.
    """

    name: str
    path: str
    offset: float = 0.0
    group: str | None = None
    store: str = ""
    clip: str = ""


@dataclass
class RecordedFrames:
    """The embedded frames of recordings.

    Attributes:
        recordings: in order.
        spans: the rows of each.
        frame: int64 [N], frame numbers.
        time: float64 [N], seconds of the file that plays it, rising within a recording.
        vectors: [N, D]; empty [N, 0] once windows are stored in their place.
        raw: [N, F] the frozen network's features, where the vectors are others.
        network: how they were embedded: ckpt, layer, image_size, hash, center; as far as it is known.
        skipped: name and reason of what was left out.
    """

    recordings: list[Recording]
    spans: list[slice]
    frame: NDArray[np.int64]
    time: NDArray[np.float64]
    vectors: Vectors
    raw: Vectors | None = None
    network: dict[str, Any] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def rates(self) -> list[float]:
        """Frames a second of each recording, from the median distance of its times."""
        return [_rate(self.time[rows]) for rows in self.spans]

    def ends(self) -> list[float]:
        """When each recording ends, in seconds: its last frame is shown as long as the others."""
        return [float(self.time[rows][-1]) + 1 / rate for rows, rate in zip(self.spans, self.rates)]

    def select(self, kept: Sequence[int]) -> RecordedFrames:
        """Some of the recordings."""
        rows = np.concatenate([np.arange(self.spans[one].start, self.spans[one].stop) for one in kept])
        counts = [self.spans[one].stop - self.spans[one].start for one in kept]
        raw = self.raw[rows] if self.raw is not None else None
        return replace(
            self,
            recordings=[self.recordings[one] for one in kept],
            spans=spans_of(counts),
            frame=self.frame[rows],
            time=self.time[rows],
            vectors=self.vectors[rows],
            raw=raw,
        )


def _rate(time: NDArray[np.float64]) -> float:
    steps = np.diff(time)
    steps = steps[steps > 0]
    return 1 / float(np.median(steps)) if len(steps) else DEFAULT_FPS


def spans_of(counts: Sequence[int]) -> list[slice]:
    """Consecutive rows of so many frames each."""
    ends = np.cumsum(counts).tolist()
    return [slice(end - count, end) for end, count in zip(ends, counts)]


def gather_frames(options: DiscoverOptions, network: NetworkOptions, with_raw: bool) -> RecordedFrames:
    """The frames of the footage with their vectors.

    Args:
        options: of the command.
        network: how frames are embedded, where they are not yet.
        with_raw: also keep the frozen network's features, where the vectors are others.

    Raises:
        TceError: nothing there, nothing that can be read, or embeddings without video and time.
    """
    places = options.footage
    stored = [place for place in places if _is_embeddings(place)]
    indexes = [place for place in places if not _is_embeddings(place) and _is_index(place)]
    if (stored or indexes) and len(places) > 1:
        raise OptionError("FOOTAGE", "footage, or one file of embeddings or one index", " ".join(places))
    if stored:
        found = _from_embeddings(places[0])
    elif indexes:
        found = _from_index(places[0], network)
    else:
        found = _from_footage(options, network, with_raw)
    if with_raw and found.raw is None:
        found = replace(found, raw=found.vectors)
    found = _centred(found, network.center, bool(indexes))
    return _with_groups(found, options.group)


def _is_embeddings(place: str) -> bool:
    return os.path.isfile(place) and place.lower().endswith(EMBEDDING_SUFFIXES)


def _is_index(place: str) -> bool:
    from tce.retrieval.frame_table import list_indexes

    return os.path.isdir(place) and bool(list_indexes(place))


def _from_embeddings(place: str) -> RecordedFrames:
    from tce.embedding.embedding_file import load_embeddings

    found = load_embeddings(place)
    if found.time is None or found.frame is None:
        raise TceError(
            place,
            "embeddings with video, frame and time, as tce embed writes them",
            "embeddings alone" if found.video is None else "no times",
            "embed the videos with tce embed",
        )
    video = np.full(len(found), "video", object) if found.video is None else found.video.astype(object)
    number = {name: at for at, name in enumerate(dict.fromkeys(video.tolist()))}
    codes = np.array([number[name] for name in video.tolist()], np.int64)
    order = np.lexsort((found.time, codes))
    beside = os.path.dirname(os.path.abspath(place))
    names = [str(name) for name in number]
    paths = [
        next((path for path in (name, os.path.join(beside, name)) if os.path.exists(path)), name)
        for name in names
    ]
    shared = _shared_folder(names)
    groups = _groups_in_names(names)
    recordings = [
        Recording(name[shared:], os.path.abspath(path), group=group)
        for name, path, group in zip(names, paths, groups)
    ]
    vectors = found.vectors if np.array_equal(order, np.arange(len(order))) else found.vectors[order]
    counts = np.bincount(codes, minlength=len(names)).tolist()
    return RecordedFrames(
        recordings, spans_of(counts), found.frame[order].astype(np.int64), found.time[order], vectors
    )


def _groups_in_names(names: Sequence[str]) -> list[str | None]:
    from tce.data.catalog import Catalog

    stems = [os.path.splitext(name)[0] for name in names]
    if len(set(stems)) != len(stems):
        stems = list(names)
    groups = Catalog(stems, list(names)).groups.tolist()
    return [str(group) if group != stem else None for group, stem in zip(groups, stems)]


def _shared_folder(names: Sequence[str]) -> int:
    """Length of the folders that all names begin with."""
    folders = [name.split("/")[:-1] for name in names]
    depth = 0
    while all(len(one) > depth and one[depth] == folders[0][depth] for one in folders):
        depth += 1
    return sum(len(part) + 1 for part in folders[0][:depth])


def _from_index(place: str, network: NetworkOptions) -> RecordedFrames:
    from tce.retrieval.frame_table import open_frames, read_frames
    from tce.retrieval.search_index import open_index

    index = open_index(place, network.ckpt, network.device)
    settings, known = index.settings, index.videos
    table = read_frames(
        place,
        lambda: open_frames(place, settings.name).to_table(columns=["video", "frame", "time", "vector"]),
    )
    names = table["video"].combine_chunks().dictionary_encode()
    listed = [str(name) for name in names.dictionary.to_pylist()]
    kept = sorted(name for name in listed if name in known)  # frames without their video's row do not count
    rank = {name: at for at, name in enumerate(kept)}
    codes = np.array([rank.get(name, -1) for name in listed], np.int64)[np.asarray(names.indices)]
    time = np.asarray(table["time"])
    order = np.lexsort((time, codes))
    order = order[codes[order] >= 0]
    flat = table["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    vectors = flat.reshape(-1, settings.size)
    stores = _collections([known[name].source for name in kept])
    shared = _shared_folder(kept)
    recordings = [
        Recording(
            name[shared:],
            record.path,
            record.offset,
            _group_of(record),
            record.source if record.source in stores else "",
            os.path.relpath(name, record.source) if record.source in stores else "",
        )
        for name, record in ((name, known[name]) for name in kept)
    ]
    kept_network = dict(settings.network) | {
        "hash": settings.hash,
        "layer": settings.layer,
        "center": settings.center,
    }
    starts = np.array([known[name].offset for name in kept])
    return RecordedFrames(
        recordings,
        spans_of(np.bincount(codes[order], minlength=len(kept)).tolist()),
        np.asarray(table["frame"])[order].astype(np.int64),
        time[order] + starts[codes[order]],
        vectors[order],
        network=kept_network,
    )


def _collections(places: Sequence[str]) -> set[str]:
    from tce.data.collection import is_collection

    return {place for place in set(places) if os.path.isdir(place) and is_collection(place)}


def _from_footage(options: DiscoverOptions, network: NetworkOptions, with_raw: bool) -> RecordedFrames:
    """Embed the footage; bad videos are skipped and named."""
    from tce.embedding.embed_command import open_encoder
    from tce.model.checkpoint import tensors_hash
    from tce.options.index import IndexOptions
    from tce.retrieval.frame_table import IndexSettings
    from tce.retrieval.indexing import find_footage

    if network.ckpt is None:
        raise OptionError(
            "--ckpt", "a checkpoint, a run folder or lite2", "none", "--ckpt lite2 needs no training"
        )
    wanted = IndexOptions(options.footage, "unused", network, lists=options.lists, split=options.split)
    footage = find_footage(wanted)(IndexSettings("", "", 0, fps=options.fps))
    if not footage:
        raise TceError(" ".join(options.footage), "videos", "none")
    encoder, _ = open_encoder(network)
    layer = network.layer or encoder.default_layer
    project = layer == "embedding" and with_raw
    found, skipped = _embedded(
        [piece.video for piece in footage], encoder, network, "features" if project else layer
    )
    kept = sorted(found)
    if not kept:
        reason = next(iter(skipped.values()))
        raise TceError(f"none of {len(footage)} videos could be read; the first: {reason}")
    vectors = np.concatenate([found[number].embeddings for number in kept])
    raw = None
    if project:
        raw, vectors = vectors, _projected(encoder, vectors, unit=network.center is None)
        raw = raw / np.maximum(np.linalg.norm(raw, axis=1, keepdims=True), 1e-12)
    elif network.center is None:
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    records = [footage[number].record for number in kept]
    stores = _collections([record.source for record in records])
    shared = _shared_folder([record.video for record in records])
    recordings = [
        Recording(
            record.video[shared:] or os.path.basename(record.video),
            record.path,
            record.offset,
            _group_of(record),
            record.source if record.source in stores else "",
            os.path.relpath(record.video, record.source) if record.source in stores else "",
        )
        for record in records
    ]
    kept_network = dataclasses.asdict(network) | {"layer": layer, "hash": tensors_hash(encoder.state_dict())}
    return RecordedFrames(
        recordings,
        spans_of([len(found[number].frame) for number in kept]),
        np.concatenate([found[number].frame for number in kept]),
        np.concatenate([found[number].time + footage[number].record.offset for number in kept]),
        vectors,
        raw,
        kept_network,
        {footage[number].record.video: reason for number, reason in skipped.items()},
    )


def _group_of(record: Any) -> str | None:
    """A video's group, unless it is only its own name."""
    return record.group if record.group != record.recording else None


def _embedded(
    videos: Sequence[Any], encoder: Any, network: NetworkOptions, layer: str
) -> tuple[dict[int, Any], dict[int, str]]:
    """Each video's embeddings, not normalised, and the reasons of those that cannot be read."""
    from tce.embedding.embed import decoding_pool, embed_videos
    from tce.progress import Progress
    from tce.video.open_video import StreamJob, estimated_length

    found: dict[int, Any] = {}
    skipped: dict[int, str] = {}
    with decoding_pool(len(videos)) as pool:
        some = np.unique(np.linspace(0, len(videos) - 1, min(len(videos), 50)).astype(int)).tolist()
        lengths = [
            out
            for _, out in pool.map(estimated_length, [StreamJob(videos[at]) for at in some])
            if isinstance(out, int)
        ]
        total = round(len(videos) * sum(lengths) / len(lengths)) if lengths else None
        with Progress(total, "embedding", "frame") as progress:
            outcomes = embed_videos(
                videos,
                encoder,
                network.batch_size,
                network.image_size,
                network.device,
                network.precision,
                progress=progress,
                engine=network.engine,
                layer=layer,
                frames=total,
                pool=pool,
                unit=False,
            )
            for number, outcome in outcomes:
                if isinstance(outcome, Exception):
                    skipped[number] = str(outcome)
                    log.warning("skipped: %s", outcome)
                elif len(outcome.frame):
                    found[number] = outcome
    return found, skipped


def _projected(encoder: Any, features: Vectors, unit: bool) -> NDArray[np.float32]:
    """Features [N, F] through the network's head, [N, D]."""
    import torch

    parts = []
    with torch.inference_mode():
        for first in range(0, len(features), 4096):
            rows = torch.from_numpy(np.ascontiguousarray(features[first : first + 4096], np.float32))
            vectors = encoder.head(rows.to(next(encoder.parameters()).device)).float()
            parts.append((torch.nn.functional.normalize(vectors, dim=1) if unit else vectors).cpu().numpy())
    return np.concatenate(parts)


def _centred(found: RecordedFrames, by: str | None, indexed: bool) -> RecordedFrames:
    """The vectors less their group's mean, of length 1, where `--center` asks for it."""
    if by is None:
        return found
    if indexed:
        has = found.network.get("center")
        if has == by:
            return found
        raise OptionError(
            "--center", f"{has}, as the index was made" if has else "none: the index was made without it", by
        )
    from tce.data.splits import subtract_group_means

    names = _named_groups(found.recordings, by, "--center", several=by != "recording")
    counts = [rows.stop - rows.start for rows in found.spans]
    groups = np.repeat(np.unique(names, return_inverse=True)[1], counts)
    centred = subtract_group_means(found.vectors, groups)
    centred /= np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    return replace(found, vectors=centred.astype(np.float32), network=found.network | {"center": by})


def _named_groups(recordings: Sequence[Recording], by: str, flag: str, several: bool) -> list[str]:
    from tce.data.catalog import Catalog
    from tce.data.splits import group_names

    stems = [os.path.splitext(one.name)[0] for one in recordings]
    if len(set(stems)) != len(stems):
        stems = [one.name for one in recordings]
    known = None
    if by == "group" and all(one.group for one in recordings):
        known = [one.group for one in recordings]
    return group_names(
        Catalog(stems, [one.path for one in recordings], groups=known), by, flag, several=several
    )


def _with_groups(found: RecordedFrames, by: str | None) -> RecordedFrames:
    """The recordings with the groups of `--group`; without it those of several recordings, else none."""
    if by is not None:
        names: list[str | None] = list(_named_groups(found.recordings, by, "--group", several=False))
    else:
        names = [one.group for one in found.recordings]
        several = 1 < len({name for name in names if name}) < len(names)
        names = names if several else [None] * len(names)
    return replace(found, recordings=[replace(one, group=name) for one, name in zip(found.recordings, names)])


def drop_short(found: RecordedFrames, seconds: float) -> RecordedFrames:
    """The recordings that are at least a window long; the others are skipped and named.

    Raises:
        TceError: none is.
    """
    rates = found.rates
    lengths = [(rows.stop - rows.start) / rate for rows, rate in zip(found.spans, rates)]
    kept = [at for at, length in enumerate(lengths) if length >= seconds * (1 - 1e-6)]
    if not kept:
        longest = max(lengths)
        raise TceError(
            f"--window {seconds:g}",
            "at most the length of a video",
            f"{longest:.3g} s, the longest one" if len(lengths) > 1 else f"a video of {longest:.3g} s",
            "give a shorter --window",
        )
    if len(kept) == len(lengths):
        return found
    short = {
        found.recordings[at].name: f"shorter than --window {seconds:g} s"
        for at in range(len(lengths))
        if at not in set(kept)
    }
    for name, reason in short.items():
        log.warning("skipped: %s: %s", name, reason)
    return replace(found.select(kept), skipped=found.skipped | short)
