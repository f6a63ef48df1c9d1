import sys

import pytest
import torch

from tce.errors import OptionError, TceError
from tce.model import engine as engines
from tce.model.classifier import classifier_from_encoder
from tce.model.encoder import build_encoder, build_start
from tce.model.engine import FeatureEngine, pick_engine


def images(count=5, size=64):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "size"), [("lite2", 112), ("lite0", 75), ("resnet18", 64)])
def test_onnxruntime_gives_torchs_features(name, size):
    encoder = (build_start(name) if name.startswith("lite") else build_encoder(name, seed=0)).eval()
    x = images(size=size)
    with torch.no_grad():
        expected = encoder.features(x)
    found = pick_engine(encoder, "onnxruntime", size)
    assert found.name == "onnxruntime"
    for batch in (1, 5):  # the batch is free
        torch.testing.assert_close(found(x[:batch]), expected[:batch], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(pick_engine(encoder, "torch", size)(x), expected)


def test_a_classifier_on_stacks_of_differences_has_fifteen_channels():
    stacks = classifier_from_encoder(
        build_encoder("resnet18", image_size=32, seed=0), 3, differences=5
    ).eval()
    x = torch.randn(4, 15, 32, 32, generator=torch.Generator().manual_seed(0))
    found = pick_engine(stacks, "onnxruntime")
    with torch.no_grad():
        torch.testing.assert_close(found(x), stacks.features(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found(x.bfloat16()), stacks.features(x), rtol=0.05, atol=0.05)


def test_onnxruntime_takes_images_of_any_memory_format():
    encoder = build_encoder("resnet18", seed=0).eval()
    x = images().to(memory_format=torch.channels_last)
    with torch.no_grad():
        torch.testing.assert_close(
            pick_engine(encoder, "onnxruntime", 64)(x), encoder.features(x), rtol=1e-4, atol=1e-4
        )


def engine_of(name, seconds, clock):
    def run(x):
        clock[0] += seconds
        return x.mean(dim=(2, 3))

    return FeatureEngine(name, run)


@pytest.mark.parametrize(
    ("torch_s", "onnx_s", "winner"), [(2, 1, "onnxruntime"), (1, 2, "torch"), (1.05, 1, "torch")]
)
def test_auto_takes_the_faster_one_and_torch_when_in_doubt(torch_s, onnx_s, winner, monkeypatch, caplog):
    clock = [0.0]
    monkeypatch.setattr(engines.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(engines, "_torch_engine", lambda *_: engine_of("torch", torch_s, clock))
    monkeypatch.setattr(engines, "_onnx_engine", lambda *_: engine_of("onnxruntime", onnx_s, clock))
    with caplog.at_level("INFO", "tce"):
        assert pick_engine(build_encoder("resnet18").eval(), "auto", 32).name == winner
    assert f"engine {winner}: torch" in caplog.text
    assert "images/s" in caplog.text


def test_auto_measures_nothing_for_a_few_frames(monkeypatch):
    monkeypatch.setattr(engines, "_onnx_engine", lambda *_: pytest.fail("converted"))
    assert pick_engine(build_encoder("resnet18").eval(), "auto", 32, frames=20).name == "torch"


def test_without_onnxruntime_auto_is_torch_and_asking_for_it_is_reported(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    encoder = build_encoder("resnet18").eval()
    assert pick_engine(encoder, "auto", 32).name == "torch"
    with pytest.raises(TceError, match=r"--engine onnxruntime; .*pip install onnx onnxruntime"):
        pick_engine(encoder, "onnxruntime", 32)


def test_results_that_differ_are_refused(monkeypatch):
    monkeypatch.setattr(
        engines, "_onnx_engine", lambda *_: FeatureEngine("onnxruntime", lambda x: torch.zeros(len(x), 512))
    )
    encoder = build_encoder("resnet18", seed=0).eval()
    assert pick_engine(encoder, "auto", 32).name == "torch"
    with pytest.raises(TceError, match="torch's features within"):
        pick_engine(encoder, "onnxruntime", 32)


def test_a_network_that_onnx_cannot_express_falls_back(monkeypatch):
    class Odd(torch.nn.Module):
        def forward(self, x):
            return torch.linalg.eigvals(x[:, 0, :4, :4]).real

    encoder = build_encoder("resnet18").eval()
    encoder.backbone = Odd()
    assert pick_engine(encoder, "auto", 32).name == "torch"
    with pytest.raises(TceError, match="a network that ONNX can express"):
        pick_engine(encoder, "onnxruntime", 32)


def test_unknown_engine_is_reported():
    with pytest.raises(OptionError, match="--engine; expected auto, torch, onnxruntime; found 'tpu'"):
        pick_engine(build_encoder("resnet18"), "tpu")
