"""Which frames of a clip a protocol looks at, and the way from there to a network's outputs.

A sample is one network input: a single frame, or a stack of consecutive frames. Samples of a clip share
frames, so frames are decoded once each, in one stream through all clips, and samples are put together from
them and batched across clips while the loader decodes ahead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tce.data.frame_store import FrameStore
from tce.data.loader import Loader
from tce.data.sampling import spread, stack_at, test_positions
from tce.device import autocast
from tce.model.classifier import Classifier, difference_matrix
from tce.model.encoder import FrameEncoder
from tce.model.preprocess import normalise, to_tensor
from tce.progress import Progress
from tce.video.image import CROP_MARGIN, Resize

log = logging.getLogger("tce.evaluation")

Ints = npt.NDArray[np.int64]
Network = FrameEncoder | Classifier

TEST_SAMPLES = 19  # of a clip in the paper's test
FRAMES_PER_READ = 64
STACKS_TOGETHER = 4  # put together at once on a CPU: what its cache holds


@dataclass(frozen=True)
class Samples:
    """Network inputs, clip by clip.

    Attributes:
        clip: [S] row of the store, not falling.
        index: [S, span] positions of the frames in the clip, rising with the samples of a clip.
        weight: [S] how often the protocol counts the sample; equal samples are kept once.
    """

    clip: Ints
    index: Ints
    weight: Ints

    def __len__(self) -> int:
        return len(self.clip)


def paper_samples(lengths: Ints, rows: Ints, count: int, span: int) -> Samples:
    """The test positions of the paper's protocol: `count` starts a clip, see `tce.data.sampling`.

    Args:
        lengths: frames of every clip of the store, [clips].
        rows: which clips, rising, [n].
        count: samples a clip, 19 in the paper.
        span: consecutive frames of a sample, 6 for five differences, 1 for RGB; a clip's last frame repeats
            where it is too short.

    Returns:
        The samples; those at the same place are one, of higher weight.
    """
    starts = np.stack([test_positions(int(n), count) for n in lengths[rows]])  # [n, count]
    return _samples(rows, starts, lengths, span)


def even_samples(lengths: Ints, rows: Ints, count: int, span: int) -> Samples:
    """Samples in the middle of `count` equal parts of each clip; arguments and result as `paper_samples`."""
    places = np.maximum(lengths[rows] - span + 1, 1)  # [n] possible starts
    starts = np.stack([spread(int(n), count) for n in places])  # [n, count]
    return _samples(rows, starts, lengths, span)


def _samples(rows: Ints, starts: Ints, lengths: Ints, span: int) -> Samples:
    clip = np.repeat(rows, starts.shape[1])
    key, weight = np.unique(np.stack([clip, starts.ravel()]), axis=1, return_counts=True)
    return Samples(key[0], stack_at(lengths[key[0]], key[1], span), weight)


@dataclass
class Reader:
    """How frames come from a store to a network.

    Attributes:
        store: the clips.
        image_size: side of the network's input, pixels.
        crop: "squash", "center-crop", or "ten-crop": the frame squashed to 8/7 of the size, its corners and
            its middle, each also mirrored.
        batch_size: samples in a pass of the network.
        workers: decoding threads.
        precision: "float32" or "bf16".
        failed: clip's row -> why a frame of it could not be read; such clips get no figures.
    """

    store: FrameStore
    image_size: int
    crop: str
    batch_size: int = 64
    workers: int = 2
    precision: str = "float32"
    failed: dict[int, str] = field(default_factory=dict)
    _stacks: Tensor | None = field(default=None, repr=False)

    def outputs(
        self, network: Network, forward: Callable[[Tensor], Tensor], samples: Samples, what: str
    ) -> Iterator[tuple[slice, Tensor]]:
        """What `forward` makes of the samples, in order.

        Args:
            network: whose normalisation and device are used.
            forward: network inputs [b, C, h, w] -> [b, ...]; its mean over the crops is taken. The inputs'
                memory is used again for the next batch.
            samples: what to look at.
            what: for the progress line.

        Yields:
            A slice of the samples and their outputs, float32 on the network's device.
        """
        clips, frames, member = _frames(samples)
        size = round(self.image_size * CROP_MARGIN) if self.crop == "ten-crop" else self.image_size
        resize: Resize = "center-crop" if self.crop == "center-crop" else "squash"
        plan = _Plan(clips, frames)
        assembly = _Assembly(member, self.batch_size)
        loader = Loader(self.store, plan, (size, size), resize, self.workers, pin=True)
        with loader, Progress(len(clips), what, "frame") as progress:
            for batch in loader:
                self._note(batch.clips[~batch.ok], batch.errors)
                pixels = to_tensor(batch.frames[:, 0], network.device)  # [n, h, w, 3]
                for part, held, places in assembly.add(pixels):
                    yield part, self._forward(network, forward, held, places)
                progress.update(len(batch.clips))

    @torch.no_grad()
    def _forward(
        self, network: Network, forward: Callable[[Tensor], Tensor], held: Tensor, places: Tensor
    ) -> Tensor:
        mean, std = network.config.mean, network.config.std
        if places.shape[1] > 1:
            inputs = stack_differences(held, places, std, self._buffer(held, places))  # [b, C, h, w]
        else:
            inputs = normalise(held[places[:, 0]].permute(0, 3, 1, 2), mean, std)  # [b, 3, h, w]
        crops = ten_crops(inputs, self.image_size) if self.crop == "ten-crop" else [inputs]
        with autocast(network.device, self.precision):
            return torch.stack([forward(crop).float() for crop in crops]).mean(dim=0)  # [b, ...]

    def _buffer(self, held: Tensor, places: Tensor) -> Tensor:
        """Room for a batch of stacks, always the same: fresh memory is cleared first, which takes long."""
        samples, span = places.shape
        shape = (self.batch_size, 3 * (span - 1), *held.shape[1:3])
        if self._stacks is None or self._stacks.shape != shape or self._stacks.device != held.device:
            dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
            self._stacks = torch.empty(
                shape, dtype=dtype, device=held.device, memory_format=torch.channels_last
            )
        return self._stacks[:samples]

    def _note(self, clips: Ints, errors: list[str]) -> None:
        for clip, reason in zip(clips.tolist(), errors, strict=True):
            if clip not in self.failed:
                log.warning("left out: %s, %s", self.store.catalog.ids[clip], reason)
            self.failed.setdefault(clip, reason)

    def readable(self, rows: Ints) -> npt.NDArray[np.bool_]:
        """Which of the clips had no frame that could not be read, after `outputs`."""
        return ~np.isin(rows, list(self.failed))


def clip_means(
    reader: Reader, network: Network, forward: Callable[[Tensor], Tensor], samples: Samples, what: str
) -> npt.NDArray[np.float32]:
    """Weighted mean of each clip's outputs.

    Args:
        reader: how the frames come.
        network: see `Reader.outputs`.
        forward: to vectors [b, D].
        samples: of one or more clips.
        what: for the progress line.

    Returns:
        [clips, D], a row for each different clip of the samples, in their order.
    """
    first = np.flatnonzero(np.diff(samples.clip, prepend=-1))
    place = np.repeat(np.arange(len(first)), np.diff(first, append=len(samples)))  # [S]
    total = np.add.reduceat(samples.weight, first)
    sums: Tensor | None = None
    for part, vectors in reader.outputs(network, forward, samples, what):
        if sums is None:
            sums = torch.zeros(len(first), vectors.shape[1], device=vectors.device)
        weight = torch.from_numpy(samples.weight[part]).to(vectors)
        sums.index_add_(0, torch.from_numpy(place[part]).to(vectors.device), vectors * weight[:, None])
    assert sums is not None
    return np.divide(sums.cpu().numpy(), total[:, None], dtype=np.float32)


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
    classifier: Classifier,
    reader: Reader,
    rows: Ints,
    count: int = TEST_SAMPLES,
    what: str = "testing",
    features: Callable[[Tensor], Tensor] | None = None,
) -> ClipScores:
    """Scores of clips by the paper's protocol (design of the released code; paper, section 4.1).

    Clips with a frame that cannot be read are left out and named in `reader.failed`.

    Args:
        classifier: in evaluation mode.
        reader: how the frames come.
        rows: which clips of the reader's store, rising.
        count: samples a clip.
        what: for the progress line.
        features: computes the backbone's features; by default the classifier itself.

    Returns:
        Scores of the clips that could be read.
    """
    forward = classifier if features is None else (lambda x: classifier.fc(features(x)))
    lengths = reader.store.lengths
    span = classifier.frames_per_sample
    samples = paper_samples(lengths, rows, count, span)
    means = clip_means(reader, classifier, forward, samples, what)  # [n, C]
    kept = reader.readable(rows)
    return ClipScores(rows[kept], means[kept] * count, int((lengths[rows[kept]] < span).sum()))


def stack_differences(frames: Tensor, places: Tensor, std: tuple[float, ...], out: Tensor) -> Tensor:
    """Stacks of differences out of a stream of decoded frames.

    The same as `tce.model.classifier.frames_to_differences` of the stacks' normalised frames. One product
    with a small matrix subtracts, normalises and puts a pixel's channels side by side, as the network reads
    them; step by step each would move all pixels through memory.

    Args:
        frames: uint8 [n, h, w, 3].
        places: of each stack's frames, [b, span].
        std: of each channel, of pixels in [0, 1]; means cancel.
        out: receives the stacks, float [b, 3 (span - 1), h, w], channels_last.

    Returns:
        `out`.
    """
    samples, span = places.shape
    subtract = difference_matrix(span).to(frames.device)  # [3 span, 3 (span - 1)]
    pixels = out.permute(0, 2, 3, 1).flatten(1)  # [b, h w 3 (span - 1)], a view
    scale = 1 / (255 * torch.tensor(std, device=frames.device))
    scale = scale.repeat(pixels.shape[1] // 3)  # per number: broadcasting three leaves vector units idle
    together = STACKS_TOGETHER if frames.device.type == "cpu" else samples
    for start in range(0, samples, together):
        part = slice(start, start + together)
        planes = frames[places[part]].permute(0, 1, 4, 2, 3)  # [b, span, 3, h, w]
        planes = planes.to(torch.float32, memory_format=torch.contiguous_format).flatten(1, 2).flatten(2)
        torch.mul((planes.mT @ subtract).flatten(1), scale, out=pixels[part])  # whole numbers: exact so far
    return out


def ten_crops(images: Tensor, size: int) -> list[Tensor]:
    """Corners and middle of images [b, C, H, W], and their mirror images: ten times [b, C, size, size]."""
    height, width = images.shape[-2] - size, images.shape[-1] - size
    places = [(0, 0), (0, width), (height, 0), (height, width), (height // 2, width // 2)]
    crops = [images[..., top : top + size, left : left + size] for top, left in places]
    return crops + [crop.flip(-1) for crop in crops]


def _frames(samples: Samples) -> tuple[Ints, Ints, Ints]:
    """Every needed frame once, clip by clip in time: clips [n], positions [n]; places in them [S, span]."""
    span = samples.index.shape[1]
    clip = np.repeat(samples.clip, span)
    stride = int(samples.index.max(initial=0)) + 1
    key, member = np.unique(clip * stride + samples.index.ravel(), return_inverse=True)
    return key // stride, key % stride, member.reshape(len(samples), span)


class _Plan:
    """Single frames, in loader batches."""

    def __init__(self, clips: Ints, frames: Ints):
        self.clips, self.frames = clips, frames

    def __len__(self) -> int:
        return -(-len(self.clips) // FRAMES_PER_READ)

    def __getitem__(self, position: int) -> tuple[Ints, Ints]:
        part = slice(position * FRAMES_PER_READ, (position + 1) * FRAMES_PER_READ)
        return self.clips[part], self.frames[part, None]


class _Assembly:
    """Puts together the samples that a stream of frames completes, holding only frames still needed.

    Args:
        member: for each sample the places of its frames in the stream, [S, span].
        batch_size: samples handed out at once.
    """

    def __init__(self, member: Ints, batch_size: int):
        self.member, self.batch_size = member, batch_size
        self.ready = member.max(axis=1)  # the sample is complete with this frame; does not fall
        self.first = 0  # place in the stream of the first frame held
        self.seen = 0
        self.next = 0  # sample to hand out next
        self.buffer: Tensor | None = None  # begins with the frames held; kept, as fresh memory takes long

    def add(self, frames: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Take the next frames [n, ...]; for complete batches their samples, frames, places [b, span].

        The frames handed out are the assembly's memory, good until the next call.
        """
        buffer = self._append(frames)
        complete = int(np.searchsorted(self.ready, self.seen))
        last = len(self.member)
        while self.next < complete and (complete == last or complete - self.next >= self.batch_size):
            part = slice(self.next, min(self.next + self.batch_size, complete))
            low, high = int(self.member[part.start].min()), int(self.ready[part.stop - 1])
            places = torch.from_numpy(self.member[part] - low).to(frames.device)
            yield part, buffer[low - self.first : high + 1 - self.first], places
            self.next = part.stop
        needed = int(self.member[self.next].min()) if self.next < last else self.seen
        if needed > self.first:
            left = buffer[needed - self.first : self.seen - self.first].clone()
            buffer[: len(left)] = left
            self.first = needed

    def _append(self, frames: Tensor) -> Tensor:
        held = self.seen - self.first
        self.seen += len(frames)
        needed = held + len(frames)
        if self.buffer is None or len(self.buffer) < needed:
            buffer = frames.new_empty((2 * needed, *frames.shape[1:]))
            if self.buffer is not None:
                buffer[:held] = self.buffer[:held]
            self.buffer = buffer
        self.buffer[held:needed] = frames
        return self.buffer
