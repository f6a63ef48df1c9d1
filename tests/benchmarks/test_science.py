import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import tce
from tce.adaptation.guard import Comparison

pytest.importorskip("sklearn")
sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import feature_methods
import science
from frozen_features import View

CLASSES = ("LetterA", "LetterB", "LetterN")
PEOPLE = ("g01", "g02")
VIEW = View("lite2", 48, 4)


def write_clip(folder, label, own):
    """A drifting mixture of the class's pattern and of the clip's."""
    folder.mkdir(parents=True)
    patterns = [np.random.default_rng([7, *key]).random((6, 8, 3)) for key in ((label,), (label, own))]
    mixed = cv2.resize(255 * (0.2 * patterns[0] + 0.8 * patterns[1]), (64, 48)).astype(np.uint8)
    for frame in range(6):
        cv2.imwrite(str(folder / f"frame{frame + 1:06d}.jpg"), np.roll(mixed, 3 * frame, axis=1))


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Frame folders and lists as the gestures have them: a clip shows its class and a pattern of its own."""
    root = tmp_path_factory.mktemp("gestures")
    (root / "lists").mkdir()
    names = {person: [] for person in PEOPLE}
    for label, kind in enumerate(CLASSES):
        for person in PEOPLE:
            for number in range(6):
                name = f"v_{kind}_{person}_c{number:02d}"
                write_clip(root / "videos" / kind / name, label, 10 * number + (person == "g02"))
                names[person].append((f"{kind}/{name}.mp4", label + 1))
    lines = [f"{label + 1} {kind}" for label, kind in enumerate(CLASSES)]
    (root / "lists" / "classInd.txt").write_text("\n".join(lines) + "\n")
    for split, (train, test) in {"01": PEOPLE, "02": PEOPLE[::-1]}.items():
        train_lines = [f"{name} {label}" for name, label in names[train]]
        (root / "lists" / f"trainlist{split}.txt").write_text("\n".join(train_lines) + "\n")
        (root / "lists" / f"testlist{split}.txt").write_text("\n".join(n for n, _ in names[test]) + "\n")
    return root


@pytest.fixture(scope="module")
def study(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    for name in ("features", "maps", "cells"):
        (out / name).mkdir()
    return science.Study(VIEW, "gestures", source, out)


def method(name):
    return next(method for method in feature_methods.METHODS if method.name == name)


def test_the_cells_are_what_the_commands_give(study, source, tmp_path, monkeypatch):
    # So few clips are no proof that the map helps, and the start would be kept.
    monkeypatch.setattr(Comparison, "improves", property(lambda self: True))
    task = science.Task("gestures", "01")
    run = str(tmp_path / "run")
    lists = {"lists": str(source / "lists"), "split": "01", "device": "cpu", "precision": "float32"}
    frames = {"image_size": VIEW.image_size, "frames_per_clip": VIEW.frames, "engine": "torch"}
    adapted = tce.adapt(str(study.collection), out=run, start="lite2", **frames, **lists).figures
    assert not adapted["kept_start"]
    for name, flags in (
        ("adapted to the training clips", {}),
        ("adapted to the training clips, centred", {"center": "group"}),
    ):
        cell = study.cell(method(name), task, ["knn"])
        for figure in ("start", "adapted", "shrinkage"):
            assert cell["fit"][figure] == pytest.approx(adapted[figure], abs=1e-9)
        given = {"protocol": "knn", "k": science.K, "samples": VIEW.frames, "out": str(tmp_path / name)}
        found = tce.evaluate(ckpt=run, data=str(study.collection), **given, **flags, **lists)
        values = cell["measures"]["knn"]["top1"]
        np.testing.assert_array_equal(values, found.predictions["top1"])
        assert 0 < np.mean(values) < 1


def test_a_frozen_start_is_what_the_command_gives(study, source, tmp_path):
    cell = study.cell(feature_methods.FROZEN, science.Task("gestures", "02"), ["knn"])
    found = tce.evaluate(
        ckpt="lite2",
        data=str(study.collection),
        protocol="knn",
        k=science.K,
        samples=VIEW.frames,
        image_size=VIEW.image_size,
        out=str(tmp_path / "knn"),
        lists=str(source / "lists"),
        split="02",
        device="cpu",
        precision="float32",
    )
    np.testing.assert_array_equal(cell["measures"]["knn"]["top1"], found.predictions["top1"])


def test_letters_restrict_both_sides_and_cells_resume(study, monkeypatch):
    task = science.Task("gestures", "01", "M-Y")
    clips = study.clips(task)
    assert {clips.classes[label] for label in clips.labels[np.union1d(clips.train, clips.test)]} == {
        "LetterN"
    }
    assert (len(clips.train), len(clips.test)) == (6, 6)
    first = study.cell(feature_methods.FROZEN, task, ["knn"])
    monkeypatch.setattr(science, "measure", None)  # would fail if anything were computed again
    assert study.cell(feature_methods.FROZEN, task, ["knn"]) == json.loads(json.dumps(first))


def test_scikit_learns_discriminant_analysis_gives_the_adaptations_similarities(study):
    # Of one shrinkage and in all directions the two differ in the shrinkage of T alone, which turns nothing.
    rows = np.random.default_rng(0).normal(size=(60, 8)) * np.arange(1, 9)
    pieces = [feature_methods.Piece(part, np.arange(5.0)) for part in rows.reshape(12, 5, 8)]
    ids = [f"c{number}" for number in range(12)]
    footage = feature_methods.Footage(ids, ids, ["p"] * 12, pieces)
    theirs = feature_methods.discriminant(footage, False).embed(rows)
    within = np.mean([np.cov(piece.features.T, bias=True) for piece in pieces], axis=0)
    share = feature_methods.LDA_SHRINKAGE
    within = (1 - share) * within + share * np.trace(within) / 8 * np.eye(8)
    centred = rows - rows.mean(axis=0)
    np.testing.assert_allclose(theirs @ theirs.T, centred @ np.linalg.solve(within, centred.T), rtol=1e-6)


def test_embeddings_of_a_map_survive_the_file(tmp_path):
    fitted = feature_methods.Fitted(np.ones((2, 3)), np.arange(2.0), 1.5, {"size": 2})
    fitted.save(tmp_path / "map.npz")
    again = feature_methods.Fitted.load(tmp_path / "map.npz")
    rows = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(again.embed(rows), [[3, 4], [12, 13]])
    assert (again.seconds, again.notes) == (1.5, {"size": 2})
    feature_methods.Fitted(notes={"kept_start": True}).save(tmp_path / "none.npz")
    assert feature_methods.Fitted.load(tmp_path / "none.npz").embed(rows) is rows
