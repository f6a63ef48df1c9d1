import html
import json
import re
import shutil

import numpy as np
import pytest

import tce
from tce import cli
from tce.errors import OptionError, TceError
from tce.model.checkpoint import load_encoder, save_model
from tce.model.encoder import build_encoder
from tce.options.report import ReportOptions
from tce.reporting import footage_features
from tce.reporting.report_figures import command_line
from tce.reporting.report_page import report_policy
from tce.video.synthetic import draw_clip, make_clips, write_video

HOSTILE = "<img src=x onerror=alert(1)>&\"'|"
SIZE = 32


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> str:
    """A small network to start from."""
    return str(
        save_model(
            tmp_path_factory.mktemp("start"), build_encoder("resnet18", image_size=SIZE, seed=1)
        ).parent
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Class folders, one of a hostile name: 2 classes, 12 people, a broken file."""
    folder = tmp_path_factory.mktemp("footage")
    made = make_clips(folder, classes=2, per_class=12, frames=6, size=48, groups=12, test_groups=6)
    (made.videos / "Bow").rename(made.videos / HOSTILE)
    (made.videos / "Box" / "v_Box_g13_c01.mp4").write_bytes(b"no video")
    return made


@pytest.fixture(scope="module")
def written(clips, start, tmp_path_factory):
    """A report of them, and its folder."""
    out = tmp_path_factory.mktemp("reports") / "report"
    options = ReportOptions(str(clips.videos), str(out), start=start, k=5, engine="torch")
    return tce.report(options), out


def test_the_report_holds_every_part_and_names_what_it_left_out(written, clips):
    result, out = written
    figures = json.loads((out / "report.json").read_text())
    assert figures["footage"]["clips"] == 24 and figures["footage"]["recordings"] == 24
    assert (
        list(figures["footage"]["skipped"]) == ["Box/v_Box_g13_c01"]
        or len(figures["footage"]["skipped"]) == 1
    )
    assert figures["labels"]["tested"] == 24 and set(figures["labels"]["classes"]) == {HOSTILE, "Box"}
    networks = figures["networks"]
    assert next(iter(networks)) == "start" and list(networks)[-1] == "untrained" and "adapted" in networks
    for name in ("start", "untrained"):
        assert 0 <= networks[name]["kNN accuracy"]["value"] <= 1
        assert 0 <= networks[name]["frames that find their own clip"]["value"] <= 1
        assert networks[name]["motion"]["effective_rank"] > 1
    assert len(figures["adaptation"]["gains_of_halves"]) == 6
    assert figures["frames_passed"] == 2 * 24 * 6, "each frame passes each of two networks once"
    assert figures["versions"]["tce"] == tce.__version__ and sum(figures["seconds"].values()) > 0
    assert figures["headline"] in result.text.replace("\n", " ")
    text = (out / "report.md").read_text()
    assert HOSTILE not in text and "## Rules" in text
    assert str(clips.videos) in figures["command"]


def test_the_page_is_self_contained_and_hostile_names_stay_text(written):
    page = (written[1] / "report.html").read_text()
    assert "<script" not in page and "onerror=alert" not in re.sub(r"&lt;img[^<]*", "", page)
    assert html.escape(HOSTILE) in page or html.escape(HOSTILE[:10]) in page
    assert f'content="{report_policy()}"' in page and "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)", page)
    assert not re.findall(r"\sstyle=", page), "the policy refuses styles in attributes"
    assert page.count("data:image/jpeg;base64,") == 5 * (1 + 4 * 2)
    for words in ("What it cannot say", "Recording by recording", "Maps of the clips", "The verdict"):
        assert words in page


def test_the_adapted_network_is_an_ordinary_run_that_more_footage_can_be_added_to(written, clips, start):
    out = written[1]
    if not (out / "adapted").exists():
        pytest.skip("the start was kept on these clips")
    encoder = load_encoder(str(out / "adapted"))
    assert encoder.config.image_size == SIZE and encoder.default_layer == "embedding"
    options = {"out": str(out / "adapted"), "start": start, "engine": "torch", "workers": 1}
    added = tce.adapt(str(clips.videos), add=True, **options)
    assert added.figures["clips"] == 24, "all of them were seen by the report"


def test_a_second_report_passes_no_frame_and_another_network_only_its_own(written, clips, start, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(written[1], out)
    other = save_model(tmp_path / "other", build_encoder("resnet18", image_size=SIZE, seed=5)).parent
    again = tce.report(str(clips.videos), out=out, start=start, k=5, engine="torch", workers=1)
    assert again.figures["frames_passed"] == 0
    for name in ("start", "untrained"):
        assert again.figures["networks"][name] == written[0].figures["networks"][name]
    more = tce.report(
        str(clips.videos),
        out=out,
        start=start,
        ckpt=(str(other),),
        names=("mine",),
        engine="torch",
        workers=1,
    )
    assert more.figures["frames_passed"] == 24 * 6
    assert list(more.figures["networks"]) == ["start", "mine", "untrained"]
    assert "verdict" in more.figures["networks"]["mine"] and more.figures["adaptation"] is None


def test_an_interrupted_report_keeps_what_it_saw(clips, start, tmp_path, monkeypatch):
    real, seen = footage_features.FootageFeatures._see, []

    def stop(self, name, *arguments):
        if len(seen) == 9:
            raise KeyboardInterrupt
        seen.append(name)
        real(self, name, *arguments)

    monkeypatch.setattr(footage_features.FootageFeatures, "_see", stop)
    keywords = {"out": tmp_path / "report", "start": start, "engine": "torch", "workers": 1}
    with pytest.raises(KeyboardInterrupt, match="the same command continues"):
        tce.report(str(clips.videos), **keywords)
    assert not (tmp_path / "report" / "report.html").exists() and not (tmp_path / "report" / ".lock").exists()
    monkeypatch.undo()
    kept = len([name for name in seen if "g13" not in name])
    done = tce.report(str(clips.videos), **keywords)
    assert done.figures["frames_passed"] == 2 * 6 * (24 - kept)


@pytest.fixture
def three(tmp_path):
    """Three short clips without classes."""
    folder = tmp_path / "three"
    folder.mkdir()
    for number, name in enumerate(("a", "b", "c")):
        write_video(folder / f"{name}.mp4", draw_clip("Wave", number, 0, 6, 48, 15, 0), 15)
    return folder


def test_three_clips_give_a_report_that_says_what_it_cannot(three, start, tmp_path, capsys):
    arguments = ["report", str(three), "--start", start, "--out", str(tmp_path / "out"), "--engine", "torch"]
    assert cli.main(arguments) == 0
    assert "too little footage to tell: 3 recordings; keep the start" in capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "report.json").read_text())
    said = " ".join(figures["limits"])
    for words in ("whether classes are told apart", "what the adaptation brings", "--group"):
        assert words in said
    (three / "b.mp4").unlink()
    with pytest.raises(TceError, match="3 clips or more"):
        tce.report(str(three), out=tmp_path / "out", start=start, engine="torch")


def test_a_changed_file_is_seen_again(three, start, tmp_path):
    keywords = {"out": tmp_path / "out", "start": start, "engine": "torch", "workers": 1}
    tce.report(str(three), **keywords)
    write_video(three / "c.mp4", draw_clip("Bow", 5, 0, 6, 48, 15, 0), 15)
    assert tce.report(str(three), **keywords).figures["frames_passed"] == 2 * 6


def test_what_is_refused(clips, start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "options.json").write_text("{}")
    with pytest.raises(OptionError, match="a run"):
        tce.report(str(clips.videos), out=tmp_path / "run", start=start)
    with pytest.raises(OptionError, match="--names"):
        ReportOptions("videos", "out", ckpt=("a",), names=("x", "y"))
    with pytest.raises(OptionError, match="--no-labels"):
        ReportOptions("videos", "out", no_labels=True, lists="lists")
    with pytest.raises(OptionError, match="name of its own"):
        tce.report(str(clips.videos), out=tmp_path / "o", start=start, ckpt=(start, start))


def test_the_command_line_is_what_was_given():
    options = ReportOptions("my videos", "out", ckpt=("a", "b"), no_labels=True, image_size=112)
    assert command_line(options) == "tce report 'my videos' --out out --ckpt a b --no-labels --image-size 112"


def test_runs_that_have_seen_the_clips_have_no_verdict_without_labels(clips, start, tmp_path):
    tce.adapt(str(clips.videos), out=tmp_path / "run", start=start, engine="torch", workers=1)
    found = tce.report(
        str(clips.videos),
        out=tmp_path / "r",
        ckpt=(str(tmp_path / "run"),),
        no_labels=True,
        engine="torch",
        workers=1,
    )
    run = found.figures["networks"]["run"]
    assert run["seen"] == pytest.approx(1) and "has seen 100% of these clips" in run["verdict"]["text"]
    assert found.figures["networks"]["start"]["source"] == start, "the start is what the run was adapted from"
    assert np.isfinite(run["frames that find their own clip"]["value"])
