"""Batches of frames out of a frame store, decoded by threads, in the plan's order.

Two stages on SPDL's pipeline: read a batch's encoded images, decode and resize them. Neither touches torch:
a torch operation in a loader's thread would open a thread team of its own and change training's speed. SPDL
drops an item whose stage raises; so the stages here return their errors.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import time
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from tce.errors import OptionError
from tce.video.base import FrameError
from tce.video.image import Resize, check_resize, decode_into

if TYPE_CHECKING:
    from tce.data.frame_store import FrameStore

log = logging.getLogger("tce.data")

READERS = 2
"""Batches read at once: enough to hide a disk's latency; reading costs a few per cent of decoding."""

_PATIENCE = 0.2  # seconds between checks whether the program ends


class PlannedBatch(NamedTuple):
    """A planned batch of B samples.

    Attributes:
        clips: int64 [B], rows of the store's catalog.
        frames: int64 [B, F], positions of the frames in their clips.
        epoch: the pass over the data that the batch belongs to.
        samples: int64 [B], numbers from which the samples' random draws follow; None for the clips' rows.
    """

    clips: np.ndarray
    frames: np.ndarray
    epoch: int = 0
    samples: np.ndarray | None = None


class Plan(Protocol):
    """What to load: `len` batches, each a `PlannedBatch`, or a tuple of its first fields."""

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> tuple[Any, ...]: ...


@dataclass
class Batch:
    """Frames of B samples.

    Attributes:
        frames: uint8 [B, F, H, W, 3], RGB; a pinned torch tensor of the same shape with `pin=True` on a GPU
            machine. A failed sample shows the pixels of the nearest good one, so that batch statistics stay
            those of real frames.
        clips: int64 [B], the sample's row in the store's catalog.
        index: int64 [B, F], positions of the frames in their clips.
        ok: bool [B], False where a frame could not be read or decoded; mask these out of losses.
        number: the batch's position in the plan.
        epoch: the pass over the data that it belongs to, as planned.
        samples: int64 [B], numbers from which the samples' random draws follow, as planned.
        errors: for each failed sample, in order, which frame failed and why.
    """

    frames: Any
    clips: np.ndarray
    index: np.ndarray
    ok: np.ndarray
    number: int
    epoch: int
    samples: np.ndarray
    errors: list[str] = field(default_factory=list)


@dataclass
class _Encoded:
    """A batch between the stages."""

    number: int
    planned: PlannedBatch
    images: list[bytes | Exception]


class Loader:
    """Iterates over a plan's batches.

    Args:
        store: where the frames are.
        plan: a sequence of `PlannedBatch`, or (clips int64 [B], index int64 [B, F]); B and F may differ.
        size: height and width of the frames, pixels.
        resize: "squash", "center-crop" or "squash-nearest", see `tce.video.image.decode_into`.
        threads: decoding threads.
        prefetch: finished batches kept waiting for the consumer; at most prefetch + threads batches are
            being read, decoded or waiting at any time, which bounds memory.
        pin: hand out torch tensors in pinned memory where there is a GPU.

    Raises:
        OptionError: a size, number of threads or prefetch below 1, or an unknown way of resizing.
    """

    def __init__(
        self,
        store: FrameStore,
        plan: Plan | Sequence[tuple[Any, ...]],
        size: tuple[int, int],
        resize: Resize = "squash",
        threads: int = 2,
        prefetch: int = 4,
        pin: bool = False,
    ):
        check_resize(resize)
        for name, value in (("size", min(size)), ("--workers", threads), ("prefetch", prefetch)):
            if value < 1:
                raise OptionError(name, expected="1 or more", found=str(value))
        self.store = store
        self.plan = plan
        self.size = size
        self.resize = resize
        self.threads = threads
        self.prefetch = prefetch
        self.pin = pin and _has_gpu()
        self._arrays = _Arrays(prefetch + threads + 2, self.pin)
        self.seconds_waiting = 0.0
        """Seconds that the consumer has waited for batches, over all iterations."""
        # Weak: an iterator that its user drops must end, though the threads hold on to this loader.
        self._running: weakref.WeakSet[Generator[Batch, None, None]] = weakref.WeakSet()

    def __len__(self) -> int:
        return len(self.plan)

    def __iter__(self) -> Iterator[Batch]:
        return self.iterate()

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the threads of every iteration that was left unfinished."""
        for batches in list(self._running):
            batches.close()

    def iterate(self, start: int = 0) -> Iterator[Batch]:
        """The plan's batches from position `start` on, in order whatever the number of threads.

        The threads stop when the iterator is exhausted, closed, garbage collected or left by an exception.

        Raises:
            OptionError: `start` outside the plan.
        """
        if not 0 <= start <= len(self.plan):
            raise OptionError("start", expected=f"0 to {len(self.plan)}", found=str(start))
        batches = self._batches(start)
        self._running.add(batches)
        return batches

    def _batches(self, start: int) -> Generator[Batch, None, None]:
        if start == len(self.plan):
            return
        from spdl.pipeline import PipelineBuilder

        gate = _Gate(self.prefetch + self.threads)
        builder: Any = PipelineBuilder()  # its types do not follow the stages
        pipeline = (
            builder.add_source(gate.admit(range(start, len(self.plan))))
            .pipe(self._read, concurrency=READERS, output_order="input", name="read")
            .pipe(self._decode, concurrency=self.threads, output_order="input", name="decode")
            .add_sink(self.prefetch)
            .build(num_threads=self.threads + READERS)
        )
        with pipeline.auto_stop(), gate:
            for position in range(start, len(self.plan)):
                asked = time.perf_counter()
                got = pipeline.get_item()
                self.seconds_waiting += time.perf_counter() - asked
                gate.leave()
                if isinstance(got[1], BaseException):
                    raise got[1]
                if got[0] != position:
                    raise RuntimeError(f"the loader lost batch {position}: batch {got[0]} came instead")
                yield got[1]

    def _read(self, position: int) -> tuple[int, _Encoded | BaseException]:
        """Stage 1: the batch's encoded images."""
        try:
            planned = _planned(self.plan[position], position)
            clips = np.repeat(planned.clips, planned.frames.shape[1])
            images = self.store.read(clips, planned.frames.reshape(-1))
            return position, _Encoded(position, planned, images)
        except BaseException as error:
            return position, error

    def _decode(self, item: tuple[int, _Encoded | BaseException]) -> tuple[int, Batch | BaseException]:
        """Stage 2: pixels."""
        position, encoded = item
        if isinstance(encoded, BaseException):
            return position, encoded
        try:
            return position, self._decode_batch(encoded)
        except BaseException as error:
            return position, error

    def _decode_batch(self, encoded: _Encoded) -> Batch:
        planned = encoded.planned
        samples, frames = planned.frames.shape
        held, pixels = self._arrays.take((samples, frames, *self.size, 3))
        reasons: dict[int, str] = {}  # sample -> its first failed frame's reason
        images = iter(encoded.images)
        for sample in range(samples):
            for frame in range(frames):
                image = next(images)
                try:
                    if isinstance(image, Exception):
                        raise image
                    decode_into(image, pixels[sample, frame], self.resize)
                except Exception as error:
                    reason = error.found if isinstance(error, FrameError) else error
                    reasons.setdefault(sample, f"frame {planned.frames[sample, frame]}: {reason}")
        ok = np.ones(samples, dtype=bool)
        ok[list(reasons)] = False
        _fill_failed(pixels, ok)
        errors = [reason for _, reason in sorted(reasons.items())]
        numbers = planned.clips if planned.samples is None else planned.samples
        return Batch(
            held, planned.clips, planned.frames, ok, encoded.number, planned.epoch, numbers, errors=errors
        )


