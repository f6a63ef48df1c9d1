import json

import av
import pytest
from PIL import Image

from tce.cli import main
from tce.commands import demo as module


@pytest.fixture
def small(monkeypatch):
    """The demo on few small clips."""
    sizes = {"CLASSES": 3, "CLIPS_PER_CLASS": 6, "GROUPS": 3, "TEST_GROUPS": 1, "FRAMES": 8, "SIZE": 48}
    for name, value in {**sizes, "IMAGE_SIZE": 32, "BATCH_SIZE": 4, "NEIGHBOURS": 3}.items():
        monkeypatch.setattr(module, name, value)


def test_the_demo_makes_everything_it_names_and_can_be_repeated(small, tmp_path, capsys):
    out = tmp_path / "demo"
    arguments = ["demo", "--out", str(out), "--epochs", "2", "--json"]
    assert main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    for name in ("knn_untrained", "knn_trained"):
        assert 0 <= figures[name] <= 1
    assert figures["chance"] == pytest.approx(1 / 3)
    for name in ("map_untrained", "map_trained"):
        assert Image.open(figures[name]).format == "PNG"
    with av.open(figures["film"]) as film:
        assert sum(1 for _ in film.decode(video=0)) == 3 * 2 * 8
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["knn_trained"] == figures["knn_trained"]  # the seed decides everything


def test_the_demo_says_what_it_found_and_what_to_do_next(tmp_path):
    figures = {"knn_untrained": 0.25, "knn_trained": 0.75, "chance": 1 / 6, "training_seconds": 61.0}
    names = ("ckpt", "map_untrained", "map_trained", "film")
    text = module._text({**figures, **{name: f"/there/{name}" for name in names}}, tmp_path)
    for words in ("25.0%", "75.0%", "16.7%", "/there/film", "tce pretrain FOLDER --out RUN"):
        assert words in text


def test_an_unwritable_place_is_told_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert "--out" in capsys.readouterr().err
    assert main(["demo", "--epochs", "0"]) == 1
    assert "--epochs" in capsys.readouterr().err
