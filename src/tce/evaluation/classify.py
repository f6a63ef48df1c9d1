"""The command `tce classify`: the likeliest classes of a video and along its time, or of many videos."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tce.data.sampling import spread, stack_at
from tce.data.tables import read_names
from tce.device import autocast, choose_precision
from tce.embedding.embed_command import find_videos
from tce.errors import OptionError, TceError
from tce.evaluation.frozen_network import FrozenNetwork, load_network
from tce.evaluation.report import html_table
from tce.io import Result, atomic, require_writable, write_csv
from tce.model.classifier import Classifier
from tce.options.classify import ClassifyOptions
from tce.progress import Progress
from tce.video.base import Video
from tce.video.open_video import open_isolated
from tce.visualize.plots import require_picture
from tce.visualize.result_plots import time_line

log = logging.getLogger("tce.evaluation")

Still = tuple[float, npt.NDArray[np.uint8]]

STILLS = 8
STACKS_READ = 4  # stacks decoded at once, which bounds memory for large frames


@dataclass
class VideoClasses:
    """The classes of one video.

    Attributes:
        video: its path.
        probabilities: [C], over the whole video.
        times: [S] seconds at which its samples begin.
        along: [S, C] probabilities of each sample.
        error: why there are none.
    """

    video: str
    probabilities: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    times: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    along: npt.NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))
    error: str = ""

    def best(self, count: int = 1) -> list[int]:
        """The most likely classes, by number."""
        return np.argsort(-self.probabilities, kind="stable")[:count].tolist()


@dataclass
class ClassifyResult(Result):
    """What `classify` returns.

    Attributes:
        classes: C names.
        videos: the classes of each video.
    """

    classes: list[str] = field(default_factory=list)
    videos: list[VideoClasses] = field(default_factory=list, repr=False)

    def _repr_html_(self) -> str:
        rows = []
        for found in self.videos:
            for rank, place in enumerate(found.best(5 if len(self.videos) == 1 else 1)):
                name = found.video if rank == 0 else ""
                rows.append([name, self.classes[place], f"{found.probabilities[place]:.1%}"])
            if found.error:
                rows.append([found.video, found.error, ""])
        return html_table(["video", "class", "probability"], rows, "classes")


def classify(options: ClassifyOptions) -> ClassifyResult:
    """Find the likeliest classes of a video or of each video in a folder.

    Logits of evenly spread samples (stacks of frames, or frames) are averaged over a video. One video gives
    a picture of the probabilities along its time, a folder a table with a row for each video.

    Args:
        options: videos, classifier, and where picture or table go.

    Returns:
        The classes with their probabilities, and the probabilities along time.

    Raises:
        TceError: no classifier, no video that can be read, or an unwritable output.
        OptionError: an output of no known kind, or names that do not fit the classifier's number of classes.
    """
    videos = _videos(options.video)
    target = _target(options, several=videos != [options.video])
    network = load_network(options.ckpt, options.model, None, 0, options.device, classifier=True)
    classifier = network.network
    assert isinstance(classifier, Classifier)
    names = class_names(classifier, options.classes)
    if target.suffix.lower() == ".csv":
        found = list(_classify_all(classifier, videos, options))
        _write_csv(target, found, names)
        return _table_result(options, network, names, found, target)
    with open_isolated(videos[0]) as video:
        one = _classified(classifier, video, videos[0], options)
        seconds = video.times(np.arange(len(video)))
        stills = _stills(video, seconds)
    order = one.best(options.top)
    chance = 1 / len(names)
    time_line(
        target,
        one.times,
        one.along[:, order],
        [names[c] for c in order],
        stills,
        f"{Path(one.video).name}, {network.name}, {len(one.times)} samples",
        float(seconds[-1]),
        chance,
    )
    lines = [f"{one.video}: {len(one.times)} samples from {one.times[0]:.1f} to {one.times[-1]:.1f} s"]
    width = max(len(names[c]) for c in order)
    lines += [f"  {names[c]:<{width}}  {one.probabilities[c]:>6.1%}" for c in order]
    lines.append(f"  by chance {chance:.1%}")
    figures = {
        "video": one.video,
        "checkpoint": {"name": network.name, **network.facts},
        "classes": [{"class": names[c], "probability": float(one.probabilities[c])} for c in order],
        "chance": chance,
        "times": one.times,
        "along": {names[c]: one.along[:, c] for c in order},
        "picture": str(target),
    }
    return ClassifyResult("\n".join([*lines, f"wrote {target}"]), figures, names, [one])


def _videos(given: str) -> list[str]:
    """The video itself, or those in a folder."""
    return find_videos([given]) if Path(given).is_dir() else [given]


def _target(options: ClassifyOptions, several: bool) -> Path:
    """Where picture or table go, once it is sure that they can be written there."""
    name = Path(options.video).resolve()
    default = f"{name.name}.classes.csv" if several else f"{name.stem}.classes.png"
    output = options.output or default
    if Path(output).suffix.lower() == ".csv":
        return require_writable(output)
    if several:
        raise OptionError(
            f"--output {output}",
            expected="a name ending in .csv, as VIDEO is a folder of videos",
            found=Path(output).suffix or "no suffix",
        )
    return require_picture(output)


def _classify_all(
    classifier: Classifier, videos: Sequence[str], options: ClassifyOptions
) -> Iterator[VideoClasses]:
    """The classes of each video; one that cannot be read gives its error and does not end the others."""
    good = 0
    for name in videos:
        try:
            with open_isolated(name) as video:
                yield _classified(classifier, video, name, options)
            good += 1
        except (TceError, OSError) as error:
            log.warning("skipped: %s", error)
            yield VideoClasses(name, error=str(error))
    if not good:
        raise TceError(options.video, expected="a video that can be read", found=f"none of {len(videos)}")


def _classified(classifier: Classifier, video: Video, name: str, options: ClassifyOptions) -> VideoClasses:
    starts, scores = score_video(classifier, video, options)
    overall = _softmax(scores.mean(axis=0, keepdims=True))[0]
    return VideoClasses(name, overall, video.times(starts), _softmax(scores))


def _write_csv(path: Path, found: Sequence[VideoClasses], names: Sequence[str]) -> None:
    """A row for each video: its class with probability, why there is none, and every class's probability."""
    rows = [["video", "prediction", "probability", "error", *names]]
    for video in found:
        if video.error:
            rows.append([video.video, "", "", video.error, *[""] * len(names)])
            continue
        (best,) = video.best()
        shares = [f"{share:.6f}" for share in video.probabilities]
        rows.append([video.video, names[best], shares[best], "", *shares])
    with atomic(path, "w") as file:
        write_csv(file, rows)


