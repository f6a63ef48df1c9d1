"""Video files that are hard to read, generated for the tests. Each frame shows its number, after any codec.

`make_all(folder)` writes one of each; `FILES` and `FOLDERS` state what is expected of each.
"""

from __future__ import annotations

import io
import struct
import wave
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 64, 48
ROWS, COLUMNS = 4, 5  # cells of a frame: three marks and 17 bits
FRAMES = 24
RATE = 25


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A frame uint8 [H, W, 3] that shows `number` as black and white cells."""
    bits = [1, 1, 0] + [number >> bit & 1 for bit in range(17)]  # the marks tell a turned frame
    cells = np.array(bits, np.uint8).reshape(ROWS, COLUMNS) * 200 + 28
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    return np.repeat(cells[rows][:, columns, None], 3, axis=2)


def number(image: np.ndarray) -> int:
    """The number that a frame uint8 [H, W, 3] shows; -1 if it shows none."""
    height, width = image.shape[:2]
    rows = (np.arange(ROWS) * 2 + 1) * height // (2 * ROWS)
    columns = (np.arange(COLUMNS) * 2 + 1) * width // (2 * COLUMNS)
    cells = image.mean(axis=2)[rows][:, columns].ravel() > 128
    if list(cells[:3]) != [True, True, False]:
        return -1
    return int(sum(1 << bit for bit in range(17) if cells[3 + bit]))


def numbers(images: np.ndarray) -> list[int]:
    """The numbers that frames uint8 [n, H, W, 3] show."""
    return [number(image) for image in images]


def streamed(video: Any, **how: int) -> tuple[np.ndarray, np.ndarray]:
    """All indices [n] and frames [n, H, W, 3] that a video's stream yields."""
    indices, frames = zip(*video.stream(**how))
    return np.concatenate(indices), np.concatenate(frames)


def readable(video: Any) -> dict[int, np.ndarray]:
    """The frames [H, W, 3] by number that a damaged video's stream yields before its error."""
    from tce.video.base import VideoTruncated

    found: dict[int, np.ndarray] = {}
    try:
        for indices, frames in video.stream():
            found.update(zip(indices.tolist(), frames))
    except VideoTruncated:
        pass
    return found


def encode(
    path: Path,
    codec: str,
    frames: int = FRAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixels: str = "yuv420p",
    container: str | None = None,
    stamps: Callable[[int], int] = lambda i: i,
    base: Fraction = Fraction(1, RATE),
    first: int = 0,
    gop: int = 8,
    b_frames: int | None = None,
    muxer: dict[str, str] | None = None,
    rotation: int = 0,
    rate: int = RATE,
    **options: str,
) -> Path:
    """Write `frames` numbered frames with one codec; `stamps` gives each its time in units of `base`."""
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt, stream.gop_size = pixels, gop
        stream.codec_context.time_base = base
        stream.time_base = base
        stream.codec_context.thread_count = 1
        stream.options = options
        if b_frames is not None:
            stream.max_b_frames = b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        for i in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(first + i, *size), "rgb24")
            frame = frame.reformat(format=pixels)
            frame.pts, frame.time_base = stamps(i), base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return path


def packets(path: Path) -> tuple[Any, list[Any]]:
    """The video stream of a file (kept open) and all its packets."""
    source = av.open(str(path))
    stream = source.streams.video[0]
    return stream, [packet for packet in source.demux(stream) if packet.size]


def remux(source: Path, path: Path, keep: Callable[[int, Any], bool] = lambda i, packet: True) -> Path:
    """Copy the packets of `source` that `keep` chooses into another file."""
    stream, taken = packets(source)
    with av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(stream)
        for i, packet in enumerate(taken):
            if keep(i, packet):
                packet.stream = copy
                output.mux(packet)
    return path


def jpeg(image: np.ndarray, mode: str = "RGB", **options: Any) -> bytes:
    """A frame uint8 [H, W, 3] as JPEG."""
    data = io.BytesIO()
    Image.fromarray(image).convert(mode).save(data, "JPEG", quality=90, **options)
    return data.getvalue()


