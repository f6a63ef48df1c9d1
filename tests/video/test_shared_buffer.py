from __future__ import annotations

import os

import numpy as np

from tce.video.shared_buffer import SLOT_BYTES, SLOTS, SharedBuffer


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
