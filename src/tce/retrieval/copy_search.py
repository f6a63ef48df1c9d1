"""From candidates to copies: pairs of videos with the span that both have."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tce.progress import Progress
from tce.retrieval.compared_videos import ComparedVideos
from tce.retrieval.copy_candidates import candidate_pieces, piece_starts
from tce.retrieval.pixel_match import (
    ALIKE,
    PixelMatch,
    descriptors,
    frame_similarities,
    match_pixels,
    mirror,
)

AROUND = 12  # frames on both sides of a candidate that are tried with it
SHIFTS = 2  # frames by which the offsets of one span may differ
_GAP = 2  # frames of a span that may be unlike

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class CopySpan:
    """A span that two videos share; videos are numbers, frames those of `ComparedVideos`.

    Attributes:
        one: first video.
        other: second video.
        first: its first frame in the first video.
        last: its last frame there.
        other_first: its first frame in the second video.
        other_last: its last frame there.
        score: how well the changes of the pictures correlate, at most 1.
        mirrored: left and right are exchanged.
    """

    one: int
    other: int
    first: int
    last: int
    other_first: int
    other_last: int
    score: float
    mirrored: bool


@dataclass(frozen=True)
class _Hit:
    """A piece of one video that was found in another: its first frame and length, and the match."""

    first: int
    match: PixelMatch


def find_copies(videos: ComparedVideos, threshold: float, mirrored: bool) -> list[CopySpan]:
    """Pairs of videos that share a span, best first.

    Args:
        videos: to compare.
        threshold: least score.
        mirrored: look for mirrored copies as well.
    """
    sides = None if videos.sides is None else videos.sides[videos.video]
    small = descriptors(videos.small)
    pairs = [candidate_pieces(videos.vectors, videos.video, sides)]
    pairs.append(candidate_pieces(small, videos.video, sides))
    upright = np.unique(np.concatenate(pairs), axis=0)
    found = _matched(videos, upright, threshold, False)
    if mirrored:
        pairs.append(candidate_pieces(small, videos.video, sides, descriptors(mirror(videos.small))))
        found += _matched(videos, np.unique(np.concatenate(pairs), axis=0), threshold, True)
    return sorted(_best_of_both(found), key=lambda span: (-span.score, span.one, span.other, span.first))


def _best_of_both(spans: list[CopySpan]) -> list[CopySpan]:
    """Without mirrored spans of videos that also match upright, or the reverse, whichever fits worse."""
    best: dict[tuple[int, int], CopySpan] = {}
    for span in spans:
        pair = (span.one, span.other)
        if pair not in best or span.score > best[pair].score:
            best[pair] = span
    return [span for span in spans if span.mirrored == best[span.one, span.other].mirrored]


def _matched(videos: ComparedVideos, pairs: Ints, threshold: float, mirrored: bool) -> list[CopySpan]:
    """The spans of the candidates that match."""
    starts, bounds = piece_starts(videos.video), videos.starts
    ends = np.append(starts[1:], len(videos.video))
    hits: dict[tuple[int, int], list[_Hit]] = defaultdict(list)
    with Progress(len(pairs), "matching", "candidate") as progress:
        for piece, other in pairs.tolist():
            one, two = (int(videos.video[starts[which]]) for which in (piece, other))
            low = max(int(bounds[two]), int(starts[other]) - AROUND)
            high = min(int(bounds[two + 1]), int(ends[other]) + AROUND)
            asked = videos.small[starts[piece] : ends[piece]]
            match = match_pixels(mirror(asked) if mirrored else asked, videos.small[low:high])
            if match is not None and match.score >= threshold:
                first = int(starts[piece] - bounds[one])
                shift = low - int(bounds[two]) + match.shift - first  # between frames of the two videos
                hits[one, two].append(_Hit(first, _shifted(match, shift)))
            progress.update(1)
    return [span for pair, those in hits.items() for span in _spans(videos, pair, those, mirrored)]


def _shifted(match: PixelMatch, shift: int) -> PixelMatch:
    return PixelMatch(match.score, shift, match.appearance, match.energy, match.warp)


def _spans(videos: ComparedVideos, pair: tuple[int, int], hits: list[_Hit], mirrored: bool) -> list[CopySpan]:
    """The best hit's span along its offset, then that of the best hit outside it, and so on."""
    bounds = videos.starts
    whole, other = (videos.small[bounds[video] : bounds[video + 1]] for video in pair)
    if mirrored:
        whole = mirror(whole)
    found: list[CopySpan] = []
    for hit in sorted(hits, key=lambda one: -one.match.score):
        match = hit.match
        if any(
            span.first - bounds[pair[0]] <= hit.first <= span.last - bounds[pair[0]]
            and abs(span.other_first - bounds[pair[1]] - (span.first - bounds[pair[0]]) - match.shift)
            <= SHIFTS
            for span in found
        ):
            continue
        first, alike = frame_similarities(whole, other, match)
        low, high = _run(alike >= min(ALIKE, match.appearance - 0.05), max(0, hit.first - first))
        one = int(bounds[pair[0]]) + first
        two = int(bounds[pair[1]]) + first + match.shift
        found.append(CopySpan(*pair, one + low, one + high, two + low, two + high, match.score, mirrored))
    return found


def _run(alike: NDArray[np.bool_], start: int) -> tuple[int, int]:
    """First and last place of the run of True that holds a place or follows it; short gaps do not end it."""
    low = start + int(np.argmax(alike[start:])) if alike[start:].any() else start
    low, high = min(low, len(alike) - 1), min(low, len(alike) - 1)
    for step in (-1, 1):
        place, gap = low if step < 0 else high, 0
        while 0 <= place + step < len(alike) and gap <= _GAP:
            place += step
            gap = 0 if alike[place] else gap + 1
            if alike[place]:
                low, high = min(low, place), max(high, place)
    return low, high
