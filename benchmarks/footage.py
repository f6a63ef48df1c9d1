"""Footage in and batches out, against the bare work they are made of; ratios from one run.

Each figure is a median over turns that alternate between the work and its bare counterpart. Where it says
"CPU", seconds of processor time are compared, which other work on the machine disturbs less than the clock.

    python benchmarks/footage.py [--quick] [--only pack,folders,random,loader,memory,catalog]

Made-up footage of about UCF101's size and compression: H.264 in MP4 at 320x240, and JPEG frames of 340x256.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import av
import cv2
import numpy as np
import simplejpeg

from tce.data.frame_store import FrameStore
from tce.data.loader import Loader
from tce.data.open_data import open_store
from tce.data.pack import pack
from tce.options.pack import PackOptions
from tce.video.image import decode, decode_into
from tce.video.open_video import open_video

SEED = 0
# Frames a second that a fast GPU may take in training ResNet-18 at 112 px. An assumption, not a measurement:
# about 3,000 of ResNet-50 at 224 px, times nine for the smaller network and pictures, less a quarter.
GPU_FRAMES = 20_000


@dataclass(frozen=True)
class Scale:
    """How much footage and how many turns; each video is packed under several names."""

    clips: int
    frames: int
    names: int
    batches: int
    rounds: int


FULL = Scale(clips=120, frames=180, names=4, batches=60, rounds=5)
QUICK = Scale(clips=12, frames=60, names=4, batches=12, rounds=3)


def moving_scene(rng: np.random.Generator, frames: int, height: int, width: int) -> Iterator[np.ndarray]:
    """A soft random picture that the camera moves over, with a little noise; compresses like real footage."""
    wide = rng.integers(0, 256, (height // 8, width // 8 * 2, 3), dtype=np.uint8)
    wide = cv2.resize(wide, (width * 2, height), interpolation=cv2.INTER_CUBIC)
    noise = rng.normal(0, 3, (4, height, width, 3))
    speed = rng.uniform(0.2, 2)
    for number in range(frames):
        place = int(number * speed) % width
        yield np.clip(wide[:, place : place + width] + noise[number % 4], 0, 255).astype(np.uint8)


def write_videos(folder: Path, scale: Scale) -> list[Path]:
    paths = []
    for clip in range(scale.clips):
        path = folder / f"class{clip % 10}" / f"v_class{clip % 10}_g{clip // 10:02d}_c01.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as output:
            stream = output.add_stream("libx264", rate=25, options={"preset": "veryfast"})
            stream.width = 320
            stream.height = 240
            stream.pix_fmt = "yuv420p"
            stream.gop_size = 50
            for image in moving_scene(np.random.default_rng([SEED, clip]), scale.frames, 240, 320):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            output.mux(stream.encode())
        paths.append(path)
        for name in range(2, scale.names + 1):
            paths.append(path.with_name(path.name.replace("_c01", f"_c{name:02d}")))
            os.link(path, paths[-1])
    return paths


def write_folders(folder: Path, scale: Scale) -> None:
    for clip in range(scale.clips):
        target = folder / f"class{clip % 10}" / f"v_class{clip % 10}_g{clip // 10:02d}_c01"
        target.mkdir(parents=True)
        for number, image in enumerate(
            moving_scene(np.random.default_rng([SEED, clip]), scale.frames, 256, 340)
        ):
            data = simplejpeg.encode_jpeg(image, quality=80, colorsubsampling="420")
            (target / f"frame{number + 1:06d}.jpg").write_bytes(data)


def clock(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def processor(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def rounds(
    count: int, measure: Callable[[Callable[[], object]], float], *work: Callable[[], object]
) -> list[float]:
    """Median seconds of each work, taken in turns after one turn to warm up."""
    taken = [[measure(one) for one in work] for _ in range(count + 1)][1:]
    return [statistics.median(column) for column in zip(*taken, strict=True)]


def report(line: str, ratio: float, aim: str, note: str = "") -> None:
    print(f"{line:<62} {ratio:8.3f}   {aim:<10} {note}", flush=True)


def decode_and_encode(path: str) -> int:
    """What packing cannot do without: FFmpeg's frames as RGB, and JPEG out of them."""
    cv2.setNumThreads(0)
    size = 0
    with av.open(path) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            size += len(simplejpeg.encode_jpeg(frame.to_ndarray(format="rgb24"), 90, "RGB", "420"))
    return size


