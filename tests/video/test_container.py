"""Files that make FFmpeg open other files, and formats that are refused."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from tce.video.base import VideoUnreadable
from tce.video.open_video import open_video
from tests.helpers.hard_videos import encode, jpeg, numbers, picture, png


def playlist(target: str) -> str:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"


def concat(target: str) -> str:
    return f"ffconcat version 1.0\nfile '{target}'\n"


def dash(target: str) -> str:
    return (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>'
        f"{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    )


@pytest.mark.parametrize("write", [playlist, concat, dash])
@pytest.mark.parametrize("where", ["beside", "absolute", "parent", "url"])
@pytest.mark.parametrize("name", ["list.m3u8", "list.mp4", "list.mkv"])
def test_playlists_are_refused_by_name(
    write: Callable[[str], str], where: str, name: str, tmp_path: Path
) -> None:
    folder = tmp_path / "sub"
    folder.mkdir()
    secret = encode((tmp_path if where == "parent" else folder) / "secret.ts", "libx264", frames=4)
    target = {
        "beside": secret.name,
        "absolute": str(secret),
        "parent": "../secret.ts",
        "url": f"file:{secret}",
    }
    path = folder / name
    path.write_text(write(target[where]))
    for question in (len, lambda video: video.size, lambda video: list(video.stream())):
        with pytest.raises(VideoUnreadable) as raised:
            question(open_video(path))
        assert "a playlist (" in raised.value.found and "other files" in raised.value.found


def test_a_playlist_is_a_danger_without_the_white_list(tmp_path: Path) -> None:
    """FFmpeg itself opens the other file: the tests above do not pass for another reason."""
    secret = encode(tmp_path / "secret.ts", "libx264", frames=4)
    for write, name in ((playlist, "list.m3u8"), (concat, "list.mp4")):
        path = tmp_path / name
        path.write_text(write(secret.name))
        with av.open(str(path)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 4


def test_a_concat_script_with_a_million_entries_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "many.mp4"
    path.write_text("ffconcat version 1.0\n" + "file 'a.mp4'\n" * 1_000_000)
    with pytest.raises(VideoUnreadable, match="concat script"):
        len(open_video(path))


@pytest.mark.parametrize("name", ["frame%d.jpg", "frame%03d.png", "*.jpg"])
def test_a_name_that_looks_like_a_pattern_opens_no_image_sequence(name: str, tmp_path: Path) -> None:
    encoded = png if name.endswith("png") else jpeg
    for number in range(4):
        other = tmp_path / (name % number if "%" in name else f"{number}.jpg")
        other.write_bytes(encoded(picture(number)))
    path = tmp_path / name
    path.write_bytes(encoded(picture(9)))
    video = open_video(path)
    assert len(video) == 1 and numbers(video.frames([0])) == [9]


def with_external_data(movie: bytes, target: str) -> bytes:
    """A QuickTime file whose data reference is an alias of another file, which holds the samples."""

    def box(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(content), kind) + content

    path = target.encode() + b"\0" * (len(target) % 2)
    alias = bytes(4 + 10) + bytes([0]) + bytes(27 + 12) + bytes([0]) + bytes(63 + 16)
    alias += struct.pack(">HH", 1, 1) + bytes(16) + struct.pack(">hH", 2, len(path)) + path
    alias += struct.pack(">hH", -1, 0)
    dref = box(b"dref", bytes(4) + struct.pack(">I", 1) + box(b"alis", alias))

    def replaced(data: bytes) -> bytes:
        out, place = b"", 0
        while place < len(data):
            size, kind = struct.unpack(">I4s", data[place : place + 8])
            content = data[place + 8 : place + size]
            if kind in (b"moov", b"trak", b"mdia", b"minf", b"dinf"):
                out += box(kind, replaced(content))
            else:
                out += dref if kind == b"dref" else box(kind, content)
            place += size
        return out

    return replaced(movie)


def test_references_of_quicktime_files_are_not_followed(tmp_path: Path) -> None:
    movie = encode(tmp_path / "secret.mov", "libx264", frames=4, b_frames=0)
    path = tmp_path / "reference.mov"
    path.write_bytes(with_external_data(movie.read_bytes(), str(movie)))
    followed = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(str(path), options=followed) as container:  # the reference itself is right
        assert sum(1 for _ in container.decode(video=0)) == 4
    for question in (lambda video: video.size, lambda video: list(video.stream())):
        with pytest.raises(VideoUnreadable):
            question(open_video(path))


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n", "SDP"),
        (b"[playlist]\nFile1=a.mp4\n", "PLS"),
        (b"notes, not a video\n", "text"),
        (b"", "an empty file"),
    ],
)
def test_what_else_a_file_may_be(content: bytes, found: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoUnreadable) as raised:
        len(open_video(path))
    assert found in raised.value.found
