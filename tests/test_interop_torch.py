"""Sequential modules of PyTorch become networks with the same outputs and gradients."""

import numpy as np
import pytest

from jacometry import UnsupportedModelError
from jacometry.diagnostics import analyze
from jacometry.network import Network
from jacometry.ops.chain import chain_product

torch = pytest.importorskip("torch", reason="needs the torch extra")
nn = torch.nn


@pytest.mark.parametrize(
    "activation", [nn.ReLU(), nn.LeakyReLU(0.2), nn.Tanh(), nn.Sigmoid(), nn.GELU(), nn.Identity()]
)
def test_outputs_and_jacobians_agree(activation):
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5), activation, nn.Dropout(0.5),
        nn.Sequential(nn.Linear(5, 4, bias=False), activation), nn.Linear(4, 3),
    ).double().eval()  # fmt: skip
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    net = Network.from_torch(module)
    np.testing.assert_allclose(net.forward(x), module(x).detach(), rtol=1e-12)
    expected = torch.func.vmap(torch.func.jacrev(lambda v: module(v[None])[0]))(x).reshape(7, 3, 6)
    found = chain_product(net.jacobian_chain(x)).to_array()
    np.testing.assert_allclose(found, expected.detach(), rtol=1e-10, atol=1e-14)


def test_gradient_norms_agree_with_autograd():
    torch.manual_seed(0)
    layers = [nn.Linear(8, 8).double() for _ in range(4)]
    module = nn.Sequential(*(m for f in layers for m in (f, nn.Tanh())), nn.Linear(8, 3).double())
    x, y = torch.randn(5, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    kept, h = [], x
    for node in module:
        h = node(h)
        if isinstance(node, nn.Linear):
            h.retain_grad()
            kept.append(h)
    nn.functional.cross_entropy(h, y, reduction="sum").backward()
    expected = [np.log(z.grad.norm(dim=1).numpy()).mean() for z in kept]
    report = analyze(module, x, y=y, rng=0)
    np.testing.assert_allclose(report.layers["gradient_log_norm"], expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(2, 2), "Linear; expected torch.nn.Sequential"),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), r"1 \(BatchNorm1d\)"),
        (nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Conv1d(1, 1, 1))), r"1\.0 \(Conv1d\)"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), "logits"),
        (nn.Sequential(nn.Linear(2, 2), nn.GELU("tanh")), "approximate='tanh'"),
        (nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.1)), r"eval\(\)"),
        (nn.Sequential(nn.Tanh(), nn.Linear(2, 2)), "before the first Linear"),
        (nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.ReLU()), "after another activation"),
        (nn.Sequential(nn.Linear(2, 2), nn.Flatten()), "Flatten"),
        (nn.Sequential(), "no Linear"),
    ],
)
def test_nodes_that_are_not_understood_are_named(module, message):
    with pytest.raises(UnsupportedModelError, match=message):
        Network.from_torch(module)


def test_a_tensor_that_requires_grad_is_refused():
    net = Network.from_torch(nn.Sequential(nn.Linear(2, 2)))
    with pytest.raises(TypeError, match="x must not require grad"):
        net.forward(torch.ones(1, 2, requires_grad=True))


def test_half_precision_weights_are_read():
    net = Network.from_torch(nn.Sequential(nn.Linear(2, 2)).to(torch.bfloat16))
    assert net.dtype == np.float32
