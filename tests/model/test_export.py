import json
import random
import sys

import numpy as np
import pytest
import torch

from tce.cli import main
from tce.commands.info import info, kind_of
from tce.errors import OptionError, TceError
from tce.model.checkpoint import checkpoint_hash, load_classifier, load_encoder, save_model
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder
from tce.model.export import convert, describe_onnx, export, is_onnx
from tce.model.resnet import resnet
from tce.options.convert import ConvertOptions
from tce.options.export import ExportOptions
from tce.options.info import InfoOptions

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An encoder in `encoder` and a classifier of differences in `classifier`, 32 pixels."""
    place = tmp_path_factory.mktemp("models")
    encoder = build_encoder(seed=0, image_size=32).eval()
    save_model(place / "encoder", encoder, {"run": "x"})
    save_model(place / "classifier", classifier_from_encoder(encoder, 3, classes=["a", "b", "c"]))
    return place


def run(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["images"]
    return session.get_outputs()[0].name, session.run(None, {"images": images.numpy()})[0]


@pytest.mark.parametrize("raw", [False, True])
def test_encoder_for_any_batch(folder, tmp_path, raw):
    path = tmp_path / "encoder.onnx"
    result = export(ExportOptions(ckpt=str(folder / "encoder"), output=str(path), raw=raw))
    encoder = load_encoder(folder / "encoder")
    frames = torch.randint(0, 256, (5, 32, 32, 3), dtype=torch.uint8)
    normalised = encoder.preprocess(frames, resize="none")
    name, found = run(path, frames if raw else normalised.contiguous())
    with torch.no_grad():
        np.testing.assert_allclose(found, encoder(normalised).numpy(), atol=1e-5)
    assert name == "embedding"
    assert result.figures["max_abs_difference"] < 1e-5
    assert result.figures["opset"] == 17
    shape = ["batch", 32, 32, 3] if raw else ["batch", 3, 32, 32]
    assert result.figures["inputs"] == {"images": shape}
    graph = onnx.load(path)
    assert graph.opset_import[0].version == 17
    description = json.loads({p.key: p.value for p in graph.metadata_props}["tce"])
    assert description["provenance"] == {"run": "x"}
    assert [d.dim_param or d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim] == shape


@pytest.mark.parametrize("raw", [False, True])
def test_classifier_of_differences(folder, tmp_path, raw):
    path = tmp_path / "classifier.onnx"
    result = export(ExportOptions(ckpt=str(folder / "classifier"), output=str(path), raw=raw, image_size=40))
    classifier = load_classifier(folder / "classifier")
    frames = torch.randint(0, 256, (2, 6, 40, 40, 3), dtype=torch.uint8)
    stacked = classifier.preprocess(frames, resize="none")
    name, found = run(path, frames if raw else stacked)
    with torch.no_grad():
        np.testing.assert_allclose(found, classifier(stacked).numpy(), atol=1e-4)
    assert name == "logits"
    assert result.figures["outputs"] == {"logits": ["batch", 3]}


def test_hugging_face_backbones_too(tmp_path):
    import transformers as hf

    torch.manual_seed(0)
    config = hf.Dinov2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14, mlp_ratio=2
    )
    hf.Dinov2Model(config).save_pretrained(tmp_path / "m")
    output = tmp_path / "dino.onnx"
    result = export(ExportOptions(ckpt=f"hf:{tmp_path / 'm'}", output=str(output), image_size=28))
    assert result.figures["max_abs_difference"] < 1e-5
    encoder = load_encoder(f"hf:{tmp_path / 'm'}")
    images = torch.randn(4, 3, 28, 28)
    with torch.no_grad():
        np.testing.assert_allclose(run(output, images)[1], encoder(images).numpy(), atol=1e-5)
    converted = convert(ConvertOptions(f"hf:{tmp_path / 'm'}", output=str(tmp_path / "ours")))
    assert f"hf:{tmp_path / 'm'} (Hugging Face) -> " in converted.text


def test_results_that_differ_are_not_written(folder, tmp_path, monkeypatch):
    session = onnxruntime.InferenceSession

    class Wrong(session):
        def run(self, *arguments):
            return [output + 0.1 for output in super().run(*arguments)]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Wrong)
    with pytest.raises(TceError, match=r"expected torch's results within 0\.001; found a difference of 0\.1"):
        export(ExportOptions(ckpt=str(folder / "encoder"), output=str(tmp_path / "e.onnx")))
    assert not list(tmp_path.iterdir())


def test_missing_libraries_name_the_extra(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(TceError, match="pip install onnx onnxruntime"):
        export(ExportOptions(ckpt=str(folder / "encoder"), output=str(tmp_path / "e.onnx")))


@pytest.mark.parametrize(
    "wrong, flag",
    [({"output": "e.pb"}, "--output"), ({"opset": 9}, "--opset"), ({"image_size": 2}, "--image-size")],
)
def test_export_options_are_checked(wrong, flag):
    with pytest.raises(OptionError, match=flag):
        ExportOptions(**({"ckpt": "c", "output": "e.onnx"} | wrong))


# ---- convert


def test_convert_keeps_the_numbers(tmp_path, trained, prefixed):
    torch.save({"model": prefixed(trained.state_dict()), "epoch": 4}, tmp_path / "old.pth")
    result = convert(ConvertOptions(str(tmp_path / "old.pth"), output=str(tmp_path / "new")))
    assert result.figures["output"] == str(tmp_path / "new" / "model.safetensors")
    assert result.figures["hash"] == checkpoint_hash(tmp_path / "old.pth")
    assert result.figures["provenance"] == {"format": "TCE 2020 pre-training", "epoch": 4}
    assert "TCE 2020 pre-training" in result.text
    found, expected = load_encoder(tmp_path / "new"), load_encoder(tmp_path / "old.pth")
    for name, value in expected.state_dict().items():
        assert torch.equal(found.state_dict()[name], value)


def test_convert_takes_an_imagenet_file_either_way(tmp_path):
    torch.save(resnet("resnet18", num_outputs=1000).state_dict(), tmp_path / "imagenet.pth")
    source, target = str(tmp_path / "imagenet.pth"), str(tmp_path / "new.safetensors")
    assert convert(ConvertOptions(source, output=target)).figures["kind"] == "encoder"
    assert convert(ConvertOptions(source, output=target, kind="classifier")).figures["num_classes"] == 1000


def test_convert_a_classifier_and_refuse_it_as_an_encoder(folder, tmp_path):
    source, target = str(folder / "classifier"), str(tmp_path / "new.safetensors")
    assert convert(ConvertOptions(source, output=target)).figures["classes"] == ("a", "b", "c")
    with pytest.raises(TceError, match="expected an encoder; found a classifier"):
        convert(ConvertOptions(source, output=target, kind="encoder"))


def test_convert_onto_itself_is_refused(folder):
    before = (folder / "encoder" / "model.safetensors").read_bytes()
    for source in (folder / "encoder", folder / "encoder" / "model.safetensors"):
        with pytest.raises(TceError, match="another place than the input"):
            convert(ConvertOptions(str(source), output=str(folder / "encoder")))
    assert (folder / "encoder" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("output", ["x.pth", "run/x.PT", "x.onnx", "x.bin", "x.ckpt"])
def test_convert_makes_no_folder_of_a_files_name(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"--output; expected a file ending in \.safetensors, or a folder"):
        ConvertOptions("in.pth", output)
    assert not list(tmp_path.iterdir())


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