def _planned(given: tuple[Any, ...], position: int) -> PlannedBatch:
    """What a plan gave for a batch, with arrays of the right type.

    Raises:
        ValueError: the arrays do not fit together.
    """
    planned = PlannedBatch(*given)
    clips, index = (np.asarray(part, dtype=np.int64) for part in planned[:2])
    if index.ndim != 2 or clips.shape != index.shape[:1]:
        raise ValueError(
            f"batch {position} of the plan: expected clips [B] and index [B, F], "
            f"found {clips.shape} and {index.shape}"
        )
    return planned._replace(clips=clips, frames=index)


class _Gate:
    """Admits so many positions at a time: SPDL's own queues between the stages would hold several more."""

    def __init__(self, slots: int):
        self._slots = threading.Semaphore(slots)
        self._closed = False

    def admit(self, positions: Iterable[int]) -> Iterator[int]:
        """The positions, each once there is room for it."""
        for position in positions:
            while not self._slots.acquire(timeout=_PATIENCE):
                # At the interpreter's end nobody may close the gate.
                if self._closed or not threading.main_thread().is_alive():
                    return
            if self._closed:
                return
            yield position

    def leave(self) -> None:
        """Make room for one more."""
        self._slots.release()

    def __enter__(self) -> _Gate:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._slots.release()  # ends the wait in `admit`


def _fill_failed(pixels: np.ndarray, ok: np.ndarray) -> None:
    """Copy the nearest good sample into each failed one; zeros where none is good."""
    good = np.flatnonzero(ok)
    for sample in np.flatnonzero(~ok):
        if len(good) == 0:
            pixels[sample] = 0
        else:
            pixels[sample] = pixels[good[np.abs(good - sample).argmin()]]


class _Arrays:
    """Arrays for batches, whose memory is used again once nothing refers to it: fresh pages cost time.

    An array is a view of a block; when it and every view, slice or tensor of it are gone, the block is free.
    """

    def __init__(self, keep: int, pin: bool):
        self._free: deque[bytearray] = deque(maxlen=keep)
        self._pin = pin

    def take(self, shape: tuple[int, ...]) -> tuple[Any, np.ndarray]:
        """A batch's array or pinned tensor, and the same memory as an array uint8 [*shape] to write into."""
        if self._pin:
            import torch

            tensor = torch.empty(shape, dtype=torch.uint8, pin_memory=True)  # torch keeps its own free blocks
            return tensor, tensor.numpy()
        size = math.prod(shape)
        block = self._free_block(size)
        array = np.frombuffer(block, dtype=np.uint8, count=size)
        # Views of `array` keep `array` alive, not the block alone, because the block is no array.
        weakref.finalize(array, self._free.append, block).atexit = False
        pixels = array.reshape(shape)
        return pixels, pixels

    def _free_block(self, size: int) -> bytearray:
        while self._free:
            with contextlib.suppress(IndexError):  # another thread was quicker
                block = self._free.pop()
                if len(block) == size:
                    return block
        return bytearray(size)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
