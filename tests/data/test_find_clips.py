"""Finding clips: links, what is no file, images beside clips, and one line for each reason."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tce.data.find_clips import find_clips
from tce.data.read_catalog import read_catalog
from tce.errors import TceError
from tests.helpers.hard_videos import jpeg, picture, png


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_links_in_loops_are_followed_once_and_reported_in_a_line(tmp_path: Path) -> None:
    """Eight folders that link to each other have more than 100,000 paths through them."""
    folders = [tmp_path / f"d{i}" for i in range(8)]
    for folder in folders:
        touch(folder / "a.mp4")
    for folder in folders:
        for other in folders:
            (folder / f"to_{other.name}").symlink_to(other)
        (folder / "up").symlink_to(tmp_path)
    found = find_clips(tmp_path)
    assert found.paths == [f"d{i}/a.mp4" for i in range(8)]
    (line,) = found.skipped
    assert "searched already (and 71 more)" in line


def test_a_linked_folder_elsewhere_is_searched(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "deep" / "a.mp4", tmp_path / "data" / "b.mp4")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    found = find_clips(tmp_path / "data")
    assert found.paths == ["b.mp4", "link/deep/a.mp4"] and not found.skipped


def test_the_real_folder_keeps_its_name_where_a_link_comes_first(tmp_path: Path) -> None:
    touch(tmp_path / "z" / "a.mp4")
    (tmp_path / "a_link").symlink_to(tmp_path / "z")
    assert find_clips(tmp_path).paths == ["z/a.mp4"]


def test_what_is_no_regular_file_is_named_and_left_out(tmp_path: Path) -> None:
    touch(tmp_path / "good.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "zero.mp4").symlink_to("/dev/zero")
    (tmp_path / "round.mp4").symlink_to(tmp_path / "round.mp4")
    (tmp_path / "linked.mp4").symlink_to(tmp_path / "good.mp4")
    found = find_clips(tmp_path)
    assert found.paths == ["good.mp4", "linked.mp4"]
    reasons = "\n".join(found.skipped)
    for words in (
        "pipe.mp4: a named pipe",
        "gone.mp4: a link that leads nowhere",
        "zero.mp4: a device",
        "round.mp4: ",
    ):
        assert words in reasons
    with pytest.raises(TceError, match="not a regular file"):
        find_clips(tmp_path / "pipe.mp4")


def test_a_dangling_link_does_not_end_the_embedding_of_a_folder(tmp_path: Path) -> None:
    from tce.embedding.embed_command import find_videos

    touch(tmp_path / "good.mp4")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert find_videos([str(tmp_path)]) == [str(tmp_path / "good.mp4")]


def test_optical_flow_is_reported_once(tmp_path: Path) -> None:
    for clip in ("one", "two"):
        for kind in ("img", "flow_x", "flow_y"):
            touch(*(tmp_path / clip / f"{kind}_{i:05d}.jpg" for i in range(8)))
    found = find_clips(tmp_path)
    assert found.paths == ["one", "two"] and found.folders == {"one", "two"}
    (line,) = found.skipped
    assert line.endswith("16 images of optical flow beside the frames (and 1 more)")


def test_two_cameras_in_a_folder_are_refused_by_every_reader(tmp_path: Path) -> None:
    from tce.data.frame_store import FolderStore
    from tce.video.base import VideoError
    from tce.video.open_video import open_isolated
    from tests.helpers.numbered import pack_into

    root = tmp_path / "data"
    for clip, names in {
        "mixed": [f"cam{camera}_{i}.png" for camera in (1, 2) for i in (1, 2, 10)],
        "one": ["frame_1.png", "frame_2.png", "cover.png"],
    }.items():
        (root / clip).mkdir(parents=True)
        for name in names:
            (root / clip / name).write_bytes(png(picture(3)))
    reason = "found 3 named cam1_*, 3 named cam2_*; put each series of images into a folder of its own"
    store = FolderStore(read_catalog(root))
    assert store.catalog.ids.tolist() == ["one"] and reason in store.damaged["mixed"]
    pack_into(tmp_path / "packed", root)
    (failed,) = json.loads((tmp_path / "packed" / "report.json").read_text())["failed"]
    assert failed["id"] == "mixed" and reason in failed["error"]
    with open_isolated(root / "mixed", timeout=60) as video, pytest.raises(VideoError, match="3 named cam1_"):
        len(video)


def test_single_images_beside_an_animation_are_reported(tmp_path: Path) -> None:
    from PIL import Image

    first, second = (Image.fromarray(picture(i)) for i in range(2))
    first.save(tmp_path / "a.webp", save_all=True, append_images=[second])
    first.save(tmp_path / "b.webp")
    found = find_clips(tmp_path)
    assert found.paths == ["a.webp"] and not found.folders
    assert found.skipped == [f"{tmp_path}: 1 image beside or above clips, taken for previews"]


def test_one_image_is_a_clip(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(picture(3)))
    assert find_clips(tmp_path / "photo.jpg").paths == ["photo.jpg"]
    assert find_clips(tmp_path).folders == {tmp_path.name}


def test_a_deep_tree_is_searched_to_its_end(tmp_path: Path) -> None:
    touch(tmp_path.joinpath(*["d"] * 200) / "a.mp4")
    assert find_clips(tmp_path).paths == ["/".join(["d"] * 200) + "/a.mp4"]


def test_names_that_clash_without_their_suffix_keep_it(tmp_path: Path) -> None:
    """One clash must not refuse the whole folder."""
    touch(
        *(
            tmp_path / name
            for name in ("clip.mp4", "clip.webm", "clip.mp4.webm", "clip.mp4.webm.avi", "other.mp4")
        )
    )
    ids = read_catalog(tmp_path).ids.tolist()
    assert len(set(ids)) == 5 and "other" in ids and {"clip.mp4", "clip.webm"} <= set(ids)
