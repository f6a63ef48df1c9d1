"""Finding the clips in a tree of folders: video files, and folders that hold a clip's frames."""

from __future__ import annotations

import os
import stat
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from tce.errors import TceError
from tce.video.folder import holds_several, is_image, without_flow

VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (  # noqa: SIM905 (forty quoted words read worse)
        "mp4 m4v mov qt avi divx mkv webm mpg mpeg mpe m2v mp2v ts mts m2ts vob wmv asf flv f4v 3gp 3g2 ogv "
        "gif apng mxf dv y4m 264 h264 265 h265 hevc ivf nut mjpeg mjpg rm rmvb"
    ).split()
)


@dataclass
class FoundClips:
    """What a search through a tree of folders found.

    Attributes:
        root: the folder, or the folder of the one file.
        paths: video files and frame folders, relative to `root`, sorted.
        folders: those of `paths` that are frame folders.
        skipped: what could not be read or was left out, with the reason; one line a reason.
    """

    root: str
    paths: list[str] = field(default_factory=list)
    folders: set[str] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)

    def stem(self, path: str) -> str:
        """The path without the suffix of a video file; a frame folder's name has none."""
        return path if path in self.folders else os.path.splitext(path)[0]


def is_video(name: str) -> bool:
    """Whether a file name has the suffix of a video; hidden files do not count."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES and not name.startswith(".")


def find_clips(data: str | os.PathLike[str]) -> FoundClips:
    """All clips in a folder, at any depth; or the one file.

    A folder that holds images is one clip, its frames; unless there are videos beside the images or clips
    below them: then the images are taken for previews and left out. Image files that hold several pictures (a
    TIFF's pages, an animated WebP or PNG) are clips of their own. Symbolic links are followed, but every
    folder is visited once. Hidden files and folders, and what is no regular file, are left out.

    Args:
        data: a folder, or a video file.

    Raises:
        TceError: nothing is there, or no clips are in it.
    """
    root = os.fspath(data)
    if os.path.isfile(root):
        folder, name = os.path.split(root)
        return FoundClips(folder or ".", [name])
    if not os.path.isdir(root):
        found = "not a regular file" if os.path.exists(root) else "nothing there"
        raise TceError(root, "a folder of videos or frame folders, or a video", found, "check the path")
    search = _Search(root)
    search.walk()
    search.choose_frame_folders()
    clips = FoundClips(root, sorted(search.paths), search.folders, search.skipped.lines())
    if not clips.paths:
        reason = f" ({clips.skipped[0]})" if clips.skipped else ""
        kinds = "video files (.mp4, .avi, ...) or folders of images (.jpg, .png, ...)"
        raise TceError(root, kinds, f"none{reason}", "check the path")
    if clips.folders == {""}:  # the folder is itself one clip
        parent, name = os.path.split(os.path.abspath(root))
        return FoundClips(parent, [name], {name}, clips.skipped)
    return clips


class _Skipped:
    """Counts what was left out by its reason, so that a thousand cases of one reason are one line."""

    def __init__(self) -> None:
        self._examples: dict[str, str] = {}
        self._counts: dict[str, int] = defaultdict(int)

    def add(self, place: str, reason: str, detail: str = "") -> None:
        self._examples.setdefault(reason, f"{place}: {detail}{reason}")
        self._counts[reason] += 1

    def lines(self) -> list[str]:
        """A line for each reason, with the first place and the number of others."""
        return [
            line + (f" (and {self._counts[reason] - 1:,} more)" if self._counts[reason] > 1 else "")
            for reason, line in self._examples.items()
        ]


class _Search:
    """The search through the folders below `root`.

    Attributes:
        paths: clips found so far, relative to `root`.
        folders: those of them that are frame folders.
        skipped: what was left out.
    """

    def __init__(self, root: str):
        self.root = root
        self.paths: list[str] = []
        self.folders: set[str] = set()
        self.skipped = _Skipped()
        self._images: dict[str, list[str]] = {}  # folder -> names of the images in it

    def walk(self) -> None:
        """Visit every folder once: first along real folders, then along links to those not yet seen."""
        seen: set[tuple[int, int]] = set()
        real, links = deque([""]), deque[str]()
        while real or links:
            is_link = not real
            below = links.popleft() if is_link else real.popleft()
            here = self._place(below)
            try:
                status = os.stat(here)
                identity = (status.st_dev, status.st_ino)
                if identity in seen:
                    self.skipped.add(here, "a link to a folder that was searched already")
                    continue
                seen.add(identity)
                with os.scandir(here) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                self.skipped.add(here, error.strerror or str(error))
                continue
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                path = os.path.join(below, entry.name)
                if not _is_text(entry.name):
                    self.skipped.add(ascii(os.path.join(here, entry.name)), "its name is not UTF-8")
                elif _is_folder(entry):
                    (links if entry.is_symlink() else real).append(path)
                else:
                    self._take_file(below, path, entry)

    def _take_file(self, below: str, path: str, entry: os.DirEntry[str]) -> None:
        if is_image(entry.name):  # a frame that cannot be read is damage to its clip, not left out
            self._images.setdefault(below, []).append(entry.name)
        elif is_video(entry.name):
            reason = _irregular(entry)
            if reason:
                self.skipped.add(self._place(path), reason)
            else:
                self.paths.append(path)

    def choose_frame_folders(self) -> None:
        """Take each folder of images as a clip, unless there is a clip beside or below them."""
        self._take_paged_images()
        holding = {"", *(folder for path in self.paths for folder in _folders_above(path))}
        if not self.paths:
            holding = set()
        for below in sorted(self._images, key=lambda below: -below.count(os.sep) - bool(below)):
            names, here = self._images[below], self._place(below)
            if below in holding:
                self.skipped.add(here, "beside or above clips, taken for previews", _counted(len(names)))
                continue
            self.paths.append(below)
            self.folders.add(below)
            holding |= {"", *_folders_above(below)}
            _, flow = without_flow(names)
            if flow:
                self.skipped.add(here, "of optical flow beside the frames", _counted(len(flow)))

    def _take_paged_images(self) -> None:
        """Where a folder's first image holds several pictures, each image that does is a clip."""
        for below, names in list(self._images.items()):
            if not holds_several(self._place(os.path.join(below, names[0]))):
                continue  # the others are not opened: that would take long in folders of many frames
            paged = [name for name in names if holds_several(self._place(os.path.join(below, name)))]
            self.paths += [os.path.join(below, name) for name in paged]
            single = [name for name in names if name not in set(paged)]
            if single:
                self._images[below] = single
            else:
                del self._images[below]

    def _place(self, below: str) -> str:
        return os.path.join(self.root, below) if below else self.root


def _counted(images: int) -> str:
    return f"{images:,} image{'s' if images != 1 else ''} "


def _folders_above(path: str) -> list[str]:
    parts = path.split(os.sep)
    return [os.sep.join(parts[:depth]) for depth in range(1, len(parts))]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads nowhere, or round in a circle
        return False


def _irregular(entry: os.DirEntry[str]) -> str:
    """Why a directory entry is no file that can be read; empty for a regular file."""
    try:
        if entry.is_file():
            return ""
        return _KINDS.get(stat.S_IFMT(entry.stat().st_mode), "not a regular file")
    except FileNotFoundError:
        return "a link that leads nowhere"
    except OSError as error:
        return error.strerror or str(error)


_KINDS = {
    stat.S_IFIFO: "a named pipe, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


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