def png(image: np.ndarray) -> bytes:
    """A frame uint8 [H, W, 3] as PNG."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


def gif(path: Path, width: int, height: int, frames: int = 3) -> Path:
    """A GIF whose header declares a canvas of that size; each frame draws one pixel of it."""
    data = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    frame = b"\x21\xf9\x04\0\x04\0\0\0" + b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0"
    data += (frame + b"\x02\x02\x44\x01\0") * frames + b"\x3b"
    path.write_bytes(data)
    return path


# Files that want more than an encoder's options


def asp_packed(path: Path) -> Path:
    """MPEG-4 ASP in AVI with packed B-frames, as DivX and XviD wrote it and UCF101 has it.

    A P-frame and the B-frame shown before it share a packet; a placeholder follows where the B-frame was.
    """
    plain = encode(path.with_suffix(".plain.avi"), "mpeg4", b_frames=1, gop=12)
    stream, taken = packets(plain)
    marker = b"\x00\x00\x01\xb2DivX503b1393p"  # user data that announces packing
    with av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(stream)
        data = [bytes(packet) for packet in taken]
        place = 0
        while place < len(data):
            follows_b = place + 1 < len(data) and is_b_vop(data[place + 1])
            parts = [data[place] + data[place + 1], b"\x00\x00\x01\xb6\x7f"] if follows_b else [data[place]]
            for part in parts:
                start = part.find(b"\x00\x00\x01\xb6") if place == 0 and part is parts[0] else -1
                packet = av.Packet(part[:start] + marker + part[start:] if start >= 0 else part)
                packet.stream, packet.time_base = copy, Fraction(1, RATE)
                packet.dts = packet.pts = place
                packet.is_keyframe = taken[place].is_keyframe and part is parts[0]
                output.mux(packet)
                place += 1
    plain.unlink()
    return path


def is_b_vop(data: bytes) -> bool:
    """Whether MPEG-4 data holds a B-frame: the two bits after its start code say 2."""
    start = data.find(b"\x00\x00\x01\xb6")
    return start >= 0 and data[start + 4] >> 6 == 2


def cut(source: Path, path: Path, share: float) -> Path:
    """The first `share` of the file's bytes."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def truncated(path: Path) -> Path:
    """An MP4 with its index in front that lacks its end."""
    whole = encode(path.with_suffix(".whole.mp4"), "libx264", muxer={"movflags": "faststart"}, crf="1")
    cut(whole, path, 0.85)
    whole.unlink()
    return path


def header_cut(path: Path) -> Path:
    """An MP4 with its index behind, cut before it."""
    whole = encode(path.with_suffix(".whole.mp4"), "libx264")
    cut(whole, path, 0.4)
    whole.unlink()
    return path


def no_key_at_start(path: Path, codec: str = "libx264") -> Path:
    """A recording that begins in the middle of a scene: the first three packets are gone."""
    whole = encode(path.with_suffix(".whole" + path.suffix), codec, frames=32, gop=8)
    remux(whole, path, lambda i, packet: i >= 3)
    whole.unlink()
    return path


def no_key_at_all(path: Path) -> Path:
    """A stream that has lost its only key frame; what is shown is grey with traces of motion."""
    whole = encode(path.with_suffix(".whole" + path.suffix), "mpeg4", gop=1000)
    remux(whole, path, lambda i, packet: i >= 1)
    whole.unlink()
    return path


def sizes_change(path: Path) -> Path:
    """MJPEG whose frames become larger half way."""
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("mjpeg", rate=RATE)
        stream.width = WIDTH
        stream.height = HEIGHT
        stream.pix_fmt = "yuvj420p"
        for i in range(FRAMES):
            scale = 1 if i < FRAMES // 2 else 2
            packet = av.Packet(jpeg(picture(i, WIDTH * scale, HEIGHT * scale)))
            packet.stream = stream
            packet.time_base = Fraction(1, RATE)
            packet.is_keyframe = True
            packet.pts = packet.dts = i
            output.mux(packet)
    return path


def sizes_change_h264(path: Path) -> Path:
    """Two H.264 streams of different sizes, one behind the other in a transport stream."""
    parts = [
        encode(path.with_suffix(f".{part}.ts"), "libx264", frames=12, size=size, first=12 * part)
        for part, size in enumerate([(WIDTH, HEIGHT), (2 * WIDTH, 2 * HEIGHT)])
    ]
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    for part in parts:
        part.unlink()
    return path


def audio_only(path: Path) -> Path:
    """A tenth of a second of silence."""
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return path


