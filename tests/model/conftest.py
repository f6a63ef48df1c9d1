import os
from collections import OrderedDict

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests must not depend on a network, nor wait for one

from tce.model.resnet import resnet


def scramble(module, seed=0):
    """Batch norm with statistics and weights that matter, as after training."""
    generator = torch.Generator().manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            for tensor, low, high in (
                (layer.weight, 0.5, 1.5),
                (layer.bias, -0.3, 0.3),
                (layer.running_mean, -0.3, 0.3),
                (layer.running_var, 0.5, 1.5),
            ):
                with torch.no_grad():
                    tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return module.eval()


@pytest.fixture(scope="session")
def trained():
    """A ResNet-18 whose `fc` has 128 outputs, in the published names, evaluation mode."""
    torch.manual_seed(0)
    return scramble(resnet("resnet18", num_outputs=128))


@pytest.fixture(scope="session")
def images():
    """Normalised images [3, 3, 32, 32]."""
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="session")
def prefixed():
    """A state dict under a prefix, as DataParallel saves it."""
    return lambda state, prefix="module.": OrderedDict((prefix + n, v) for n, v in state.items())
