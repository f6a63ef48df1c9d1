"""The loader: every planned frame once, in order, or its error in its place; and a clean end."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tce.data.loader import Batch, Loader, PlannedBatch
from tce.data.open_data import open_store
from tests.helpers.faulty import CLIPS, FaultyStore, random_plan
from tests.helpers.numbered import pack_into


def quiet() -> None:
    """Wait until no thread of the loader is left."""
    for _ in range(100):
        if not [thread for thread in threading.enumerate() if "spdl" in thread.name]:
            return
        time.sleep(0.05)
    raise AssertionError(f"threads are left: {threading.enumerate()}")


def seen(batch: Batch) -> list[tuple[int, int]]:
    """Clip and frame that each picture shows."""
    pixels = batch.frames.reshape(-1, *batch.frames.shape[2:])
    assert (pixels == pixels[:, :1, :1]).all(), "one colour a picture"
    return [(int(clip), int(frame)) for clip, frame, _ in pixels[:, 0, 0]]


@pytest.mark.parametrize("threads", [1, 2, 3, 4])
def test_every_planned_frame_comes_once_in_order_or_is_reported(threads: int) -> None:
    """Faults are injected at random; what comes out is compared with the plan, item by item."""
    store, plan = FaultyStore(), random_plan(60)
    with Loader(store, plan, (4, 4), threads=threads, prefetch=2) as loader:  # type: ignore[arg-type]
        batches = list(loader)
    assert len(batches) == len(plan)
    failed = 0
    for batch, (clips, index) in zip(batches, plan, strict=True):
        assert np.array_equal(batch.clips, clips) and np.array_equal(batch.index, index)
        shown = np.array(seen(batch)).reshape(*index.shape, 2)
        expected = np.array(
            [not any(store.broken(int(clip), int(f)) for f in row) for clip, row in zip(clips, index)]
        )
        assert np.array_equal(batch.ok, expected)
        for sample in np.flatnonzero(batch.ok):
            assert (shown[sample, :, 0] == clips[sample]).all() and (
                shown[sample, :, 1] == index[sample]
            ).all()
        assert len(batch.errors) == (~batch.ok).sum()
        assert all(error.startswith("frame ") for error in batch.errors)
        failed += len(batch.errors)
    assert failed > 20, "the faults were there"
    quiet()


def test_a_batch_carries_its_number_epoch_and_samples() -> None:
    """As planned, also from the middle on: whoever draws random numbers for it needs nothing else."""
    rng = np.random.default_rng(0)
    plan = [
        PlannedBatch(
            rng.integers(0, CLIPS, 3), rng.integers(0, 5, (3, 2)), number // 4, rng.integers(0, 99, 3)
        )
        for number in range(10)
    ]
    store = FaultyStore(faults=False)
    for start in (0, 6):
        batches = list(Loader(store, plan, (4, 4), threads=2).iterate(start))  # type: ignore[arg-type]
        assert [batch.number for batch in batches] == list(range(start, 10))
        for batch in batches:
            assert batch.epoch == batch.number // 4
            assert np.array_equal(batch.samples, plan[batch.number].samples)
    (plain,) = Loader(store, [(np.arange(3), np.zeros((3, 1), int))], (4, 4))  # type: ignore[arg-type]
    assert (plain.number, plain.epoch, plain.samples.tolist()) == (0, 0, [0, 1, 2])


def test_a_failed_sample_shows_the_nearest_good_one() -> None:
    store = FaultyStore()
    clips = np.arange(CLIPS)
    index = np.full((CLIPS, 1), 4)
    (batch,) = Loader(store, [(clips, index)], (4, 4))  # type: ignore[arg-type]
    good = np.flatnonzero(batch.ok)
    for sample, (clip, frame) in enumerate(seen(batch)):
        assert frame == 4 and abs(clip - sample) == np.abs(good - sample).min()


def test_a_batch_without_any_good_sample_is_black() -> None:
    class Nothing(FaultyStore):
        def broken(self, clip: int, frame: int) -> bool:
            return True

    (batch,) = Loader(Nothing(), [(np.arange(3), np.zeros((3, 2), int))], (4, 4))  # type: ignore[arg-type]
    assert not batch.ok.any() and len(batch.errors) == 3 and not batch.frames.any()


@pytest.mark.parametrize("stage", ["plan", "read", "shape", "decode"])
def test_an_error_of_a_stage_reaches_the_consumer_in_its_place(
    stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is dropped before it, and the threads end."""
    store, plan = FaultyStore(faults=False), random_plan(30)

    class Plan:
        def __len__(self) -> int:
            return len(plan)

        def __getitem__(self, position: int) -> tuple[np.ndarray, np.ndarray]:
            if position == 17 and stage == "plan":
                raise LookupError("broken here")
            if position == 17 and stage == "shape":
                return plan[position][0], np.zeros(3)
            return plan[position]

    loader = Loader(store, Plan(), (4, 4), threads=3)  # type: ignore[arg-type]
    if stage == "read":
        read = store.read
        broken = plan[17][0]

        def failing(clips: np.ndarray, frames: np.ndarray) -> Any:
            if len(clips) == plan[17][1].size and (clips[:: plan[17][1].shape[1]] == broken).all():
                raise LookupError("broken here")
            return read(clips, frames)

        monkeypatch.setattr(store, "read", failing)
    if stage == "decode":
        decode = loader._decode_batch

        def failing_decode(encoded: Any) -> Batch:
            if encoded.number == 17:
                raise LookupError("broken here")
            return decode(encoded)

        monkeypatch.setattr(loader, "_decode_batch", failing_decode)
    came = 0
    with pytest.raises(ValueError if stage == "shape" else LookupError):
        for batch, (clips, _) in zip(loader, plan):
            assert np.array_equal(batch.clips, clips)
            came += 1
    assert came == 17
    quiet()


