"""The command: three things that a square does, found, named, applied, exported; bad input in one line."""

from __future__ import annotations

import csv
import itertools
import json
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest

import tce
from tce.cli import main
from tce.data.read_catalog import read_catalog
from tce.embedding.embedding_file import Embeddings, load_embeddings, save_embeddings
from tce.errors import OptionError, TceError
from tce.video.open_video import open_video
from tce.video.synthetic import make_recordings, write_video

NET = {
    "ckpt": "random",
    "model": "tinynet:linear_in_pixels",
    "image_size": 32,
    "engine": "torch",
    "device": "cpu",
}
FAST = {"refits": 1, "examples": 3, "window": 0.8}
PLACES = {"left": (24, 2), "right": (24, 30), "top": (2, 16)}
PHASES = [
    [("left", 3.0), ("right", 2.5), ("top", 3.0), ("left", 2.0), ("right", 2.0)],
    [("top", 2.5), ("left", 3.0), ("top", 2.0), ("right", 3.0)],
    [("right", 3.0), ("top", 3.0), ("left", 3.5)],
]


def recording(path: Path, phases: list[tuple[str, float]], seed: int) -> list[tuple[float, float, str]]:
    """A square that trembles at one place after the other; where it was when."""
    rng = np.random.default_rng(seed)
    frames, spans, start = [], [], 0.0
    for label, seconds in phases:
        for _ in range(round(seconds * 10)):
            image = np.full((48, 48, 3), 30, np.uint8)
            top, left = (place + int(rng.integers(-1, 2)) for place in PLACES[label])
            image[top : top + 16, left : left + 16] = (230, 200, 60)
            frames.append(image)
        spans.append((start, start + seconds, label))
        start += seconds
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, np.stack(frames), 10)
    return spans


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage") / "videos"
    rows = ["video,start,end,label"]
    for number, phases in enumerate(PHASES):
        name = f"rec{number + 1}.mp4"
        rows += [f"{name},{a},{b},{label}" for a, b, label in recording(folder / name, phases, number)]
    (folder.parent / "labels.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def made(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("discovery") / "out"
    labels = videos.parent / "labels.csv"
    return out, tce.discover(videos, out=out, labels=labels, clusters=3, **NET, **FAST).figures


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def truth_at(video: str, time: float) -> str:
    for label, seconds in PHASES[int(Path(video).stem[3:]) - 1]:
        time -= seconds
        if time < 0:
            return label
    raise AssertionError("beyond the end")


def test_the_three_places_are_three_clusters(made: tuple[Path, dict]) -> None:
    out, figures = made
    assert figures["clusters"] == 3 and figures["videos"] == 3
    owner = {}
    for row in table(out / "segments.csv"):
        middle = (float(row["start"]) + float(row["end"])) / 2
        assert owner.setdefault(row["cluster"], truth_at(row["video"], middle)) == truth_at(
            row["video"], middle
        )
        assert 0.5 < float(row["confidence"]) <= 1
    assert sorted(owner.values()) == ["left", "right", "top"]
    scores = figures["labels"]["figures"]
    assert scores["found"]["accuracy"] > 0.93 and scores["found"]["f1@50"] == 1
    assert scores["chance"]["adjusted_rand"] < 0.4
    assert all(one["stable"] for one in figures["behaviours"])


def test_tables_add_up(made: tuple[Path, dict]) -> None:
    out, _ = made
    segments, by_video = table(out / "segments.csv"), {}
    for row in segments:
        by_video.setdefault(row["video"], []).append((float(row["start"]), float(row["end"]), row["cluster"]))
    for number, phases in enumerate(PHASES):
        own = by_video[f"rec{number + 1}.mp4"]
        assert own[0][0] == 0 and own[-1][1] == pytest.approx(sum(seconds for _, seconds in phases), abs=0.01)
        assert all(one[1] == two[0] and one[2] != two[2] for one, two in itertools.pairwise(own))
    bouts = {row["cluster"]: row for row in table(out / "bouts.csv")}
    for cluster, row in bouts.items():
        lengths = [
            end - start for those in by_video.values() for start, end, name in those if name == cluster
        ]
        assert int(row["bouts"]) == len(lengths)
        assert float(row["seconds"]) == pytest.approx(sum(lengths), abs=0.01)
        assert float(row["median"]) == pytest.approx(np.median(lengths), abs=0.01)
    pairs = [(one[2], two[2]) for those in by_video.values() for one, two in itertools.pairwise(those)]
    for row in table(out / "transitions.csv"):
        names = tuple(row[end].removeprefix("cluster ") for end in ("from", "to"))
        assert int(row["count"]) == pairs.count(names)
    for row in table(out / "budget.csv"):
        assert sum(float(row[f"cluster {name}"]) for name in bouts) == pytest.approx(1, abs=0.01)


def test_pictures_clips_and_page_are_there(made: tuple[Path, dict]) -> None:
    out, figures = made
    for name in ("ethogram", "durations", "transitions", "budget", "tree"):
        with open_video(out / f"{name}.png") as picture:
            assert min(picture.size) > 100
    page = (out / "index.html").read_text()
    for one in figures["behaviours"]:
        with open_video(one["film"]) as film:
            assert len(film) > 5
        assert Path(one["film"]).name in page
        with open_video(one["film"].replace(".mp4", ".png")) as sheet:
            assert sheet.size[1] > 500
    assert "<script" not in page and "http" not in page.split("</head>")[1]
    assert not list(out.rglob(".*"))


def test_exports_hold_the_same_segments(made: tuple[Path, dict], videos: Path) -> None:
    out, _ = made
    segments = [row for row in table(out / "segments.csv") if row["video"] == "rec1.mp4"]
    wanted = [(float(row["start"]), float(row["end"]), row["behaviour"]) for row in segments]
    lines = (out / "exports" / "audacity" / "rec1.txt").read_text().splitlines()
    found = [(float(a), float(b), name) for a, b, name in (line.split("\t") for line in lines)]
    assert [one[2] for one in found] == [one[2] for one in wanted]
    np.testing.assert_allclose([one[:2] for one in found], [one[:2] for one in wanted], atol=1e-3)
    root = xml.parse(out / "exports" / "elan" / "rec1.eaf").getroot()
    at = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE", "0")) for slot in root.iter("TIME_SLOT")}
    notes = [
        (at[one.get("TIME_SLOT_REF1")], at[one.get("TIME_SLOT_REF2")], one.findtext("ANNOTATION_VALUE"))
        for one in root.iter("ALIGNABLE_ANNOTATION")
    ]
    assert notes == [(round(1000 * a), round(1000 * b), name) for a, b, name in wanted]
    project = json.loads((out / "exports" / "behaviours.boris").read_text())
    events = project["observations"]["rec1.mp4"]["events"]
    assert [(one[0], two[0], one[2]) for one, two in zip(events[::2], events[1::2])] == wanted
    codes = {one["code"] for one in project["behaviors_conf"].values()}
    assert {event[2] for event in events} <= codes
    catalog = read_catalog(str(videos), lists=str(out / "exports" / "labels.csv"))
    labelled = [clip for clip in catalog if clip.label is not None]
    assert len(labelled) == len(table(out / "segments.csv"))
    assert set(catalog.classes) == {"cluster 1", "cluster 2", "cluster 3"}
    assert {clip.split for clip in labelled} == {"train"} or {clip.split for clip in labelled} == {
        "train",
        "test",
    }


def test_the_explorers_page_shows_the_segments(made: tuple[Path, dict], videos: Path, tmp_path: Path) -> None:
    from tests.helpers.chromium import page_data

    out, _ = made
    page = tmp_path / "page.html"
    given = {"table": out / "segments.csv", "output": page, "thumbnail": 0, "fps": 5}
    tce.explore(out / "embeddings.npz", **given)
    columns = {column["name"]: column for column in page_data(page)["columns"]}
    assert sorted(columns["cluster"]["names"]) == ["1", "2", "3"]
    assert set(columns["behaviour"]["names"]) == {"cluster 1", "cluster 2", "cluster 3"}


def rename(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    with (folder / "names.csv").open("w") as file:
        csv.writer(file).writerows([("cluster", "name", "split"), *rows])


def test_names_merge_and_split_and_all_files_follow(
    videos: Path, made: tuple[Path, dict], tmp_path: Path
) -> None:
    import shutil

    folder = tmp_path / "named"
    shutil.copytree(made[0], folder)
    rename(folder, [("1", "at the side", ""), ("2", "at the side", ""), ("3", "=top", "")])
    figures = tce.discover(folder, examples=1).figures
    assert [one["name"] for one in figures["behaviours"]] == ["at the side", "=top"]
    rows = table(folder / "segments.csv")
    assert {row["cluster"] for row in rows} == {"1+2", "3"}
    assert len(rows) < len(table(made[0] / "segments.csv"))
    assert all(
        one["cluster"] != two["cluster"]
        for one, two in itertools.pairwise(rows)
        if one["video"] == two["video"]
    )
    assert "at the side" in (folder / "index.html").read_text()
    assert (folder / "bouts.csv").read_text().splitlines()[2].startswith("'=top")  # no formula
    rename(folder, [("1", "a", "2"), ("2", "b", ""), ("3", "", "")])
    figures = tce.discover(folder, examples=0).figures
    names = {row["cluster"]: row["name"] for row in table(folder / "names.csv")}
    assert names == {"1a": "a a", "1b": "a b", "2": "b", "3": ""}
    assert figures["clusters"] == 4
    rename(folder, [("9", "x", "")])
    with pytest.raises(
        TceError, match=r"names.csv, line 2; expected one of the clusters 1a, 1b, 2, 3; found '9'"
    ):
        tce.discover(folder)


def test_a_discovery_is_applied_without_refitting(
    videos: Path, made: tuple[Path, dict], tmp_path: Path
) -> None:
    out, _ = made
    spans = recording(tmp_path / "new" / "rec9.mp4", [("right", 3.0), ("left", 2.0), ("top", 3.0)], 77)
    target = tmp_path / "applied"
    network = {name: value for name, value in NET.items() if name not in ("ckpt", "model", "image_size")}
    tce.discover(tmp_path / "new", apply=out, out=target, examples=1, **network)
    owner = {
        row["cluster"]: truth_at(row["video"], (float(row["start"]) + float(row["end"])) / 2)
        for row in table(out / "segments.csv")
    }
    rows = table(target / "segments.csv")
    assert [owner[row["cluster"]] for row in rows] == [label for _, _, label in spans]
    np.testing.assert_allclose([float(row["start"]) for row in rows], [one[0] for one in spans], atol=0.35)
    for name in ("model.npz",):
        with np.load(out / name) as one, np.load(target / name) as two:
            assert all(np.array_equal(one[key], two[key]) for key in one.files)
    with pytest.raises(TceError, match="the network that it was made with"):
        tce.discover(tmp_path / "new", apply=out, out=target, **(NET | {"model": "tinynet:small"}))


def test_embeddings_index_and_collection_give_the_same_segments(
    videos: Path, made: tuple[Path, dict], tmp_path: Path
) -> None:
    wanted = [row["start"] for row in table(made[0] / "segments.csv")]
    quick = FAST | {"examples": 0, "refits": 0, "clusters": 3}
    tce.discover(made[0] / "embeddings.npz", out=tmp_path / "a", **quick)
    assert [row["start"] for row in table(tmp_path / "a" / "segments.csv")] == wanted
    tce.index(videos, db=tmp_path / "db", fps=10, **NET)
    tce.discover(tmp_path / "db", out=tmp_path / "b", **quick)
    assert [row["start"] for row in table(tmp_path / "b" / "segments.csv")] == wanted
    tce.pack(videos, out=tmp_path / "packed")
    found = tce.discover(tmp_path / "packed", out=tmp_path / "c", **NET, **(quick | {"examples": 1})).figures
    assert found["clusters"] == 3 and found["videos"] == 3
    assert abs(len(table(tmp_path / "c" / "segments.csv")) - len(wanted)) <= 2  # stored as JPEG once more


def stored(tmp_path: Path, vectors: np.ndarray, videos: int = 1, rate: float = 10.0) -> Path:
    count = len(vectors) // videos
    frame = np.tile(np.arange(count), videos)
    names = np.repeat([f"v{number}.mp4" for number in range(videos)], count)
    save_embeddings(
        str(tmp_path / "e.npz"), Embeddings(vectors.astype(np.float32), names, frame, frame / rate)
    )
    return tmp_path / "e.npz"


def test_many_short_clips_are_one_segment_each(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 3, 60)
    vectors = np.repeat(np.eye(3)[kinds], 12, axis=0) + 0.05 * rng.normal(size=(720, 3))
    place = stored(tmp_path, vectors, videos=60)
    found = tce.discover(place, out=tmp_path / "out", examples=0, refits=2).figures
    rows = table(tmp_path / "out" / "segments.csv")
    assert len(rows) == 60 and found["clusters"] == 3
    owner = {row["cluster"]: int(kinds[int(row["video"][1:-4])]) for row in rows}
    assert all(owner[row["cluster"]] == kinds[int(row["video"][1:-4])] for row in rows)
    assert found["stability"]["halves"] > 0.9


def test_what_does_not_come_back_is_marked(tmp_path: Path) -> None:
    """Clusters of a single cloud of noise are arbitrary."""
    vectors = np.random.default_rng(0).normal(size=(600, 8))
    out = tmp_path / "out"
    result = tce.discover(stored(tmp_path, vectors), out=out, examples=0, clusters=6, shortest=0.2, bout=0.5)
    assert result.figures["stability"]["halves"] < 0.5
    marked = [row["stable"] for row in table(out / "stability.csv")]
    assert "no" in marked and "does not come back" in result.text
    assert "*" in (out / "index.html").read_text()


@pytest.mark.parametrize(
    ("vectors", "settings", "message"),
    [
        (
            np.random.default_rng(0).normal(size=(8, 4)),
            {},
            "--window 1; expected at most the length of a video",
        ),
        (np.ones((50, 4)), {}, "frames that differ"),
        (
            np.random.default_rng(0).normal(size=(50, 4)),
            {"clusters": 20},
            "--clusters 20; expected at most 4",
        ),
    ],
)
def test_bad_embeddings_are_one_line(
    vectors: np.ndarray, settings: dict, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = stored(tmp_path, vectors)
    flags = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    assert main(["discover", str(place), "--out", str(tmp_path / "out"), *flags]) == 1
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1 and printed.out == ""


def test_one_short_video_among_others_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.array(["long.mp4"] * 60 + ["short.mp4"] * 4)
    frame = np.concatenate([np.arange(60), np.arange(4)])
    vectors = np.eye(4)[np.repeat([0, 1, 0, 1], 16)] + 0.1 * rng.normal(size=(64, 4))
    save_embeddings(str(tmp_path / "e.npz"), Embeddings(vectors.astype(np.float32), names, frame, frame / 10))
    found = tce.discover(tmp_path / "e.npz", out=tmp_path / "out", examples=0, refits=0).figures
    assert found["videos"] == 1 and list(found["skipped"]) == ["short.mp4"]


def test_other_bad_input_is_one_line(videos: Path, made: tuple[Path, dict], tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="--ckpt; expected a checkpoint"):
        tce.discover(videos, out=tmp_path / "out")
    with pytest.raises(OptionError, match="--out; expected a folder"):
        tce.discover(videos, **NET)
    with pytest.raises(TceError, match="a folder that tce discover wrote"):
        tce.discover(videos, apply=tmp_path, out=tmp_path / "out", **NET)
    with pytest.raises(OptionError, match="--clusters"):
        tce.discover(videos, apply=made[0], out=tmp_path / "out", clusters=3)
    save_embeddings(str(tmp_path / "plain.npz"), Embeddings(np.random.default_rng(0).normal(size=(50, 4))))
    with pytest.raises(TceError, match="embeddings with video, frame and time"):
        tce.discover(tmp_path / "plain.npz", out=tmp_path / "out")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.mp4").write_bytes(b"no video")
    with pytest.raises(TceError, match=r"none of 1 videos could be read|a.mp4"):
        tce.discover(tmp_path / "bad", out=tmp_path / "out", **NET)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "model.json").write_text("{}")
    (damaged / "model.npz").write_bytes(b"PK nothing")
    with pytest.raises(TceError, match="damaged"):
        tce.discover(damaged)
    assert load_embeddings(made[0] / "embeddings.npz").vectors.shape[1] == 8


def test_generated_recordings_change_what_they_do(tmp_path: Path) -> None:
    phases = make_recordings(tmp_path, recordings=1, seconds=6, classes=3, size=48, fps=5)
    again = make_recordings(tmp_path / "again", recordings=1, seconds=6, classes=3, size=48, fps=5)
    assert phases == again
    (own,) = phases.values()
    assert own[0].start == 0 and own[-1].end == 6
    assert all(one.end == two.start and one.label != two.label for one, two in itertools.pairwise(own))
    with open_video(tmp_path / "recording_01.mp4") as video:
        assert len(video) == 30
    assert len(table(tmp_path / "labels.csv")) == len(own)