def bench_pack(folder: Path, scale: Scale) -> None:
    paths = [str(path) for path in write_videos(folder / "videos", scale)]
    workers = os.cpu_count() or 1
    out = folder / "packed"

    def packing() -> None:
        shutil.rmtree(out, ignore_errors=True)
        pack(PackOptions(footage=(str(folder / "videos"),), out=str(out), workers=workers))

    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        list(pool.map(decode_and_encode, paths[:workers]))  # the processes have started
        whole, bare = rounds(scale.rounds, clock, packing, lambda: list(pool.map(decode_and_encode, paths)))
    frames = len(paths) * scale.frames
    note = f"{frames / whole:.0f} frames/s with {workers} processes, their start included"
    report("pack videos / decoding + JPEG encoding alone", bare / whole, ">= 0.85", note)


def bench_folders(folder: Path, scale: Scale) -> None:
    source, out, copy = folder / "folders", folder / "packed_folders", folder / "copied"
    write_folders(source, scale)

    def packing() -> None:
        shutil.rmtree(out, ignore_errors=True)
        pack(PackOptions(footage=(str(source),), out=str(out)))
        os.sync()

    def copying() -> None:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy)
        os.sync()

    whole, bare = rounds(scale.rounds, clock, packing, copying)
    size = sum(path.stat().st_size for path in source.rglob("*.jpg")) / 1e6
    report("pack frame folders / copying the files", bare / whole, ">= 0.5", f"{size / whole:.0f} MB/s")
    shutil.rmtree(copy)


def pairs(store: FrameStore, batches: int, samples: int = 64) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(SEED)
    plan = []
    for _ in range(batches):
        clips = rng.integers(0, len(store), samples)
        plan.append((clips, (rng.random((samples, 2)) * store.lengths[clips][:, None]).astype(np.int64)))
    return plan


