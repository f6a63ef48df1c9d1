from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tce.video.base import DecoderCrashed, FrameError, VideoError, VideoTimeout
from tce.video.pool import DecodePool
from tce.video.pool_worker import SLOT_BYTES, SLOTS, SharedBuffer
from tests.helpers import untrusted

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(workers=2, timeout=1.5, memory=3 << 29) as pool:
        yield pool


def test_a_failure_affects_its_own_item_only(pool: DecodePool) -> None:
    actions = [
        *("a", "exit", "b", "segfault", "raise", "c", "hang", "d", "video error", "memory", "unpicklable"),
        *("print", "slow but alive", "e"),
    ]
    outcomes = dict(pool.map(untrusted.act, actions))
    assert list(outcomes) == actions  # in order
    for good in ("a", "b", "c", "d", "e", "print", "slow but alive"):
        assert outcomes[good] == good.upper()
    assert isinstance(outcomes["exit"], DecoderCrashed) and "status 7" in str(outcomes["exit"])
    assert isinstance(outcomes["segfault"], DecoderCrashed) and "SIGSEGV" in str(outcomes["segfault"])
    assert isinstance(outcomes["hang"], VideoTimeout) and "1.5 s" in str(outcomes["hang"])
    assert str(outcomes["video error"]) == str(FrameError("frame 3", "a frame", "none", "look elsewhere"))
    for bad in ("raise", "unpicklable", "memory"):
        assert isinstance(outcomes[bad], VideoError) and bad in outcomes[bad].what
    assert outcomes["raise"].found == "ValueError: not\nforeseen" and "\n" not in str(outcomes["raise"])
    assert "out of memory" in outcomes["memory"].found
    assert any("untrusted.py" in note for note in outcomes["raise"].__notes__)  # where to look


def test_order_is_that_of_the_items(pool: DecodePool) -> None:
    items = [(i, 0.05 * (i % 3 == 0)) for i in range(12)]
    assert list(pool.map(untrusted.slowly, iter(items))) == [(item, item[0]) for item in items]
    assert list(pool.map(untrusted.slowly, [])) == []


def test_hard_videos(pool: DecodePool, hard: dict[str, Path]) -> None:
    names = ["b_frames.mp4", "text.mp4", "one_based", "asp_packed.avi"]
    outcomes = [outcome for _, outcome in pool.map(untrusted.frames_of, [str(hard[name]) for name in names])]
    assert outcomes[0] == 24 and outcomes[2:] == [12, 24]
    assert type(outcomes[1]).__name__ == "VideoUnreadable" and "text.mp4" in str(outcomes[1])


def test_children_import_no_torch_and_large_results_arrive(pool: DecodePool) -> None:
    ((_, modules), (_, large)) = pool.map(untrusted.act, ["modules", "large"])
    assert "tce.video.open_video" in modules and "torch" not in modules
    assert np.array_equal(large, np.arange(4_000_000))


def test_parts_arrive_in_order_while_memory_stays_bounded(pool: DecodePool) -> None:
    totals = {}
    for item, parts in pool.stream(untrusted.count_to, [3, 40, -6, 0, 2]):
        seen = []
        try:
            for part in parts:
                seen.append(int(part[0]))
                time.sleep(0.01)  # a slow consumer is no time-out of the children
        except VideoError as error:
            assert isinstance(error, DecoderCrashed) and "SIGABRT" in str(error)
            seen.append("crashed")
        totals[item] = seen
    assert totals == {3: [0, 1, 2], 40: list(range(40)), -6: [*range(6), "crashed"], 0: [], 2: [0, 1]}


def test_a_consumer_that_pauses_is_no_time_out(pool: DecodePool) -> None:
    for item, parts in pool.stream(untrusted.count_to, [30]):
        assert int(next(parts)[0]) == 0
        time.sleep(1.8)  # longer than the time-out, with parts waiting
        assert [int(part[0]) for part in parts] == list(range(1, item))


def test_items_are_taken_as_they_are_needed(pool: DecodePool) -> None:
    taken = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(len(taken))
            yield "a"

    for _, (item, outcome) in zip(range(5), pool.map(untrusted.act, endless())):
        assert (item, outcome) == ("a", "A")
    assert len(taken) <= 5 + 2 * pool.workers + 1
    # The pool is as good as new after a consumer has walked away.
    assert [outcome for _, outcome in pool.map(untrusted.act, ["b", "c"])] == ["B", "C"]


def test_workers_are_bounded_and_kept(pool: DecodePool) -> None:
    processes = {outcome for _, outcome in pool.map(untrusted.act, ["process"] * 20)}
    assert 1 <= len(processes) <= 2 and os.getpid() not in processes


def test_functions_of_the_main_module_are_refused(pool: DecodePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted.act, "__module__", "__main__")
    with pytest.raises(ValueError, match="main module"):
        list(pool.map(untrusted.act, ["a"]))


def test_closing_ends_all_children_at_once() -> None:
    pool = DecodePool(workers=2, timeout=100)
    ((_, one), (_, two)) = pool.map(untrusted.act, ["process", "process"])
    hanging = pool.map(untrusted.act, ["process", "hang", "hang"])
    next(hanging)
    before = time.monotonic()
    pool.close()
    assert time.monotonic() - before < 30  # not the pool's timeout
    for process in (one, two):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


SCRIPT = """
import sys
sys.path.insert(0, {here!r})
from tests.helpers import untrusted
from tce.video.pool import DecodePool
with DecodePool(workers=2, timeout=100) as pool:
    for item, outcome in pool.map(untrusted.act, ["process", "process", "process", "hang"]):
        print(outcome, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_child_outlives_an_interrupted_parent(how: signal.Signals) -> None:
    code = SCRIPT.format(here=str(ROOT))
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None and parent.stderr is not None
    children = {int(parent.stdout.readline()) for _ in range(3)}
    if how == signal.SIGINT:
        os.killpg(parent.pid, how)  # as a terminal does it: children get it too
    else:
        parent.kill()
    parent.wait(10)
    if how == signal.SIGINT:
        assert parent.returncode == -signal.SIGINT
        assert parent.stderr.read().count(b"Traceback") == 1  # the parent's own, none of a child
    until = time.monotonic() + 8
    while any(is_running(child) for child in children):
        assert time.monotonic() < until, "a child is still there"
        time.sleep(0.1)


def is_running(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_both_processes_see_the_same_memory() -> None:
    one = SharedBuffer.create()
    assert one is not None
    two = SharedBuffer(os.dup(one.handle))  # as a child process maps it
    parts = [np.arange(7, dtype=np.uint8), np.zeros(0, np.uint8), np.full(SLOT_BYTES - 7, 9, np.uint8)]
    for slot in range(SLOTS):
        parts[0] += 1
        sizes = two.write(slot, [memoryview(part) for part in parts])
        copies = one.read(slot, sizes)
        assert all(np.array_equal(copy, part) for copy, part in zip(copies, parts, strict=True))
        two.write(slot, [memoryview(np.ones(SLOT_BYTES, np.uint8))])
        assert copies[2][-1] == 9  # a copy: the slot is free
    assert one.read(0, []) == []
    one.close()
    two.close()