@pytest.mark.parametrize("threads", [1, 3])
def test_resume_gives_the_rest_of_the_plan(packed: Path, threads: int) -> None:
    store = open_store(packed)
    rng = np.random.default_rng(1)
    plan = [(rng.integers(0, 8, 3), rng.integers(0, 12, (3, 2))) for _ in range(12)]
    loader = Loader(store, plan, (24, 24), threads=threads)
    whole = list(loader)
    for start in (0, 5, 11, 12):
        rest = list(loader.iterate(start))
        assert len(rest) == 12 - start
        for batch, expected in zip(rest, whole[start:], strict=True):
            assert np.array_equal(batch.frames, expected.frames) and np.array_equal(
                batch.index, expected.index
            )
    with pytest.raises(Exception, match="0 to 12"):
        loader.iterate(13)


def test_collection_and_folders_give_the_same_samples(folders: Path, tmp_path: Path) -> None:
    """Frame folders are packed byte for byte, so both are equal to the last bit, with any threads."""
    pack_into(tmp_path / "c", folders)
    plan = [(np.arange(8), np.random.default_rng(i).integers(0, 12, (8, 3))) for i in range(4)]
    results = []
    for path in (tmp_path / "c", folders):
        store = open_store(path)
        for threads in (1, 2, 4):
            with Loader(store, plan, (32, 32), "center-crop", threads=threads) as loader:
                results.append(np.stack([batch.frames for batch in loader]))
        assert store.catalog.classes == ["A", "B"]
    assert all(np.array_equal(result, results[0]) for result in results[1:])
    assert results[0].any()


def test_what_waits_is_bounded() -> None:
    """However slow the consumer: at most prefetch + threads batches are begun beyond the one it has."""
    for threads, prefetch in ((1, 1), (2, 3)):
        store = FaultyStore(faults=False)
        batches = iter(Loader(store, random_plan(100), (4, 4), threads=threads, prefetch=prefetch))  # type: ignore[arg-type]
        for taken in (1, 2):
            next(batches)
            time.sleep(0.3)
            assert store.reads <= taken + prefetch + threads
        batches.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("ending", ["close", "break", "loader", "collected", "exception", "never started"])
def test_no_thread_is_left(ending: str) -> None:
    loader = Loader(FaultyStore(), random_plan(200), (4, 4), threads=2)  # type: ignore[arg-type]
    batches: Iterator[Batch] | None = loader.iterate()
    if ending != "never started":
        next(batches)  # type: ignore[arg-type]
    if ending == "close":
        batches.close()  # type: ignore[union-attr]
    elif ending == "break":
        for _ in batches:  # type: ignore[union-attr]
            break
        del _
    elif ending == "exception":
        with pytest.raises(KeyError), loader:
            raise KeyError
    elif ending == "loader":
        loader.close()
    if ending in ("break", "collected", "never started"):
        del loader
        batches = None
        gc.collect()
    quiet()


