"""Names of files, classes and runs may hold anything: every command prints, draws and writes them."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from tce.cli import main

CLASSES = ("$x_{$", "_under", "\x1b]0;evil\x07", "拳击", "=1+1")
RUN = "run $y^{$ \x1b[31m_"
NETWORK = ["--ckpt", "random", "--model", "tinynet:tiny", "--image-size", "24", "--device", "cpu"]
CLASSIFIER = ["--ckpt", RUN, "--model", "tinynet:tiny", "--device", "cpu"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data`: frame folders of five classes, three recordings each; and a classifier's run."""
    root = tmp_path_factory.mktemp("names")
    for number, label in enumerate(CLASSES):
        for clip in range(3):
            folder = root / "data" / label / f"{label}{clip}"
            folder.mkdir(parents=True)
            for frame in range(4):
                image = np.full((32, 40, 3), 40 * number + 3 * frame, np.uint8)
                cv2.imwrite(f"{folder}/{frame}.png", image)
    return root


def lines(place: Path) -> list[list[str]]:
    """Command lines that read the names; in their order."""
    train = ["--savedir", RUN, "--epochs", "1", "--batch-size", "4", "--held-out", "0.3", *NETWORK[2:]]
    one = f"data/{CLASSES[0]}/{CLASSES[0]}0"
    return [
        ["finetune", "--data", "data", *train],
        ["info", RUN],
        ["info", "data", "--sheet", "sheet.png"],
        ["classify", "data", *CLASSIFIER, "--output", "table.csv", "--samples", "2"],
        ["classify", one, *CLASSIFIER, "--output", "picture.png", "--samples", "2"],
        ["evaluate", "--data", "data", *CLASSIFIER, "--protocol", "frames", "--out", "a$"],
        ["evaluate", "--data", "data", *NETWORK, "--protocol", "knn", "--out", "_b"],
        ["compare", "a$", "_b", "--output", "chart.png"],
        ["embed", "--input", "data", *NETWORK, "--output", "e.npz"],
        ["tsne", "--embeddings", "e.npz", "--output", "map.png"],
        ["pack", "data", "--out", "collection"],
        ["check", "collection"],
    ]


def test_every_command_takes_them(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    for line in lines(place):
        assert main(line) == 0, capsys.readouterr().err
        printed = "".join(capsys.readouterr())
        assert not [char for char in printed if not char.isprintable() and char not in "\n\t"], line
    written = {"sheet.png", "picture.png", "chart.png", "map.png", f"{RUN}/curves.png"}
    assert all(cv2.imread(name).std() > 3 for name in written)
    assert not [name for name in os.listdir() if name.startswith(".")]
