"""Segments for other tools: a BORIS project, ELAN and Audacity files, and clips for `tce finetune`.

BORIS reads a project as JSON (format 7.0): a state event starts and stops with one entry each. ELAN reads
EAF, an XML of time slots and annotations (format 3.0), one file a video. Audacity reads label tracks: start,
end and label, separated by tabs.
"""

from __future__ import annotations

import itertools
import os
import re
import xml.etree.ElementTree as xml
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from tce.discovery.segment_table import Bout, BoutTable
from tce.errors import printable
from tce.io import atomic, write_csv, write_json

FOLDER = "exports"
BORIS_FORMAT = "7.0"
KEYS = "123456789abcdefghijklmnopqrstuvwxyz"  # a behaviour's key on the keyboard in BORIS
TEST_EVERY = 4  # recordings, or runs of segments of one recording: every fourth is for testing
EAF_SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"


def write_exports(folder: Path, table: BoutTable) -> list[str]:
    """Write exports/behaviours.boris, exports/elan/*.eaf, exports/audacity/*.txt and exports/labels.csv.

    Returns:
        their paths, folders for those with a file a video.
    """
    target = folder / FOLDER
    by_recording = [
        [bout for bout in table.bouts if bout.recording == number] for number in range(len(table.recordings))
    ]
    write_json(target / "behaviours.boris", boris_project(table, by_recording))
    names = file_names([one.name for one in table.recordings])
    for name, one, own in zip(names, table.recordings, by_recording, strict=True):
        labels = [table.behaviours[bout.behaviour].name for bout in own]
        with atomic(target / "audacity" / f"{name}.txt", "w") as file:
            for bout, label in zip(own, labels, strict=True):
                file.write(f"{bout.start:.6f}\t{bout.end:.6f}\t{_one_line(label)}\n")
        with atomic(target / "elan" / f"{name}.eaf") as file:
            file.write(elan_document(one.path, own, labels))
    with atomic(target / "labels.csv", "w") as file:
        write_csv(file, label_rows(table))
    return [str(target / name) for name in ("behaviours.boris", "elan", "audacity", "labels.csv")]


def file_names(names: Sequence[str]) -> list[str]:
    """A file name for each video: its own without folders and odd characters, numbered where that repeats."""
    found: list[str] = []
    for name in names:
        stem = (
            re.sub(r"[^\w.-]+", "_", os.path.splitext(name.replace(os.sep, "_"))[0])[-120:].strip(".")
            or "video"
        )
        different = next(
            one
            for one in itertools.chain([stem], (f"{stem}_{number}" for number in itertools.count(2)))
            if one.lower() not in {other.lower() for other in found}
        )
        found.append(different)
    return found


def boris_project(table: BoutTable, by_recording: Sequence[Sequence[Bout]]) -> dict[str, Any]:
    """A project with an observation a video; times are those of its file."""
    now = datetime.now().isoformat(timespec="seconds")
    behaviours = {
        str(number): {
            "type": "State event",
            "key": KEYS[number] if number < len(KEYS) else "",
            "code": _one_line(behaviour.name),
            "description": f"found by tce discover, cluster {behaviour.key}",
            "color": "",
            "category": "",
            "modifiers": {},
            "excluded": "",
            "coding map": "",
        }
        for number, behaviour in enumerate(table.behaviours)
    }
    observations = {}
    for one, seconds, own in zip(table.recordings, table.lengths, by_recording, strict=True):
        events: list[list[Any]] = []
        for bout in own:
            code = _one_line(table.behaviours[bout.behaviour].name)
            events += [[round(time, 3), "", code, "", ""] for time in (bout.start, bout.end)]
        path = printable(one.path)
        observations[printable(one.name)] = {
            "file": {"1": [path], **{str(number): [] for number in range(2, 9)}},
            "type": "MEDIA",
            "date": now,
            "description": "segments found by tce discover",
            "time offset": 0.0,
            "events": events,
            "observation time interval": [0, 0],
            "independent_variables": {},
            "visualize_spectrogram": False,
            "visualize_waveform": False,
            "close_behaviors_between_videos": False,
            "scan_sampling_time": 0,
            "media_info": {
                "length": {path: round(seconds, 3)},
                "fps": {path: round(_fps(own, seconds), 3)},
                "hasVideo": {path: True},
                "hasAudio": {path: False},
                "offset": {"1": 0.0},
            },
        }
    return {
        "time_format": "hh:mm:ss",
        "project_date": now,
        "project_name": "tce discover",
        "project_description": "",
        "project_format_version": BORIS_FORMAT,
        "subjects_conf": {},
        "behaviors_conf": behaviours,
        "observations": observations,
        "behavioral_categories": [],
        "independent_variables": {},
        "coding_map": {},
        "behaviors_coding_map": [],
        "converters": {},
    }