def flat(batch: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    clips, index = batch
    return np.repeat(clips, index.shape[1]), index.reshape(-1)


def bench_random(folder: Path, scale: Scale) -> None:
    """Random pairs, decoded at full size in one thread."""
    for name, path, aim in (
        ("a collection", folder / "packed_folders", ">= 0.85"),
        ("frame folders in place", folder / "folders", ">= 0.8"),
    ):
        store = open_store(path)
        plan = pairs(store, scale.batches)
        held = [store.read(*flat(batch)) for batch in plan]

        def reading(store: FrameStore = store, plan: list = plan) -> None:
            for batch in plan:
                for image in store.read(*flat(batch)):
                    decode(image)  # type: ignore[arg-type]

        def bare(held: list = held) -> None:
            for images in held:
                for image in images:
                    decode(image)

        for unit, measure in (("clock", clock), ("CPU", processor)):
            whole, alone = rounds(scale.rounds, measure, reading, bare)
            frames = scale.batches * 128
            report(
                f"random pairs out of {name} / bare JPEG decoding, {unit}",
                alone / whole,
                aim,
                f"{frames / whole:.0f} frames/s",
            )
    seeking(folder, scale)


def seeking(folder: Path, scale: Scale) -> None:
    store = open_store(folder / "packed")
    plan = pairs(store, max(1, scale.batches // 12))
    paths = store.catalog.paths

    def reading() -> None:
        for batch in plan:
            for image in store.read(*flat(batch)):
                decode(image)  # type: ignore[arg-type]

    def seek() -> None:
        for clips, index in plan:
            for clip, pair in zip(clips, index, strict=True):
                with open_video(paths[clip], threads=1) as video:
                    video.frames(pair)

    collection, videos = rounds(scale.rounds, clock, reading, seek)
    report("random pairs out of a collection / seeking in the videos", videos / collection, ">= 5")


def bench_loader(folder: Path, scale: Scale, gpu_frames: float) -> None:
    """Batches of 64 pairs, against decoding and resizing the same images into one array."""
    for where, name in (("collection", "packed_folders"), ("folders in place", "folders")):
        store = open_store(folder / name)
        plan = pairs(store, scale.batches)
        held = [store.read(*flat(batch)) for batch in plan]
        for size in (112, 224):
            works = [loading(store, plan, size, 1), loading(store, plan, size, 2), resizing(held, size)]
            frames, line = scale.batches * 128, f"loader at {size} px, {where}"
            one, _, bare = rounds(scale.rounds, processor, *works)
            rate = frames / one
            report(
                f"{line} / bare decoding + resizing, CPU", bare / one, ">= 0.9", f"{rate:.0f} frames/s a core"
            )
            one, two, bare = rounds(scale.rounds, clock, *works)
            report(
                f"{line} / bare decoding + resizing, clock",
                bare / one,
                ">= 0.9",
                f"{frames / one:.0f} frames/s",
            )
            report(
                f"{line}, 2 threads / 1 thread, clock", one / two, ">= 1.7", f"{frames / two:.0f} frames/s"
            )
            if size == 112:
                print(
                    f"  a GPU that took {gpu_frames:.0f} frames/s (assumed) would need "
                    f"{gpu_frames / rate:.1f} such cores"
                )


def loading(
    store: FrameStore, plan: list[tuple[np.ndarray, np.ndarray]], size: int, threads: int
) -> Callable[[], None]:
    def work() -> None:
        with Loader(store, plan, (size, size), threads=threads) as loader:
            for _ in loader:
                pass

    return work


def resizing(held: list[list[bytes | Exception]], size: int) -> Callable[[], None]:
    out = np.empty((size, size, 3), np.uint8)

    def work() -> None:
        for images in held:
            for image in images:
                decode_into(image, out)  # type: ignore[arg-type]

    return work


def resident() -> float:
    """MB of memory that this process holds."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def bench_memory(folder: Path, scale: Scale) -> None:
    """Ten epochs in this process: what the later ones add to the second."""
    for where, name in (("collection", "packed_folders"), ("folders in place", "folders")):
        store = open_store(folder / name)
        held = []
        for epoch in range(10):
            rng = np.random.default_rng(epoch)
            order = rng.permutation(np.repeat(np.arange(len(store)), 8))
            plan = [
                (rows, rng.integers(0, store.lengths[rows, None], (len(rows), 2)))
                for rows in np.array_split(order, 16)
            ]
            loading(store, plan, 112, 2)()
            held.append(resident())
        growth = held[9] / held[1] - 1
        report(f"memory after epoch 10 / after epoch 2, {where}", 1 + growth, "<= 1.02", f"{held[1]:.0f} MB")


CATALOG = """
import re, sys, time
import numpy as np, pyarrow as pa, pyarrow.compute as pc
from tce.data.read_catalog import Catalog
def used():  # getrusage would also count the parent before this program replaced it
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1000
n = int(sys.argv[1])
numbers = pa.array(np.arange(n)).cast(pa.string())
names = pc.binary_join_element_wise("class/v_class_g01_c", numbers, "")
labels = pc.binary_join_element_wise("class", pa.array(np.arange(n) % 400).cast(pa.string()), "")
before, started = used(), time.perf_counter()
catalog = Catalog(names, names, labels=labels)
catalog.classes, catalog.source_numbers
print(time.perf_counter() - started, used() - before)
"""


def bench_catalog(scale: Scale) -> None:
    clips = 1_000_000
    done = subprocess.run(
        [sys.executable, "-c", CATALOG, str(clips)], capture_output=True, text=True, check=True
    )
    seconds, megabytes = map(float, done.stdout.split())
    report("catalog of a million clips, seconds", seconds, "<= 2")
    report("catalog of a million clips, MB beyond the imports and the rows", megabytes, "<= 300")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="little footage: the figures are rough")
    parser.add_argument("--only", default="", help="parts to run, with commas")
    parser.add_argument("--gpu-frames", type=float, default=GPU_FRAMES, help="frames a second to deliver")
    parser.add_argument("--folder", type=Path, help="where to put the footage; a temporary folder by default")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    wanted = set(filter(None, options.only.split(",")))
    folder = Path(tempfile.mkdtemp(prefix="tce-footage-", dir=options.folder))
    print(f"{scale.clips} clips of {scale.frames} frames, {os.cpu_count()} cores\n{'':62}    ratio   aim")
    parts: dict[str, Callable[[], None]] = {
        "pack": lambda: bench_pack(folder, scale),
        "folders": lambda: bench_folders(folder, scale),
        "random": lambda: bench_random(folder, scale),
        "loader": lambda: bench_loader(folder, scale, options.gpu_frames),
        "memory": lambda: bench_memory(folder, scale),
        "catalog": lambda: bench_catalog(scale),
    }
    needs = {"random": {"pack", "folders"}, "loader": {"folders"}, "memory": {"folders"}}
    for name in list(wanted):
        wanted |= needs.get(name, set())
    try:
        for name, part in parts.items():
            if not wanted or name in wanted:
                part()
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
