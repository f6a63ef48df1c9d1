"""Group centring, and which layer is compared."""

import numpy as np
import pytest
import torch

from tce.data.splits import open_split
from tce.errors import OptionError
from tce.evaluation.evaluate import evaluate
from tce.evaluation.frozen_network import load_network
from tce.evaluation.protocols import Evaluator
from tce.model.checkpoint import load_encoder, save_model
from tce.options.evaluate import EvaluateOptions


def options(data, ckpt, **changes):
    base = {"data": str(data.footage), "lists": str(data.lists), "device": "cpu", "samples": 2}
    return EvaluateOptions(ckpt=ckpt, **{**base, **changes})


def test_group_means_of_training_and_test_clips_are_subtracted(data, networks):
    for layer in ("features", "embedding"):
        chosen = options(data, networks.encoder, center="group", layer=layer)
        network = load_network(networks.encoder, None, None, 0, "cpu", False)
        clips = open_split(chosen.data, data.root, chosen.lists, "01", 0.05)
        evaluator = Evaluator(network, chosen)
        both = evaluator.train_test(clips)
        rows = np.concatenate([both.train, both.test])
        _, vectors = evaluator.features(clips, np.sort(rows), layer, 2)
        vectors, groups = vectors.astype(np.float64), clips.groups[np.sort(rows)]
        for group in set(groups):
            vectors[groups == group] -= vectors[groups == group].mean(axis=0)
        found = np.concatenate([both.train_features, both.test_features])[np.argsort(rows)]
        np.testing.assert_allclose(found, vectors, atol=1e-5)
        assert np.abs(vectors).max() > 1e-3


def test_centring_is_reported_in_the_result(data, networks, tmp_path):
    result = evaluate(options(data, networks.encoder, center="group", out=str(tmp_path / "out")))
    assert result.figures["settings"]["center"] == "group"
    assert any("mean of each group's clips was subtracted" in note for note in result.figures["notes"])
    with pytest.raises(
        OptionError, match="--center; expected --protocol linear or knn or fewshot or retrieval or shortcut"
    ):
        options(data, networks.encoder, center="group", protocol="coherence")
    with pytest.raises(OptionError, match="--center; expected group, recording, folder, or a pattern"):
        evaluate(options(data, networks.encoder, center="person", out=str(tmp_path / "other")))


def test_an_adapted_network_is_compared_by_its_embedding(data, networks, tmp_path):
    encoder = load_encoder(networks.encoder)
    assert load_network(networks.encoder, None, None, 0, "cpu", False).default_layer == "features"
    adapted = save_model(tmp_path / "adapted.safetensors", encoder, {"made": "tce adapt", "clips": ""})
    result = evaluate(options(data, str(adapted), out=str(tmp_path / "out")))
    assert result.figures["settings"]["layer"] == "embedding"
    assert load_network(networks.stacks, None, None, 0, "cpu", False).default_layer == "features"


def test_an_untrained_network_has_no_head():
    network = load_network("random", "resnet18", 32, 0, "cpu", False).network
    assert (network.config.head, network.embedding_size) == ("none", 512)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(x), torch.nn.functional.normalize(network.features(x), dim=1))