def cover_picture(path: Path) -> Path:
    """A song with a cover picture, which FFmpeg shows as a video stream of one frame."""
    with av.open(str(path), "w") as output:
        sound: Any = output.add_stream("aac", rate=8000)
        sound.layout = "mono"
        cover: Any = output.add_stream("mjpeg", rate=RATE)
        cover.width = WIDTH
        cover.height = HEIGHT
        cover.pix_fmt = "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        packet = av.Packet(jpeg(picture(0)))
        packet.stream = cover
        packet.pts = 0
        packet.dts = 0
        packet.time_base = Fraction(1, RATE)
        packet.is_keyframe = True
        output.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate, frame.pts = 8000, 0
        output.mux(sound.encode(frame))
        output.mux(sound.encode())
    return path


def text(path: Path) -> Path:
    """Plain text."""
    path.write_text("These are not the frames you are looking for.\n" * 40)
    return path


def empty(path: Path) -> Path:
    """Zero bytes."""
    path.touch()
    return path


@dataclass(frozen=True)
class Hard:
    """One video or folder of images that is hard to read.

    Attributes:
        name: file or folder name.
        make: writes it at a path.
        shows: the numbers that its frames show, in order; None where they cannot be read.
        size: height and width as shown.
        turn: quarter turns counter-clockwise by which frames are turned when shown.
        error: name of the error that opening or streaming it raises; "" if none.
    """

    name: str
    make: Callable[[Path], Path]
    shows: list[int] | None = None
    size: tuple[int, int] = (HEIGHT, WIDTH)
    turn: int = 0
    error: str = ""


def _made(name: str, codec: str, shows: list[int] | None = None, turn: int = 0, **how: Any) -> Hard:
    width, height = how.get("size", (WIDTH, HEIGHT))
    size = (width, height) if turn % 2 else (height, width)
    shows = list(range(how.get("frames", FRAMES))) if shows is None else shows
    return Hard(name, lambda path: encode(path, codec, **how), shows, size, turn)


_MILLI = Fraction(1, 1000)
_ALL = list(range(FRAMES))
_X264_OPEN_GOP = {"x264-params": "open-gop=1:keyint=8:min-keyint=8:scenecut=0"}

FILES = [
    _made("ten_bit.mp4", "libx264", pixels="yuv420p10le"),
    _made("hevc_ten_bit.mp4", "libx265", pixels="yuv420p10le", **{"x265-params": "log-level=none"}),
    _made("gray.mkv", "ffv1", pixels="gray"),
    _made("alpha.mov", "qtrle", pixels="argb"),
    _made("odd.webm", "libvpx-vp9", size=(63, 47)),
    _made("odd.mkv", "ffv1", size=(61, 45)),
    _made("rotated_90.mp4", "libx264", turn=1, rotation=90),
    _made("rotated_180.mp4", "libx264", turn=2, rotation=180),
    _made("rotated_270.mp4", "libx264", turn=3, rotation=-90),
    _made("variable_rate.mp4", "libx264", stamps=lambda i: 7 * i * i, base=_MILLI),
    _made("variable_rate.mkv", "libx264", stamps=lambda i: 7 * i * i, base=_MILLI),
    _made(
        "negative_start.mov",
        "libx264",
        stamps=lambda i: i - 5,
        b_frames=0,
        muxer={"use_editlist": "0", "avoid_negative_ts": "disabled"},
    ),
    _made(
        "negative_start.mkv",
        "libx264",
        stamps=lambda i: i - 5,
        b_frames=0,
        muxer={"avoid_negative_ts": "disabled"},
    ),
    _made("edit_list.mp4", "libx264", _ALL[5:], stamps=lambda i: i - 5, b_frames=0),
    _made("no_timestamps.h264", "libx264"),
    _made("wrong_timestamps.avi", "libx264", b_frames=3),
    _made("b_frames.mp4", "libx264", b_frames=3),
    _made("open_gop.mkv", "libx264", b_frames=3, **_X264_OPEN_GOP),
    _made("interlaced.mp4", "libx264", **{"x264-params": "tff=1"}),
    _made("interlaced.mpg", "mpeg2video", flags="+ildct+ilme"),
    _made("asp.avi", "mpeg4", b_frames=2),
    Hard("asp_packed.avi", asp_packed, _ALL),
    _made("vp8.webm", "libvpx", **{"auto-alt-ref": "1", "lag-in-frames": "10"}),
    _made("vp9.webm", "libvpx-vp9"),
    _made("av1.mp4", "libsvtav1", size=(64, 64)),
    _made("mjpeg.avi", "mjpeg", pixels="yuvj420p"),
    _made("animation.gif", "gif", pixels="rgb8"),
    _made("windows.wmv", "msmpeg4"),
    _made("flash.flv", "libx264"),
    _made("one_frame.mp4", "libx264", frames=1),
    Hard("no_key_at_start.mkv", no_key_at_start, list(range(8, 32))),
    Hard("no_key_at_start.ts", no_key_at_start, list(range(8, 32))),
    Hard("no_key_at_start.avi", lambda path: no_key_at_start(path, "mpeg4"), list(range(8, 32))),
    Hard("no_key_at_all.avi", no_key_at_all, None),
    Hard("sizes_change.mkv", sizes_change, _ALL),
    Hard("sizes_change.ts", sizes_change_h264, _ALL),
    Hard("truncated.mp4", truncated, None, error="VideoTruncated"),
    Hard("header_cut.mp4", header_cut, None, error="VideoUnreadable"),
    Hard("audio_only.wav", audio_only, None, error="VideoUnreadable"),
    Hard("cover_picture.mp4", cover_picture, None, error="VideoUnreadable"),
    Hard("zero_bytes.mp4", empty, None, error="VideoUnreadable"),
    Hard("text.mp4", text, None, error="VideoUnreadable"),
    Hard("text.ans", text, None, error="VideoUnreadable"),
]


