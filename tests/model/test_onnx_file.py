import random
import sys

import pytest

from tce.cli import main
from tce.commands.info import info, kind_of
from tce.errors import TceError
from tce.model.checkpoint import save_model
from tce.model.encoder import build_encoder
from tce.model.export import export
from tce.model.onnx_file import describe_onnx, is_onnx
from tce.options.export import ExportOptions
from tce.options.info import InfoOptions


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx")
    path = save_model(folder, build_encoder("resnet18", embedding_size=8, seed=0, image_size=32))
    export(ExportOptions(str(path), str(folder / "e.onnx")))
    return folder / "e.onnx"


def test_info_describes_an_onnx_file_under_any_name(exported, tmp_path):
    for name in ("model.onnx", "model", "model.mp4"):
        place = tmp_path / name
        place.write_bytes(exported.read_bytes())
        assert kind_of(str(place)) == "onnx"
        result = info(InfoOptions((str(place),)))
        assert result.figures["inputs"] == {"images": "float32 [batch, 3, 32, 32]"}
        assert result.figures["outputs"] == {"embedding": "float32 [batch, 8]"}
        assert result.figures["opset"] == 17
        for words in ("ONNX model", "input images", "float32 [batch, 3, 32, 32]", "encoder resnet18"):
            assert words in result.text


def test_without_the_library_it_is_named(exported, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert main(["info", str(exported)]) == 0
    out = capsys.readouterr().out
    assert "ONNX model" in out and "pip install onnx" in out


def test_damaged_files(exported, tmp_path):
    path = tmp_path / "cut.onnx"
    path.write_bytes(exported.read_bytes()[:-1000])
    assert not is_onnx(path)
    with pytest.raises(TceError, match="an ONNX model; found something else, or a damaged file"):
        describe_onnx(path)
    start = bytearray(exported.read_bytes())
    rng = random.Random(0)
    for _ in range(60):
        data = bytearray(start)
        for _ in range(4):
            data[rng.randrange(300)] = rng.randrange(256)
        path.write_bytes(data)
        try:
            describe_onnx(path)
        except TceError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    "data", [b"", b"\x08", b"\x08" * 300, b"\x08\x07", b"\x08\x07\x3a\xff\xff\xff\xff\x0f", bytes(99)]
)
def test_other_files_are_no_onnx(tmp_path, data):
    path = tmp_path / "file"
    path.write_bytes(data)
    assert not is_onnx(path)
    assert kind_of(str(path)) == "video"
