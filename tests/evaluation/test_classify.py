import csv
import json
import os
import shutil

import cv2
import numpy as np
import pytest

from tce.cli import main
from tce.errors import OptionError, TceError
from tce.evaluation.classify import classify
from tce.options.classify import ClassifyOptions
from tests.helpers.hard_videos import jpeg


@pytest.mark.parametrize("kind", ["stacks", "rgb"])
def test_top_classes_and_time_line(data, networks, tmp_path, capsys, kind):
    picture = tmp_path / "line.png"
    command = ["classify", str(data.footage / "v_Up_g04_c01"), "--ckpt", getattr(networks, kind)]
    assert main([*command, "--output", str(picture), "--samples", "10", "--json", "--device", "cpu"]) == 0
    result = json.loads(capsys.readouterr().out)
    shares = [row["probability"] for row in result["classes"]]
    assert len(shares) == 4 and shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)
    assert len(result["times"]) == 10 and result["times"] == sorted(result["times"])
    assert np.sum(list(result["along"].values()), axis=0) == pytest.approx(np.ones(10))
    image = cv2.imread(str(picture))
    assert image.shape[1] > 800 and image.std() > 10


def test_a_clip_of_one_frame(data, networks, tmp_path):
    clip = next(path for path in sorted(data.footage.iterdir()) if len(list(path.iterdir())) == 1)
    done = classify(ClassifyOptions(str(clip), networks.stacks, output=str(tmp_path / "p.png"), device="cpu"))
    assert len(done.figures["times"]) == 1


def test_names_from_a_file(data, networks, tmp_path):
    names = tmp_path / "classInd.txt"
    names.write_text("1 one\n2 two\n3 three and a half\n4 four\n")
    base = {"ckpt": networks.rgb, "output": str(tmp_path / "p.png"), "device": "cpu"}
    video = str(data.footage / "v_Up_g04_c02")
    done = classify(ClassifyOptions(video, classes=str(names), **base))
    assert {row["class"] for row in done.figures["classes"]} == {"one", "two", "three and a half", "four"}
    names.write_bytes("\r\n".join(["4 vier", "", "1 eins", "3 drei ", "2 zwei"]).encode("utf-16"))
    again = classify(ClassifyOptions(video, classes=str(names), **base))
    german = {"one": "eins", "two": "zwei", "three and a half": "drei", "four": "vier"}
    assert [row["class"] for row in again.figures["classes"]] == [
        german[row["class"]] for row in done.figures["classes"]
    ]
    names.write_bytes(b"caf\xe9\n")
    with pytest.raises(TceError, match=r"line 1; .*the byte 0xe9"):
        classify(ClassifyOptions(video, classes=str(names), **base))
    names.write_text("one\ntwo\n")
    with pytest.raises(OptionError, match="expected 4 names"):
        classify(ClassifyOptions(video, classes=str(names), **base))


def test_bad_input(data, networks, tmp_path):
    base = {"output": str(tmp_path / "p.png"), "device": "cpu"}
    with pytest.raises(TceError, match="tce finetune --weights"):
        classify(ClassifyOptions(str(data.footage / "v_Up_g04_c02"), networks.encoder, **base))
    with pytest.raises(TceError, match=r"nothing\.mp4"):
        classify(ClassifyOptions(str(tmp_path / "nothing.mp4"), networks.rgb, **base))
    with pytest.raises(
        OptionError, match=r"--output p\.xyz; expected a name ending in \.png"
    ):  # before --ckpt
        classify(ClassifyOptions(str(tmp_path / "nothing.mp4"), "nothing", output="p.xyz"))
    with pytest.raises(OptionError, match="--top"):
        ClassifyOptions("video", "ckpt", top=0)


def test_a_folder_gives_a_table_of_every_probability(data, networks, tmp_path, caplog):
    folder = tmp_path / "videos"
    for name in ("v_Up_g04_c01", "v_Down_g04_c02"):
        shutil.copytree(data.footage / name, folder / name)
    (folder / "bad.mp4").write_bytes(b"no video")
    table = tmp_path / "t.csv"
    done = classify(ClassifyOptions(str(folder), networks.rgb, output=str(table), samples=3, device="cpu"))
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3 and "2 videos classified, 1 skipped" in done.text
    good = [row for row in rows if not row["error"]]
    for row in good:
        shares = {name: float(row[name]) for name in ("Down", "Left", "Right", "Up")}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert max(shares, key=shares.get) == row["prediction"]
        assert float(row["probability"]) == max(shares.values())
    assert [row["prediction"] for row in rows if row["error"]] == [""]
    alone = classify(
        ClassifyOptions(
            good[0]["video"], networks.rgb, output=str(tmp_path / "p.png"), samples=3, device="cpu"
        )
    )
    assert alone.videos[0].probabilities.max() == pytest.approx(float(good[0]["probability"]), abs=1e-4)
    with pytest.raises(OptionError, match=r"--output p\.png; expected a name ending in \.csv"):
        classify(ClassifyOptions(str(folder), networks.rgb, output="p.png"))


def test_hostile_inputs_cost_themselves_only(data, networks, tmp_path, caplog):
    """Playlists, pipes, dangling links and a JPEG of declared size; names that set a terminal's title."""
    folder = tmp_path / "videos"
    good = [folder / name for name in ("$x_{$", "_a", "=1+1", "\x1b]0;evil\x07")]
    for place in good:
        shutil.copytree(data.footage / "v_Up_g04_c01", place)
    (folder / "list.mp4").write_text("#EXTM3U\n#EXTINF:1,\n/etc/passwd\n")
    (folder / "script.mp4").write_text("ffconcat version 1.0\nfile /etc/passwd\n")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    small = jpeg(np.zeros((8, 8, 3), np.uint8))
    start = small.index(b"\xff\xc0") + 5
    (folder / "huge").mkdir()
    (folder / "huge" / "0.jpg").write_bytes(small[:start] + b"\xea\x60\xea\x60" + small[start + 4 :])
    table = tmp_path / "t.csv"
    base = {"output": str(table), "samples": 2, "device": "cpu"}
    done = classify(ClassifyOptions(str(folder), networks.rgb, **base))
    assert "4 videos classified, 3 skipped" in done.text and "\x1b" not in done.text + caplog.text
    for reason in ("a playlist (HLS, .m3u8)", "FFmpeg's concat script", "60000 x 60000", "a named pipe"):
        assert reason in caplog.text, reason
    with open(table, encoding="utf-8", newline="") as file:
        assert {row["video"] for row in csv.DictReader(file) if not row["error"]} == set(map(str, good))
    for place in [*good, folder / "list.mp4", folder / "pipe.mp4", folder / "huge"]:
        one = ClassifyOptions(str(place), networks.rgb, **base | {"output": str(tmp_path / "p.png")})
        if place in good:
            assert classify(one).figures["classes"] and (tmp_path / "p.png").stat().st_size > 5000
        else:
            with pytest.raises(TceError, match=r"playlist|pipe|60000 x 60000"):
                classify(one)
