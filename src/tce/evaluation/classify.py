"""The command `tce classify`: what happens in a video, over all of it and along its time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from tce.errors import OptionError, TceError
from tce.options.classify import ClassifyOptions
from tce.visualize.result_plots import time_line
from tce.evaluation.frozen_network import load_network
from tce.model.classifier import Classifier
from tce.device import autocast, choose_precision
from tce.progress import Progress
from tce.result import Result
from tce.data.tables import read_names
from tce.data.sampling import spread, stack_at
from tce.video.base import Video
from tce.video.isolated import open_isolated
from tce.visualize.plots import require_picture

STILLS = 8
STACKS_READ = 4  # stacks decoded at once, which bounds memory for large frames


def classify(options: ClassifyOptions) -> Result:
    """The likeliest classes of a video, and a picture of their probabilities along it.

    Scores of evenly spread samples (stacks of frames, or frames) are averaged over the video.

    Args:
        options: video, classifier, and where the picture goes.

    Returns:
        The classes with their probabilities, and the probabilities along time.

    Raises:
        TceError: no classifier, no video, or an unwritable picture.
        OptionError: a picture of no known kind, or names that do not fit the classifier's number of classes.
    """
    target = require_picture(options.output or _picture_name(options.video))
    subject = load_network(options.ckpt, options.model, None, 0, options.device, classifier=True)
    classifier = subject.network
    assert isinstance(classifier, Classifier)
    names = class_names(classifier, options.classes)
    with open_isolated(options.video) as video:
        starts, scores = score_video(classifier, video, options)
        times = video.times(starts)
        stills = _stills(video)
    shares = _softmax(scores)
    overall = _softmax(scores.mean(axis=0, keepdims=True))[0]
    order = np.argsort(-overall, kind="stable")[: options.top]
    lines = [f"{options.video}: {len(starts)} samples from {times[0]:.1f} to {times[-1]:.1f} s"]
    width = max(len(names[c]) for c in order)
    lines += [f"  {names[c]:<{width}}  {overall[c]:>6.1%}" for c in order]
    title = f"{Path(options.video).name}, {subject.name}"
    time_line(target, times, shares[:, order], [names[c] for c in order], stills, title)
    figures = {
        "video": options.video,
        "checkpoint": {"name": subject.name, **subject.facts},
        "classes": [{"class": names[c], "probability": float(overall[c])} for c in order],
        "times": times,
        "along": {names[c]: shares[:, c] for c in order},
        "picture": str(target),
    }
    return Result("\n".join([*lines, f"wrote {target}"]), figures)


def _picture_name(video: str) -> str:
    return f"{Path(video).resolve().stem}.classes.png"


def class_names(classifier: Classifier, path: str | None) -> list[str]:
    """The classifier's classes by name: its own, those of a file, or their numbers.

    Args:
        classifier: whose classes.
        path: a file with a name a line, or "number name" as in UCF101's classInd.txt, then
            in the order of the numbers.

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
    room = max(1, length - span + 1)
    starts = np.unique(spread(room, min(options.samples, room)))
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


def _stills(video: Video) -> list[tuple[float, npt.NDArray[np.uint8]]]:
    index = np.unique(spread(len(video), min(STILLS, len(video))))
    times = video.times(index)
    # One at a time and thinned out: eight frames of 4K would be 200 MB.
    stills = []
    for position, second in zip(index.tolist(), times.tolist(), strict=True):
        (frame,) = video.frames(np.array([position]))
        stills.append((second, frame[:: max(1, frame.shape[0] // 240), :: max(1, frame.shape[0] // 240)]))
    return stills


def _softmax(scores: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    powers = np.exp((scores - scores.max(axis=1, keepdims=True)).astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)