def test_ctrl_c_ends_the_process_at_once() -> None:
    """SIGINT while the consumer waits and while it works; no thread keeps the process alive."""
    program = textwrap.dedent("""
        import sys, time
        sys.path[:0] = {path!r}
        from tests.helpers.faulty import FaultyStore, random_plan
        from tce.data.loader import Loader
        store = FaultyStore(faults=False)
        slow = {slow}
        if slow:
            store.read = lambda clips, frames: time.sleep(0.2) or FaultyStore.read(store, clips, frames)
        for number, batch in enumerate(Loader(store, random_plan(100000), (4, 4), threads=2)):
            if number == 3:
                print("running", flush=True)
    """)
    for slow in (False, True):
        process = subprocess.Popen(
            [sys.executable, "-c", program.format(path=sys.path, slow=slow)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None and process.stdout.readline() == "running\n"
        time.sleep(0.1)
        os.kill(process.pid, signal.SIGINT)
        try:
            _, errors = process.communicate(timeout=20)
        finally:
            process.kill()
        assert process.returncode in (-signal.SIGINT, 130) and "KeyboardInterrupt" in errors


def test_torch_threads_stay_as_they_are(packed: Path) -> None:
    """Changed anywhere, they change for the whole process, and training's speed and bits with them."""
    before = torch.get_num_threads(), torch.get_num_interop_threads()
    plan = [(np.arange(8), np.zeros((8, 2), int))] * 6
    inside = []
    for _ in Loader(open_store(packed), plan, (16, 16), threads=3):
        inside.append((torch.get_num_threads(), torch.get_num_interop_threads()))
    assert {before, (torch.get_num_threads(), torch.get_num_interop_threads()), *inside} == {before}


def test_waiting_is_measured() -> None:
    loader = Loader(FaultyStore(faults=False), random_plan(10), (4, 4))  # type: ignore[arg-type]
    list(loader)
    first = loader.seconds_waiting
    assert first > 0
    list(loader)
    assert loader.seconds_waiting > first


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_pinning_without_a_gpu_gives_plain_arrays(packed: Path) -> None:
    (batch,) = Loader(open_store(packed), [(np.arange(2), np.zeros((2, 1), int))], (8, 8), pin=True)
    assert isinstance(batch.frames, np.ndarray)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_pinned_batches_on_a_gpu(packed: Path) -> None:
    plan = [(np.arange(8), np.full((8, 2), 3))] * 4
    plain = list(Loader(open_store(packed), plan, (8, 8)))
    for batch, expected in zip(Loader(open_store(packed), plan, (8, 8), pin=True), plain, strict=True):
        assert batch.frames.is_pinned()
        assert np.array_equal(batch.frames.to("cuda", non_blocking=True).cpu().numpy(), expected.frames)


@pytest.mark.parametrize("hold", ["array", "slice", "sample", "tensor"])
def test_memory_is_used_again_only_when_nothing_refers_to_it(packed: Path, hold: str) -> None:
    """Whatever is kept of a batch stays as it was, while blocks of dropped batches come again."""
    rng = np.random.default_rng(0)
    plan = [(rng.integers(0, 8, 6), rng.integers(0, 12, (6, 2))) for _ in range(40)]
    keep = {
        "array": lambda batch: batch.frames,
        "slice": lambda batch: batch.frames[1:3, 0, ::2],
        "sample": lambda batch: batch.frames[-1],
        "tensor": lambda batch: torch.from_numpy(batch.frames)[2],
    }[hold]
    kept, copies, places = [], [], set()
    for number, batch in enumerate(Loader(open_store(packed), plan, (40, 40), threads=3)):
        places.add(batch.frames.ctypes.data)
        if number % 3 == 0:
            kept.append(keep(batch))
            copies.append(np.asarray(kept[-1]).copy())
        del batch
    assert len(places) < 40, "blocks are used again"
    for now, then in zip(kept, copies, strict=True):
        assert np.array_equal(np.asarray(now), then)
