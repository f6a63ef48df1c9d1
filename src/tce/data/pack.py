"""`tce pack`: footage into a collection; resumed at any moment, and a bad file costs only itself."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tce.data.listing import compose
from tce.errors import OptionError, TceError
from tce.io import Result, write_json
from tce.options.pack import PackOptions
from tce.progress import Progress

if TYPE_CHECKING:
    from tce.data.catalog import Catalog
    from tce.data.writer import CollectionWriter
    from tce.video.pool import DecodePool

__all__ = ["PackOptions", "pack"]

log = logging.getLogger("tce.data")

FIXED = ("short_side", "quality", "every", "fps", "clip_seconds", "split_scenes", "keep_damaged")
"""Options that decide what frames look like: one collection, one value."""

FIRST = 20  # clips after which packing stops if all of them failed: the decoder or the path is wrong then


def pack(options: PackOptions, catalog: Catalog | None = None) -> Result:
    """Pack footage into a collection, or resume a packing that was interrupted.

    Clips are committed in the catalog's order, in batches; footage that fails is named in `report.json` and
    in the table, and not tried again unless `replace` asks for it.

    Args:
        options: footage, collection and how to encode.
        catalog: the clips of the footage, where they are known already; read if not given.

    Raises:
        OptionError: options that contradict those the collection was made with.
        TceError: no footage that can be decoded, a place that cannot be written, another writer at work.
    """
    from tce.data.collection import is_remote
    from tce.data.pack_report import dry_run, report
    from tce.data.read_catalog import read_catalogs
    from tce.data.segment import cut_catalog
    from tce.data.writer import CollectionWriter
    from tce.video.pool import DecodePool

    if is_remote(options.out):
        fix = "pack into a folder and copy it there"
        raise OptionError("--out", expected="a folder of this machine", found=options.out, fix=fix)
    out = Path(options.out)
    if catalog is None:
        catalog = read_catalogs(options.footage, options.lists, options.split)
    manifest = _open_manifest(out, options, catalog)
    with DecodePool(options.workers or 0, options.timeout) as pool:
        if options.dry_run:
            return dry_run(catalog, options, pool)
        if manifest.complete and not options.replace and not _anything_new(catalog, out, options):
            return report(catalog, out)
        with CollectionWriter(out) as writer:
            if manifest.starts_over:
                writer.clear_failed()
                (out / "cuts.json").unlink(missing_ok=True)
            manifest.write(complete=False)
            try:
                catalog = cut_catalog(catalog, options, out, pool)
                _pack_rows(catalog, options, writer, pool)
                writer.finish(keep_old=manifest.was_complete)
            except KeyboardInterrupt:
                done = sum(name in writer.known and name not in writer.waiting for name in catalog.ids)
                raise KeyboardInterrupt(
                    f"interrupted: {done} of {len(catalog)} clips are packed; the same command resumes"
                ) from None
            manifest.write(complete=True)
    return report(catalog, out)


class _Manifest:
    """The fixed options and the footage of a collection, old or about to be made.

    Attributes:
        complete: whether all footage named so far has been packed.
        was_complete: whether the collection was ever complete, so that someone may be reading it.
        starts_over: whether what an earlier packing left behind, without a single clip, is to be given up.
    """

    def __init__(self, path: Path, content: dict[str, Any], complete: bool, starts_over: bool = False):
        self._path = path
        self._content = content
        self.complete = complete
        self.was_complete = bool(content.get("was_complete"))
        self.starts_over = starts_over

    def write(self, complete: bool) -> None:
        """Write `options.json`."""
        self._content |= {"complete": complete, "was_complete": self.was_complete or complete}
        write_json(self._path, self._content)
        self.complete = complete


def _open_manifest(out: Path, options: PackOptions, catalog: Catalog) -> _Manifest:
    """The manifest of the collection `out` with the footage of `options`; nothing is written.

    A collection without a single packed clip, which a failed packing leaves, takes any options and footage.

    Raises:
        OptionError: the options contradict those that the collection was made with.
    """
    from tce import __version__
    from tce.data.collection import STORAGE_VERSION, holds_clips, is_collection, read_options

    given = {name: getattr(options, name) for name in FIXED}
    addition: dict[str, Any] = {
        "footage": [os.path.abspath(place) for place in options.footage],
        "lists": None if options.lists is None else os.path.abspath(options.lists),
        "split": options.split if options.lists is not None else None,
    }
    new = {"pack": given, "additions": [addition], "classes": catalog.classes}
    new |= {"tce": __version__, "lance": STORAGE_VERSION}
    old = read_options(out) if is_collection(out) else {}
    if not old:
        return _Manifest(out / "options.json", new, False)
    additions = list(old["additions"])
    # The lists may be others: readers take labels and splits from the lists that they are given.
    known_videos = addition["footage"] in [other["footage"] for other in additions]
    differing = [name for name, value in old["pack"].items() if name in given and given[name] != value]
    if (differing or not known_videos) and not holds_clips(out):
        return _Manifest(out / "options.json", new, False, starts_over=True)
    if differing:
        name = differing[0]
        flag = f"--{name.replace('_', '-')}"
        raise OptionError(
            f"--out {out}",
            expected=f"{_with_flag(flag, old['pack'][name])}, as when it was made",
            found=_with_flag(flag, given[name]),
            fix="give the same value, or another --out",
        )
    if known_videos:
        return _Manifest(out / "options.json", old, bool(old.get("complete")))
    if not options.add:
        raise OptionError(
            f"--out {out}",
            expected=f"a collection of {', '.join(addition['footage'])}",
            found=f"one of {', '.join(place for other in additions for place in other['footage'])}",
            fix="--add adds to it; or name another folder",
        )
    classes = [*old["classes"], *(name for name in catalog.classes if name not in old["classes"])]
    content = old | {"additions": [*additions, addition], "classes": classes}
    return _Manifest(out / "options.json", content, False)


def _with_flag(flag: str, value: object) -> str:
    """A flag with its value, as one would type it."""
    if value is True:
        return flag
    return f"no {flag}" if value is None or value is False else f"{flag} {value}"


def _anything_new(catalog: Catalog, out: Path, options: PackOptions) -> bool:
    """Whether there is footage of which the collection holds nothing."""
    from tce.data.collection import known_clips

    known = known_clips(out)
    cutting = options.clip_seconds is not None or options.split_scenes
    paths = {clip.path for clip in known.values()} if cutting else set()  # pieces have names of their own
    return any(
        name not in known and path not in paths for name, path in zip(catalog.ids, catalog.paths, strict=True)
    )


def _wanted_rows(catalog: Catalog, options: PackOptions, writer: CollectionWriter) -> list[int]:
    """Rows of the catalog to pack: new clips, and those to pack again.

    Of these, clips of which nothing good is stored lose their rows here, others once they are packed again.

    Raises:
        OptionError: `only` names a clip that is not there, or an id is taken by other footage.
    """
    ids, paths = catalog.ids.tolist(), catalog.paths.tolist()
    spelled = (
        {**{compose(name): name for name in ids}, **{name: name for name in ids}} if options.only else {}
    )
    only = {spelled.get(name, spelled.get(compose(name), name)) for name in options.only}
    unknown = sorted(only - spelled.keys())
    if unknown:
        raise OptionError(
            "--only",
            expected=f"ids of clips, such as {ids[0]!r}",
            found=repr(unknown[0]),
            fix="check the spelling",
        )
    rows = [row for row, name in enumerate(ids) if not only or name in only]
    if options.replace:
        damaged = writer.damaged()
        again = [
            ids[row]
            for row in rows
            if options.only or ids[row] in damaged or _stale(writer, ids[row], paths[row])
        ]
        useless = [name for name in again if name in damaged or writer.failed(name)]
        writer.remove(useless)
        writer.replace(set(again) - set(useless))
    for row in rows:
        known = writer.known.get(ids[row])
        if known is not None and known.path != paths[row] and ids[row] not in writer.waiting:
            raise OptionError(
                "--add" if options.add else f"--out {options.out}",
                expected="clips with ids of their own",
                found=f"{ids[row]!r} for {known.path} and for {paths[row]}",
                fix="pack from a folder above both, or --replace the old one",
            )
    return [row for row in rows if ids[row] not in writer.known or ids[row] in writer.waiting]


def _stale(writer: CollectionWriter, name: str, path: str) -> bool:
    """Whether a clip failed when it was packed, or its footage has changed since."""
    from tce.data.encode import modified_at

    known = writer.known.get(name)
    if known is None:
        return False
    if writer.failed(name) or known.path != path:
        return True
    try:
        return modified_at(path) != known.modified
    except OSError:
        return False  # it is gone: what was packed is the better copy


def _pack_rows(catalog: Catalog, options: PackOptions, writer: CollectionWriter, pool: DecodePool) -> None:
    """Encode the clips wanted and add them to the collection, in order."""
    from tce.data.encode import Encoding, Job, encode_clip

    fresh = all(map(writer.failed, writer.known))  # nothing that was packed speaks for decoder and path
    rows = _wanted_rows(catalog, options, writer)
    encoding = Encoding.of(options)
    jobs = (Job(clip.path, encoding, clip.start, clip.end) for clip in map(catalog.__getitem__, rows))
    done = 0 if options.only else len(catalog) - len(rows)
    if done and rows:
        log.info("%d of %d clips are packed already", done, len(catalog))
    failures: list[TceError] = []
    with Progress(done + len(rows), "packing", "clip", done=done) as progress:
        for count, (row, (_, parts)) in enumerate(zip(rows, pool.stream(encode_clip, jobs), strict=True), 1):
            error = _add_clip(_columns(catalog, row), parts, writer)
            if error is not None:
                failures.append(error)
            if len(failures) < count:
                fresh = False  # something decodes
            if fresh and (count == len(rows) or (count == FIRST and not options.keep_going)):
                _stop_hopeless(failures, count, len(rows), catalog, writer)
            if not fresh:
                writer.commit_if_due()
            progress.update(1, **({"failed": len(failures)} if failures else {}))


def _add_clip(row: dict[str, Any], parts: Any, writer: CollectionWriter) -> TceError | None:
    """Add one clip out of its parts; the error if it failed."""
    from tce.data.encode import Summary
    from tce.data.pack_report import name_once

    try:
        for part in parts:
            if isinstance(part, Summary):
                writer.add_clip(row, part, part.damage)
                return None
            writer.add_frames(row["id"], part)
    except TceError as error:
        if not _of_video(error):
            raise
        log.warning("skipped %s", name_once(row["id"], row["path"], str(error)))
        writer.add_clip(row, None, str(error))
        return error
    raise AssertionError("a clip's parts end with its summary")


def _of_video(error: TceError) -> bool:
    """Whether the footage is at fault, rather than the options or the disk."""
    from tce.video.base import VideoError

    return isinstance(error, VideoError)


def _columns(catalog: Catalog, row: int) -> dict[str, Any]:
    clip = catalog[row]
    names = ("id", "path", "label", "split", "group", "source", "start", "end")
    return {name: getattr(clip, name) for name in names}


def _stop_hopeless(
    failures: list[TceError], count: int, wanted: int, catalog: Catalog, writer: CollectionWriter
) -> None:
    """Stop, as no clip could be decoded. All are forgotten, so that the same command tries them again."""
    from tce.data.pack_report import write_report

    write_report(catalog, writer.folder, writer.known)
    writer.discard()
    if wanted == 1:
        raise failures[0]
    error = failures[0]
    raise TceError(
        f"none of the {'first ' if count < wanted else ''}{count} clips can be decoded",
        found=f"{error.found}, of {error.what}" if error.found else str(error),
        fix=f"check the path and the files ({writer.folder / 'report.json'} names them)"
        + ("; or pack the others with --keep-going" if count < wanted else ""),
    )
