"""Clips whose every frame shows its own number, as videos and as frame folders."""

from __future__ import annotations

from pathlib import Path

from tce.data.pack import pack
from tce.io import Result
from tce.options.pack import PackOptions
from tests.helpers import hard_videos

CLIPS, FRAMES = 8, 12  # clip i shows the numbers from 100 i on


def write_videos(folder: Path, clips: int = CLIPS, frames: int = FRAMES) -> Path:
    """MP4 files in two class folders, named as UCF101's."""
    for clip in range(clips):
        label = "AB"[clip % 2]
        (folder / label).mkdir(parents=True, exist_ok=True)
        hard_videos.encode(
            folder / label / f"v_{label}_g{clip // 4 + 1:02d}_c{clip // 2 + 1:02d}.mp4",
            "libx264",
            frames,
            first=100 * clip,
            preset="ultrafast",
        )
    return folder


def first_number(name: str) -> int:
    """The number that the first frame of the clip `A/v_A_g01_c01` shows."""
    clip = 2 * (int(name[-2:]) - 1) + "AB".index(name[0])
    return 100 * clip


def write_folders(folder: Path, clips: int = CLIPS, frames: int = FRAMES) -> Path:
    """The same clips as folders of JPEG files."""
    for clip in range(clips):
        label = "AB"[clip % 2]
        target = folder / label / f"v_{label}_g{clip // 4 + 1:02d}_c{clip // 2 + 1:02d}"
        target.mkdir(parents=True)
        for frame in range(frames):
            image = hard_videos.picture(100 * clip + frame)
            (target / f"frame{frame + 1:06d}.jpg").write_bytes(hard_videos.jpeg(image))
    return folder


def pack_into(out: Path, *footage: Path, **options: object) -> Result:
    """`tce pack` with one decoding process."""
    given = {"workers": 1} | options
    return pack(PackOptions(footage=tuple(map(str, footage)), out=str(out), **given))  # type: ignore[arg-type]