def _folder(
    names: Callable[[int], str], encoded: Callable[[int], bytes], extra: dict[str, bytes] | None = None
):
    def make(path: Path) -> Path:
        path.mkdir()
        for i in range(12):
            (path / names(i)).write_bytes(encoded(i))
        for name, data in (extra or {}).items():
            (path / name).write_bytes(data)
        return path

    return make


def _plain(i: int) -> bytes:
    return jpeg(picture(i))


_TWELVE = list(range(12))

FOLDERS = [
    Hard("one_based", _folder(lambda i: f"frame{i + 1:06d}.jpg", _plain), _TWELVE),
    Hard("zero_based_unpadded", _folder(lambda i: f"{i}.jpg", _plain), _TWELVE),
    Hard("gaps", _folder(lambda i: f"img_{i * i:05d}.jpg", _plain), _TWELVE),
    Hard(
        "mixed_sizes",
        _folder(lambda i: f"{i:03d}.jpg", lambda i: jpeg(picture(i, WIDTH + 8 * (i % 3), HEIGHT + 4 * i))),
        _TWELVE,
    ),
    Hard(
        "mixed_formats",
        _folder(
            lambda i: f"{i:03d}.{'png' if i % 2 else 'jpg'}",
            lambda i: png(picture(i)) if i % 2 else _plain(i),
        ),
        _TWELVE,
    ),
    Hard("cmyk", _folder(lambda i: f"{i:03d}.jpg", lambda i: jpeg(picture(i), "CMYK")), _TWELVE),
    Hard("gray", _folder(lambda i: f"{i:03d}.jpg", lambda i: jpeg(picture(i), "L")), _TWELVE),
    Hard(
        "progressive",
        _folder(lambda i: f"{i:03d}.jpg", lambda i: jpeg(picture(i), progressive=True)),
        _TWELVE,
    ),
    Hard(
        "other_files",
        _folder(
            lambda i: f"{i:03d}.JPG", _plain, {"Thumbs.db": b"x", "notes.txt": b"x", ".hidden.jpg": b"x"}
        ),
        _TWELVE,
    ),
    Hard(
        "damaged_image",
        _folder(lambda i: f"{i:03d}.jpg", lambda i: _plain(i)[: 300 if i == 5 else None]),
        None,
        error="VideoTruncated",
    ),
    Hard(
        "text_as_image",
        _folder(lambda i: f"{i:03d}.jpg", lambda i: b"text" if i == 5 else _plain(i)),
        None,
        error="VideoTruncated",
    ),
]


def make_all(folder: Path) -> Iterator[tuple[Hard, Path]]:
    """Write one of each into `folder`."""
    for hard in [*FILES, *FOLDERS]:
        yield hard, hard.make(folder / hard.name)
