import importlib.metadata
import json

import pytest

from tce import cli
from tce.diagnosis import doctor as command
from tce.diagnosis import machine
from tce.diagnosis.doctor import doctor, find_problems, wrapped
from tce.errors import TceError
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.options.doctor import DoctorOptions

SECRET = "hf_0123456789secret"


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A small checkpoint, quicker than the packaged start."""
    return str(save_model(tmp_path_factory.mktemp("small"), build_encoder("resnet18", image_size=32)).parent)


def test_the_self_test_goes_from_a_video_to_a_map_and_leaves_nothing(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", SECRET)
    monkeypatch.setenv("TCE_UCF101", "/private/clips")
    found = doctor(
        DoctorOptions(folder=str(tmp_path), start=small, output=str(tmp_path / "out" / "doctor.txt"))
    )
    steps = {step["name"]: step for step in found.figures["self_test"]}
    assert all(step["ok"] for step in steps.values()), found.text
    assert "48 frames" in steps["embed"]["detail"] and "4 clips, 48 frames" in steps["pack"]["detail"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    text = (tmp_path / "out" / "doctor.txt").read_text()
    assert text.strip() == found.text.strip()
    # What is pasted into a public issue names no token, no path and no folder.
    for private in (SECRET, "/private/clips", str(tmp_path)):
        assert private not in text and private not in json.dumps(found.figures)
    assert "TCE_UCF101=(set)" in text
    assert importlib.metadata.version("numpy") in text


def test_a_step_that_fails_is_a_problem_and_ends_the_test(tmp_path, capsys):
    arguments = ["doctor", "--folder", str(tmp_path), "--start", str(tmp_path / "none.pth"), "--json"]
    assert cli.main(arguments) == 1
    figures = json.loads(capsys.readouterr().out)
    states = {step["name"]: step["ok"] for step in figures["self_test"]}
    assert states["decode"] is True and states["load the network"] is False
    assert states["embed"] is states["draw"] is None
    assert any("load the network" in line and "no such file" in line for line in figures["problems"])
    assert not list(tmp_path.iterdir())


def test_missing_and_old_packages_are_problems(monkeypatch):
    real = importlib.metadata.version

    def version(name):
        if name == "simplejpeg":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2.3" if name == "numpy" else real(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    found = machine.versions()
    assert found["packages"]["simplejpeg"] == "missing"
    assert any(line.startswith("simplejpeg is missing: pip install") for line in found["problems"])
    assert any("numpy 1.2.3 is installed, tce needs >=2.0" in line for line in found["problems"])


def test_a_broken_part_does_not_hide_the_others(monkeypatch):
    def broken():
        raise ImportError("libfoo.so.1: cannot open shared object file\nmore")

    sections = [(name, broken if name == "codecs" else part) for name, part in command.SECTIONS]
    monkeypatch.setattr(command, "SECTIONS", sections)
    found = doctor(DoctorOptions(no_test=True))
    assert found.exit_code == 1
    assert found.figures["processor"]["cores"] >= 1
    assert any(line.startswith("codecs: ImportError: libfoo.so.1") for line in found.figures["problems"])
    assert "failed: ImportError" in found.text and "more" not in found.text.split("codecs")[1].splitlines()[0]


@pytest.mark.parametrize(
    ("part", "entry", "value", "words"),
    [
        ("disk", "free_gib", 0.3, "0.3 GiB are free"),
        ("processor", "available_gib", 0.9, "0.9 GiB of memory"),
        ("codecs", "lacks", ["av1"], "cannot be decoded here: av1"),
        ("devices", "cuda_build", "12.4", "sees no GPU"),
    ],
)
def test_what_counts_as_a_problem(part, entry, value, words):
    good = {
        "versions": {"problems": []},
        "codecs": {"lacks": []},
        "disk": {"free_gib": 50.0},
        "processor": {"available_gib": 8.0},
        "devices": {"cuda_build": None, "gpus": []},
        "self_test": [],
    }
    assert find_problems(good) == []
    (line,) = find_problems(good | {part: good[part] | {entry: value}})
    assert words in line


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(TceError, match="--folder"):
        doctor(DoctorOptions(folder=str(tmp_path / "none")))


def test_wrapped_keeps_every_part_whole():
    parts = [f"part{number}" for number in range(40)]
    lines = wrapped(parts, 30)
    assert ", ".join(lines).split(", ") == parts and max(map(len, lines)) <= 30
