import json

import numpy as np
import pytest
from PIL import Image

from tce.cli import main
from tce.commands.info import info, kind_of
from tce.data.catalog import clip_sketch
from tce.embedding.embedding_file import Embeddings, save_embeddings
from tce.errors import OptionError, TceError
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.options.info import InfoOptions
from tce.video.synthetic import draw_clip, make_clips
from tce.visualize.contact_sheet import CELL, save_sheet
from tce.visualize.plots import save_curves


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Twelve clips of three classes with lists."""
    folder = tmp_path_factory.mktemp("clips")
    return make_clips(folder, classes=3, per_class=4, frames=6, size=48, groups=2, test_groups=1)


def is_picture(path) -> tuple[int, int]:
    with Image.open(path) as picture:
        assert len(picture.convert("RGB").getcolors(1 << 24)) > 20
        return picture.size


def test_a_datasets_clips_classes_lengths_rates_sizes_and_sheet(clips, tmp_path):
    result = info(InfoOptions(str(clips.videos), sheet=str(tmp_path / "s.png"), lists=str(clips.lists)))
    figures = result.figures
    assert figures["type"] == "dataset"
    assert figures["clips"] == figures["opened"] == 12
    assert figures["classes"] == {"Bow": 4, "Box": 4, "HandsOnHips": 4}
    assert figures["splits"] == {"train": 6, "test": 6}
    assert figures["recordings"] == 6
    assert figures["frames_a_clip"] == {"least": 6, "median": 6, "most": 6}
    assert figures["fps"]["median"] == pytest.approx(15)
    assert figures["sizes"] == {"48x48": 12}
    for words in ("12 of 6 recordings", "train 6, test 6", "Box 4", "15 fps", "48x48 (12)"):
        assert words in result.text
    width, height = is_picture(tmp_path / "s.png")
    assert width > 6 * CELL
    assert height < 2 * CELL  # two rows of small frames


def test_missing_and_unreadable_clips_are_named(clips, tmp_path):
    (tmp_path / "videos" / "Bow").mkdir(parents=True)
    (tmp_path / "videos" / "Bow" / "v_Bow_g01_c01.mp4").write_text("no video")
    kept = clips.videos / "Box" / "v_Box_g02_c01.mp4"
    (tmp_path / "videos" / "Box").mkdir()
    (tmp_path / "videos" / "Box" / kept.name).write_bytes(kept.read_bytes())
    result = info(InfoOptions(str(tmp_path / "videos"), lists=str(clips.lists)))
    assert len(result.figures["missing"]) == 10
    assert len(result.figures["unreadable"]) == 1
    assert "10 of 12 listed clips" in result.text
    assert "v_Bow_g01_c01" in result.text
    assert info(InfoOptions(str(tmp_path / "videos"), probe=0)).figures["opened"] == 0


def test_a_video_and_a_folder_of_frames(clips, tmp_path):
    video = clips.videos / "Bow" / "v_Bow_g01_c01.mp4"
    result = info(InfoOptions(str(video), sheet=str(tmp_path / "s.jpg")))
    expected = {"type": "video", "frames": 6, "width": 48, "height": 48, "codec": "h264", "rotation": 0}
    assert expected.items() <= result.figures.items()
    assert result.figures["seconds"] == pytest.approx(6 / 15, abs=0.01)
    is_picture(tmp_path / "s.jpg")
    folder = tmp_path / "frames"
    folder.mkdir()
    for number, frame in enumerate(draw_clip("Kick", 0, 0, 3, 32, 15, seed=0)):
        Image.fromarray(frame).save(folder / f"{number}.png")
    result = info(InfoOptions(str(folder)))
    assert result.figures["frames"] == 3
    assert "folder of frames" in result.text


def test_a_collection(clips, tmp_path):
    from tce.data.pack import pack
    from tce.options.pack import PackOptions

    pack(PackOptions(footage=(str(clips.videos),), out=str(tmp_path / "c")))
    result = info(InfoOptions(str(tmp_path / "c"), sheet=str(tmp_path / "s.png"), lists=str(clips.lists)))
    assert result.figures["type"] == "collection"
    assert result.figures["frames"] == 72
    assert result.figures["splits"] == {"train": 6, "test": 6}
    is_picture(tmp_path / "s.png")


def test_a_checkpoint(tmp_path):
    encoder = build_encoder("resnet18", embedding_size=32, image_size=64, seed=0)
    save_model(tmp_path / "model.safetensors", encoder, provenance={"epochs": 3})
    for place in (tmp_path, tmp_path / "model.safetensors"):
        result = info(InfoOptions(str(place)))
        assert result.figures["architecture"] == "resnet18"
        assert result.figures["embedding_size"] == 32
        parameters = sum(value.numel() for value in encoder.parameters())
        assert f"{parameters:,}" in result.text
        assert "from: epochs" in result.text


def test_a_checkpoint_tells_the_number_of_its_clips_not_their_hashes(tmp_path):
    encoder = build_encoder("resnet18", embedding_size=32, image_size=64, seed=0)
    hashes = clip_sketch(f"clip{n}" for n in range(9537))
    weights = {"path": "x", "provenance": {"made": "tce pretrain", "clips": clip_sketch(["a", "b"])}}
    provenance = {"made": "tce finetune", "clips": hashes, "weights": weights}
    save_model(tmp_path / "model.safetensors", encoder, provenance=provenance)
    text = info(InfoOptions(str(tmp_path))).text
    assert "about" in text and hashes[:8] not in text
    assert "clips 2" in text and len(text) < 2000


def write_run(folder, finished: bool) -> None:
    folder.mkdir()
    record = {"command": "pretrain", "options": {"run": {"recipe": "quick"}}, "data": {"clips": 7}}
    (folder / "options.json").write_text(json.dumps(record))
    lines = ["step,epoch,loss,rotation,threshold,hard,rank,knn,lr,novelty"]
    lines += [
        f"{s},{s / 10},{5 / s},1.3,{s / 50},{s / 60},{s},{'' if s % 10 else s / 100},0.1,2"
        for s in range(1, 41)
    ]
    (folder / "log.csv").write_text("\n".join(lines) + "\n41,4.1,0")  # the last row is being written
    if finished:
        (folder / "result.json").write_text('{"knn": 0.4}')


def test_a_runs_curves(tmp_path):
    write_run(tmp_path / "run", finished=True)
    result = info(InfoOptions(str(tmp_path / "run")))
    drawn = {"loss", "rotation", "threshold", "hard", "rank", "knn", "lr", "novelty"}
    assert set(result.figures["drawn"]) == drawn
    assert result.figures["first"]["knn"] == 0.1
    assert result.figures["last"] == pytest.approx(
        {"step": 40, "epoch": 4, "loss": 0.125, "rotation": 1.3, "threshold": 0.8, "hard": 40 / 60}
        | {"rank": 40, "knn": 0.4, "lr": 0.1, "novelty": 2}
    )
    for words in ("tce pretrain", "finished", "quick", "0.1 -> 0.4"):
        assert words in result.text
    is_picture(tmp_path / "run" / "curves.png")


def test_a_run_that_is_under_way(tmp_path):
    write_run(tmp_path / "run", finished=False)
    result = info(InfoOptions(str(tmp_path / "run"), curves=str(tmp_path / "x.png")))
    assert "at step 40, not finished" in result.text
    is_picture(tmp_path / "x.png")
    assert not (tmp_path / "run" / "curves.png").exists()
    (tmp_path / "run" / "log.csv").write_text("step,epoch,loss\n")
    assert "nothing was logged" in info(InfoOptions(str(tmp_path / "run"))).text
    with pytest.raises(TceError, match="logged step"):
        save_curves(tmp_path / "y.png", [])


def test_embeddings(tmp_path):
    data = np.random.default_rng(0).normal(size=(6, 4))
    save_embeddings(tmp_path / "e.npz", Embeddings(data, np.array(["a"] * 3 + ["b"] * 3)))
    figures = info(InfoOptions(str(tmp_path / "e.npz"))).figures
    assert figures == {"type": "embeddings", "frames": 6, "size": 4, "videos": 2}


def test_json_on_the_command_line(clips, capsys):
    video = str(clips.videos / "Bow" / "v_Bow_g01_c01.mp4")
    assert main(["info", video, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "nothing there"),
        (["empty"], "none"),
        (["notes.mp4"], "notes.mp4"),
        (["notes.pth"], "notes.pth"),
        (["notes.npz"], "notes.npz"),
        (["notes.mp4", "--curves", "c.png"], "--curves"),
        (["notes.pth", "--sheet", "s.png"], "--sheet"),
        (["notes.mp4", "--sheet", "s.gif"], ".png"),
        (["notes.mp4", "--sheet", "/proc/none/s.png"], "--sheet"),
        (["notes.mp4", "--lists", "empty"], "--lists"),
    ],
)
def test_mistakes_are_reported_in_one_line(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for suffix in ("mp4", "pth", "npz"):
        (tmp_path / f"notes.{suffix}").write_text("only text")
    assert main(["info", *arguments]) == 1
    printed = capsys.readouterr().err.strip().splitlines()
    assert len(printed) == 1
    assert message in printed[0]


def test_one_picture_has_no_duration(tmp_path):
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(tmp_path / "a.png")
    reported = info(InfoOptions(str(tmp_path / "a.png")))
    assert reported.text.startswith(f"{tmp_path / 'a.png'}: image") and "fps" not in reported.text
    assert reported.figures["type"] == "image" and (reported.figures["width"], reported.figures["codec"]) == (
        32,
        "png",
    )


def test_kinds_on_object_storage_and_hubs():
    assert kind_of("s3://bucket/collection") == "collection"
    assert kind_of("hf:facebook/dinov2-small") == "checkpoint"


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_a_table_of_clips_is_a_dataset(suffix, tmp_path):
    (tmp_path / f"clips.{suffix}").touch()
    assert kind_of(str(tmp_path / f"clips.{suffix}")) == "dataset"


def test_sheets_of_any_size(tmp_path):
    images = [np.zeros((10, 400, 3), np.uint8), np.full((400, 10, 3), 9, np.uint8)]
    cells = [
        (f"a very long line of text, longer than its cell {number}", images[number % 2])
        for number in range(7)
    ]
    assert save_sheet(tmp_path / "s.webp", cells) == 7
    with pytest.raises(TceError, match="at least one"):
        save_sheet(tmp_path / "s.png", [])
    with pytest.raises(OptionError, match="--probe"):
        InfoOptions("x", probe=-1)


def test_several_paths_are_described_one_after_the_other(tmp_path, capsys):
    write_run(tmp_path / "run", finished=True)
    data = np.random.default_rng(0).normal(size=(6, 4))
    save_embeddings(tmp_path / "e.npz", Embeddings(data, np.array(["a"] * 3 + ["b"] * 3)))
    paths = [str(tmp_path / name) for name in ("run", "missing", "e.npz")]
    result = info(InfoOptions(tuple(paths)))
    assert [figures["type"] for figures in result.figures["paths"]] == ["run", "embeddings"]
    assert "nothing there" in result.text and "6" in result.text
    assert main(["info", paths[0], paths[2], "--curves", "x.png"]) == 1
    assert "--curves; expected one PATH; found 2" in capsys.readouterr().err
    assert main(["info", str(tmp_path / "a"), str(tmp_path / "b")]) == 1


@pytest.mark.parametrize("name", ["log.csv", "options.json"])
def test_a_runs_own_files_stand_for_the_run(name, tmp_path):
    write_run(tmp_path / "run", finished=True)
    assert info(InfoOptions(str(tmp_path / "run" / name))).figures["type"] == "run"
    (tmp_path / "log.csv").write_text("path,label\na.mp4,x\n")
    assert kind_of(str(tmp_path / "log.csv")) == "dataset"  # another program's table of that name


def test_a_result(tmp_path):
    figures = {"protocol": "knn", "top1": 0.5, "checkpoint": {"name": "mine"}, "data": {"test_clips": 9}}
    (tmp_path / "result.json").write_text(json.dumps(figures))
    (tmp_path / "confusion-01.png").write_bytes(b"")
    for place in (tmp_path, tmp_path / "result.json"):
        result = info(InfoOptions(str(place)))
        assert result.figures == {"type": "result", **figures}
        for words in ("result of tce evaluate", "knn", "mine", "9", "0.5"):
            assert words in result.text
    for bad in ("[]", "{}", "{", "[" * 100_000):
        (tmp_path / "result.json").write_text(bad)
        with pytest.raises(TceError, match=r"result\.json"):
            info(InfoOptions(str(tmp_path)))


def test_a_run_that_cannot_be_written_to_is_described_without_its_picture(tmp_path, monkeypatch):
    write_run(tmp_path / "run", finished=True)

    def refuse(path, what="--output"):
        raise TceError(f"{what} {path}", found="Read-only file system")

    monkeypatch.setattr("tce.commands.info.require_writable", refuse)
    result = info(InfoOptions(str(tmp_path / "run")))
    assert "not drawn (Read-only file system)" in result.text and result.figures["curves"] is None
    with pytest.raises(TceError, match="--curves"):
        info(InfoOptions(str(tmp_path / "run"), curves=str(tmp_path / "x.png")))


def test_curves_have_chance_lines_whole_steps_and_honest_axes():
    from matplotlib.figure import Figure

    from tce.visualize.plots import PANELS, _draw

    axes = Figure().add_subplot()
    rows = [{"step": step, "knn": 0.4 + step / 100} for step in range(4)]
    _draw(axes, next(panel for panel in PANELS if "knn" in panel.names), rows, {"knn": 0.25}, {})
    assert axes.get_ylim() == (0, 100)
    curve, line = axes.get_lines()
    assert list(curve.get_ydata()) == pytest.approx([40, 41, 42, 43]) and set(line.get_ydata()) == {25}
    assert all(tick == int(tick) for tick in axes.get_xticks())
    axes = Figure().add_subplot()
    _draw(axes, PANELS[0], [{"step": 0, "loss": 4.0}, {"step": 1, "loss": 3.9}], {"loss": 4.1}, {})
    assert axes.get_ylim()[0] == 0


def test_sheets_name_the_file_and_take_any_name(tmp_path):
    names = ["$x_{$", "_a", "a\x1b[31mb\nclass", "\udc80", "", "日本語.mp4", "x" * 500]
    assert save_sheet(tmp_path / "s.png", ((name, np.zeros((20, 20, 3), np.uint8)) for name in names)) == 7
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.size[0] > 6 * CELL