def _table_result(
    options: ClassifyOptions,
    network: FrozenNetwork,
    names: list[str],
    found: list[VideoClasses],
    target: Path,
) -> ClassifyResult:
    good = [video for video in found if not video.error]
    counts = np.bincount([video.best()[0] for video in good], minlength=len(names))
    order = [place for place in np.argsort(-counts, kind="stable").tolist() if counts[place]]
    width = max(len(names[place]) for place in order)
    lines = [f"{options.video}: {len(good)} videos classified, {len(found) - len(good)} skipped"]
    lines += [f"  {names[place]:<{width}}  {counts[place]:>5} videos" for place in order[: options.top]]
    figures: dict[str, Any] = {
        "checkpoint": {"name": network.name, **network.facts},
        "videos": {
            video.video: {
                "class": names[video.best()[0]],
                "probabilities": dict(zip(names, video.probabilities.tolist(), strict=True)),
            }
            for video in good
        },
        "skipped": {video.video: video.error for video in found if video.error},
        "table": str(target),
    }
    return ClassifyResult("\n".join([*lines, f"wrote {target}"]), figures, names, found)


def class_names(classifier: Classifier, path: str | None) -> list[str]:
    """The classifier's classes by name: its own, those of a file, or their numbers.

    Args:
        classifier: whose classes.
        path: a file with a name a line, or "number name" as in UCF101's classInd.txt, then in
            the order of the numbers.

    Raises:
        TceError: the file cannot be read.
        OptionError: it names another number of classes.
    """
    if path is None:
        return list(classifier.config.classes) or [f"class {i}" for i in range(classifier.num_classes)]
    names = list(read_names(Path(path)).values())
    if len(names) != classifier.num_classes:
        raise OptionError(
            f"--classes {path}",
            expected=f"{classifier.num_classes} names, one for each class of the checkpoint",
            found=str(len(names)),
        )
    return names


@torch.no_grad()
def score_video(
    classifier: Classifier, video: Video, options: ClassifyOptions
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Logits of samples spread evenly over a video.

    Args:
        classifier: in evaluation mode.
        video: opened.
        options: number of samples, size, batch.

    Returns:
        First frame of each sample [S], and logits [S, C].
    """
    length, span = len(video), classifier.frames_per_sample
    places = max(1, length - span + 1)
    starts = np.unique(spread(places, min(options.samples, places)))
    index = stack_at(np.full(len(starts), length), starts, span)  # [S, span]
    precision = choose_precision(options.precision, classifier.device)
    found = []
    with Progress(len(starts), "classifying", "sample") as progress:
        for inputs in _inputs(classifier, video, index, options):
            with autocast(classifier.device, precision):
                found.append(classifier(inputs).float().cpu().numpy())
            progress.update(len(inputs))
    return starts, np.concatenate(found)


def _inputs(
    classifier: Classifier, video: Video, index: npt.NDArray[np.int64], options: ClassifyOptions
) -> Iterator[torch.Tensor]:
    """Network inputs of the samples, in batches."""
    waiting: list[torch.Tensor] = []
    for first in range(0, len(index), STACKS_READ):
        part = index[first : first + STACKS_READ]
        needed, place = np.unique(part, return_inverse=True)
        frames = video.frames(needed)[place.reshape(part.shape)]  # [b, span, H, W, 3]
        waiting.append(classifier.preprocess(frames, options.image_size, options.crop))
        if sum(map(len, waiting)) >= options.batch_size:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)


def _stills(video: Video, seconds: npt.NDArray[np.float64]) -> list[Still]:
    """Frames in the middle of equal parts of the video's time, whatever its frame rate does."""
    count = min(STILLS, len(seconds))
    middles = (np.arange(count) + 0.5) / count * seconds[-1]
    index = np.unique(np.abs(seconds[None] - middles[:, None]).argmin(axis=1))
    # One at a time and thinned out: eight frames of 4K would be 200 MB.
    stills = []
    for position in index.tolist():
        (frame,) = video.frames(np.array([position]))
        step = max(1, frame.shape[0] // 240)
        stills.append((float(seconds[position]), frame[::step, ::step]))
    return stills


def _softmax(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    powers = np.exp((scores - scores.max(axis=1, keepdims=True)).astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)
