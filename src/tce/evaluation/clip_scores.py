"""The paper's test of a classifier: scores of 19 stacks (or frames) of each clip, summed."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tce.errors import TceError
from tce.evaluation.clip_reader import Reader, clip_means, paper_samples
from tce.model.classifier import Classifier

log = logging.getLogger("tce.evaluation")

Ints = npt.NDArray[np.int64]
TEST_SAMPLES = 19


@dataclass
class ClipScores:
    """Scores of clips.

    Attributes:
        rows: [n] the clips, rows of the store, rising.
        scores: [n, C] sum of the samples' logits.
        short: how many clips are shorter than one sample, so that their last frame was repeated.
    """

    rows: Ints
    scores: npt.NDArray[np.float32]
    short: int


def score_clips(
    classifier: Classifier, reader: Reader, rows: Ints, count: int = TEST_SAMPLES, what: str = "testing"
) -> ClipScores:
    """Scores of clips by the paper's protocol (design of the released code; paper, section 4.1).

    Clips with a frame that cannot be read are left out and named in `reader.failed`.

    Args:
        classifier: in evaluation mode.
        reader: how the frames come.
        rows: which clips of the reader's store, rising.
        count: samples a clip.
        what: for the progress line.

    Returns:
        Scores of the clips that could be read.
    """
    lengths = reader.store.lengths
    span = classifier.frames_per_sample
    samples = paper_samples(lengths, rows, count, span)
    means = clip_means(reader, classifier, classifier, samples, what)  # [n, C]
    kept = reader.readable(rows)
    return ClipScores(rows[kept], means[kept] * count, int((lengths[rows[kept]] < span).sum()))


def match_classes(classifier: Classifier, classes: list[str]) -> Ints:
    """Where each of the data's classes is in the classifier's output.

    By name where the classifier knows its classes, else by number.

    Args:
        classifier: what gives the scores.
        classes: the data's class names in the order of their numbers.

    Returns:
        [len(classes)] columns of the scores.

    Raises:
        TceError: the classifier lacks a class, or the numbers of classes differ.
    """
    known = list(classifier.config.classes)
    if not known:
        if classifier.num_classes != len(classes):
            raise TceError(
                "the checkpoint's classes",
                expected=f"{len(classes)} classes, as in the data",
                found=f"{classifier.num_classes} in the checkpoint",
                fix="give the --data and --lists it was fine-tuned on, or fine-tune it on these",
            )
        return np.arange(len(classes))
    lacking = [name for name in classes if name not in known]
    if lacking:
        more = ", ..." if len(lacking) > 3 else ""
        raise TceError(
            "the checkpoint's classes",
            expected=f"the {len(classes)} classes of the data",
            found=f"{len(known)} classes without {', '.join(lacking[:3])}{more}",
            fix="give the --data and --lists it was fine-tuned on, or fine-tune it on these",
        )
    return np.array([known.index(name) for name in classes])