def _fps(own: Sequence[Bout], seconds: float) -> float:
    return own[-1].segment.stop / max(seconds, 1e-9) if own else 25.0


def elan_document(path: str, bouts: Sequence[Bout], labels: Sequence[str]) -> bytes:
    """An EAF file with one tier; times in milliseconds of the file."""
    xml.register_namespace("xsi", "http://www.w3.org/2001/XMLSchema-instance")
    root = xml.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "tce discover",
            "DATE": datetime.now().astimezone().isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "{http://www.w3.org/2001/XMLSchema-instance}noNamespaceSchemaLocation": EAF_SCHEMA,
        },
    )
    header = xml.SubElement(root, "HEADER", {"MEDIA_FILE": "", "TIME_UNITS": "milliseconds"})
    place = Path(os.path.abspath(path))
    media = {"MEDIA_URL": place.as_uri(), "MIME_TYPE": f"video/{place.suffix[1:].lower() or 'mp4'}"}
    xml.SubElement(header, "MEDIA_DESCRIPTOR", media)
    last = xml.SubElement(header, "PROPERTY", {"NAME": "lastUsedAnnotationId"})
    last.text = str(len(bouts))
    order = xml.SubElement(root, "TIME_ORDER")
    tier = xml.SubElement(root, "TIER", {"TIER_ID": "behaviour", "LINGUISTIC_TYPE_REF": "default-lt"})
    for number, (bout, label) in enumerate(zip(bouts, labels, strict=True)):
        slots = []
        for which, time in enumerate((bout.start, bout.end)):
            slots.append(f"ts{2 * number + which + 1}")
            at = str(round(time * 1000))
            xml.SubElement(order, "TIME_SLOT", {"TIME_SLOT_ID": slots[-1], "TIME_VALUE": at})
        annotation = xml.SubElement(tier, "ANNOTATION")
        named = {"ANNOTATION_ID": f"a{number + 1}", "TIME_SLOT_REF1": slots[0], "TIME_SLOT_REF2": slots[1]}
        aligned = xml.SubElement(annotation, "ALIGNABLE_ANNOTATION", named)
        xml.SubElement(aligned, "ANNOTATION_VALUE").text = _one_line(label)
    kind = {"GRAPHIC_REFERENCES": "false", "LINGUISTIC_TYPE_ID": "default-lt", "TIME_ALIGNABLE": "true"}
    xml.SubElement(root, "LINGUISTIC_TYPE", kind)
    xml.indent(root)
    return xml.tostring(root, encoding="utf-8", xml_declaration=True)


def label_rows(table: BoutTable) -> list[Sequence[Any]]:
    """Rows path, label, start, end, split and group, as `tce finetune --lists` reads them.

    Every fourth group, recording, or run of bouts of a single recording is for testing.
    """
    recordings = table.recordings
    parts = [one.group or one.name for one in recordings]
    order = {name: number for number, name in enumerate(dict.fromkeys(parts))}
    alone = len(order) == 1
    rows: list[Sequence[Any]] = [("path", "label", "start", "end", "split", "group")]
    for place, bout in enumerate(table.bouts):
        one = recordings[bout.recording]
        turn = place * 4 * TEST_EVERY // max(len(table.bouts), 1) if alone else order[parts[bout.recording]]
        split = "test" if turn % TEST_EVERY == TEST_EVERY - 1 else "train"
        start, end = np.round([bout.start, bout.end], 3).tolist()
        label = table.behaviours[bout.behaviour].name
        rows.append((printable(one.path), label, start, end, split, one.group))
    return rows


def _one_line(text: str) -> str:
    return printable(" ".join(text.split()))
