"""Finding the clips in a tree of folders: video files, and folders that hold a clip's frames."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from tce.errors import TceError

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (  # noqa: SIM905 (forty quoted words read worse)
        "mp4 m4v mov qt avi divx mkv webm mpg mpeg mpe m2v mp2v ts mts m2ts vob wmv asf flv f4v 3gp 3g2 ogv "
        "gif apng mxf dv y4m 264 h264 265 h265 hevc ivf nut mjpeg mjpg rm rmvb"
    ).split()
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))


@dataclass
class Footage:
    """What a walk through a tree of folders found.

    Attributes:
        root: the folder, or the folder of the one file.
        paths: video files and frame folders, relative to `root`, sorted.
        folders: those of `paths` that are frame folders.
        skipped: what could not be looked at or was left out, each with its reason.
    """

    root: str
    paths: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)

    def stem(self, path: str) -> str:
        """The path without the suffix of a video file; a frame folder's name has none."""
        return path if path in self.folders else os.path.splitext(path)[0]


def is_video(name: str) -> bool:
    """Whether the name is that of a video file, by its suffix; hidden files are none."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(".")


def is_image(name: str) -> bool:
    """Whether the name is that of a frame, by its suffix; hidden files are none."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not name.startswith(".")


def find_footage(data: str | os.PathLike[str]) -> Footage:
    """All clips in a folder, at any depth; or the one file.

    A folder that holds images is one clip, its frames; unless there are videos beside the images or footage
    below them: then the images are taken for previews, left out, and said so. Symbolic links are followed,
    but not round in circles. Hidden files and folders are left out.

    Args:
        data: a folder, or a video file.

    Raises:
        TceError: nothing is there, or no footage is in it.
    """
    root = os.fspath(data)
    if os.path.isfile(root):
        folder, name = os.path.split(root)
        return Footage(folder or ".", [name])
    if not os.path.isdir(root):
        raise TceError(
            root, "a folder of videos or frame folders, or a video", "nothing there", "check the path"
        )
    found = Footage(root)
    _walk(found, "", [])
    if not found.paths:
        reason = f" ({found.skipped[0]})" if found.skipped else ""
        kinds = "video files (.mp4, .avi, ...) or folders of images (.jpg, .png, ...)"
        raise TceError(root, kinds, f"none{reason}", "check the path")
    found.paths.sort()
    if found.folders == {""}:  # the folder is itself one clip
        parent, name = os.path.split(os.path.abspath(root))
        return Footage(parent, [name], {name}, found.skipped)
    return found


def _walk(found: Footage, below: str, above: list[tuple[int, int]]) -> bool:
    """Collect the clips in one folder; whether there were any."""
    here = os.path.join(found.root, below) if below else found.root
    try:
        status = os.stat(here)
        with os.scandir(here) as listing:
            entries = sorted(listing, key=lambda entry: entry.name)
    except OSError as error:
        found.skipped.append(f"{here}: {error.strerror or error}")
        return False
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        found.skipped.append(f"{here}: a link back to a folder above it")
        return False
    images = 0
    before = len(found.paths)
    for entry in entries:
        path = os.path.join(below, entry.name)
        if entry.name.startswith("."):
            continue
        if not _is_text(entry.name):
            found.skipped.append(f"{os.path.join(here, entry.name)!a}: its name is not UTF-8")
        elif _is_folder(entry):
            _walk(found, path, [*above, identity])
        elif is_video(entry.name):
            found.paths.append(path)
        else:
            images += is_image(entry.name)
    if images and len(found.paths) > before:
        found.skipped.append(f"{here}: {images} images beside or above footage, taken for previews")
    elif images:
        found.paths.append(below)
        found.folders.add(below)
    return len(found.paths) > before


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere
        return False


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def label_folders(paths: Iterable[str]) -> tuple[list[str | None], list[str | None]]:
    """Labels and splits out of the folders that clips lie in.

    Folders that all clips share say nothing and are passed over; so is a first folder named train, val, test
    or the like, which gives the split. The next folder is the label. A clip in no folder has no label.

    Args:
        paths: clips, relative to the dataset's folder.

    Returns:
        labels and splits, one each a clip.
    """
    parts = [path.split(os.sep)[:-1] for path in paths]
    shared = parts[0][: _shared_depth(parts)] if parts else []
    parts = [folders[len(shared) :] for folders in parts]
    named = [SPLIT_NAMES[folder.lower()] for folder in shared if folder.lower() in SPLIT_NAMES]
    splits: list[str | None] = [named[0] if named else None] * len(parts)
    firsts = {folders[0].lower() if folders else "" for folders in parts}
    if firsts and firsts <= SPLIT_NAMES.keys():
        splits = [SPLIT_NAMES[folders[0].lower()] for folders in parts]
        parts = [folders[1:] for folders in parts]
    return [folders[0] if folders else None for folders in parts], splits


def _shared_depth(parts: list[list[str]]) -> int:
    """How many folders from the top all clips share."""
    first, last = min(parts), max(parts)  # what the two extremes share, all share
    same = (a == b for a, b in zip(first, last))
    return next((depth for depth, equal in enumerate(same) if not equal), min(len(first), len(last)))


SPLIT_NAMES = {
    name: split
    for split, names in (
        ("train", ("train", "training", "tr")),
        ("val", ("val", "valid", "validation", "validate", "dev")),
        ("test", ("test", "testing")),
    )
    for name in names
}
