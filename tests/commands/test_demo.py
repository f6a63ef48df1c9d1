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
    for name, value in {
        **sizes,
        "IMAGE_SIZE": 32,
        "BATCH_SIZE": 4,
        "NEIGHBOURS": 3,
        "START_SIZE": 48,
        "EVERY": 4,
    }.items():
        monkeypatch.setattr(module, name, value)


def test_the_demo_makes_everything_it_names_and_can_be_repeated(small, tmp_path, capsys):
    out = tmp_path / "demo"
    arguments = ["demo", "--out", str(out), "--epochs", "2", "--json"]
    assert main(arguments) == 0
    figures = json.loads(capsys.readouterr().out)
    for name in ("untrained", "pretrained", "start", "adapted"):
        assert 0 <= figures[f"knn_{name}"] <= 1
        assert 0 <= figures[f"one_{name}"] <= 1
    assert figures["chance"] == pytest.approx(1 / 3)
    for name in ("map_start", "map_adapted"):
        assert Image.open(figures[name]).format == "PNG"
    assert "Content-Security-Policy" in (out / "page.html").read_text()
    with av.open(figures["film"]) as film:
        assert sum(1 for _ in film.decode(video=0)) == 3 * 2 * 8
    assert main(arguments) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["knn_pretrained"] == figures["knn_pretrained"]  # the seed decides everything
    assert again["knn_adapted"] == figures["knn_adapted"]


def test_the_demo_says_what_it_found_and_what_to_do_next(tmp_path):
    figures = {"knn_untrained": 0.25, "knn_pretrained": 0.75, "knn_start": 0.5, "knn_adapted": 0.875}
    figures |= {"one_untrained": 0.125, "one_pretrained": 0.3125, "one_start": 0.4375, "one_adapted": 0.625}
    figures |= {"chance": 1 / 6, "training_seconds": 61.0, "adapting_seconds": 9.0, "kept_start": False}
    names = ("ckpt", "map_start", "map_adapted", "film", "page")
    text = module._text({**figures, **{name: f"/there/{name}" for name in names}}, tmp_path)
    for words in (
        "25.0%",
        "75.0%",
        "50.0%",
        "87.5%",
        "12.5%",
        "62.5%",
        "16.7%",
        "/there/film",
        "tce adapt FOLDER --out runs/mine",
    ):
        assert words in text


def test_a_start_that_is_kept_is_named(tmp_path):
    names = [
        f"{kind}_{name}"
        for kind in ("knn", "one")
        for name in ("untrained", "pretrained", "start", "adapted")
    ]
    figures = dict.fromkeys(names, 0.5) | {"chance": 0.5, "training_seconds": 1.0, "adapting_seconds": 1.0}
    places = dict.fromkeys(("ckpt", "map_start", "map_adapted", "film", "page"), "")
    text = module._text({**figures, **places, "kept_start": True}, tmp_path)
    assert "the start was kept as it is" in text


def test_the_length_of_the_training_follows_the_time_a_step_takes(small, tmp_path, monkeypatch):
    from tce.options.demo import DemoOptions
    from tce.train import pretrain as training
    from tce.video.synthetic import make_clips

    options = DemoOptions(out=str(tmp_path), workers=1)
    clips = make_clips(tmp_path / "clips", 3, 6, 8, 48, 15, groups=3, test_groups=1)
    whole = module._pretrain_options(clips, module._pack(clips, tmp_path, options), tmp_path, options)
    rows = [
        {"seconds": 9.0},
        {"seconds": 5.0},
        *[{"seconds": 0.5}] * 5,
        {"seconds": 40.0},
    ]  # warm-up, a hiccup
    monkeypatch.setattr("tce.train.run_record.read_log", lambda path: rows)
    done = []
    pretrain = training.pretrain
    monkeypatch.setattr(training, "pretrain", lambda options: done.append(pretrain(options)))
    monkeypatch.setattr(module, "_seconds_since", lambda started: 5.0)
    planned = module._within_budget(whole, 35.0)
    assert planned.optim.epochs == 16  # 12 clips in batches of 4 are three steps; a fifth is kept in reserve
    assert len(done) == 1 and not (tmp_path / "run-timing").exists()
    assert planned.run == whole.run


def test_reported_people_have_a_seed_of_their_own(tmp_path):
    from tce.video.open_video import open_video
    from tce.video.synthetic import make_clips

    sizes = {"classes": 2, "per_class": 2, "frames": 2, "size": 48, "groups": 2, "test_groups": 1}
    for name, seed in (("a", 0), ("b", 1)):
        make_clips(tmp_path / name, **sizes, seed=seed, test_seed=module.REPORTED_SEED)

    def pixels(name, group):
        return open_video(tmp_path / name / f"videos/Bow/v_Bow_g{group:02d}_c01.mp4").frames([0, 1])

    assert (pixels("a", 2) == pixels("b", 2)).all() and (pixels("a", 1) != pixels("b", 1)).any()


def test_an_unwritable_place_is_reported_before_the_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 1
    assert "--out" in capsys.readouterr().err
    assert main(["demo", "--epochs", "0"]) == 1
    assert main(["demo", "--seconds", "0"]) == 1
    assert "--epochs" in capsys.readouterr().err
