"""Sequential modules of PyTorch become networks with the same outputs and gradients."""

import numpy as np
import pytest

from jacometry import UnsupportedModelError, activations
from jacometry.diagnostics import analyze
from jacometry.network import Network
from jacometry.ops.chain import chain_product

torch = pytest.importorskip("torch", reason="needs the torch extra")
nn = torch.nn
# PyTorch has its slope, 1/6, in float32.
SLOPE_ROUNDING = {nn.Hardsigmoid: 2.0**-24}


@pytest.mark.parametrize(
    "activation",
    [
        nn.Identity(),
        nn.ReLU(),
        nn.LeakyReLU(0.2),
        nn.PReLU(init=0.3),
        nn.ReLU6(),
        nn.ELU(0.7),
        nn.SELU(),
        nn.CELU(0.5),
        nn.Softplus(2.0),
        nn.GELU(),
        nn.GELU("tanh"),
        nn.SiLU(),
        nn.Mish(),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.Softsign(),
        nn.Hardtanh(),
        nn.Hardsigmoid(),
        nn.Hardswish(),
    ],
    ids=str,
)
def test_outputs_and_jacobians_agree(activation):
    module = nn.Sequential(
        nn.Flatten(), nn.Linear(6, 5), activation, nn.Dropout(0.5),
        nn.Sequential(nn.Linear(5, 4, bias=False), activation), nn.Linear(4, 3),
    ).double().eval()  # fmt: skip
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    net = Network.from_torch(module)
    np.testing.assert_allclose(net.forward(x), module(x).detach(), rtol=1e-12)
    jacobian = torch.autograd.functional.jacobian
    expected = torch.stack([jacobian(lambda v: module(v[None])[0], item) for item in x])
    found = chain_product(net.jacobian_chain(x)).to_array()
    rtol = 2 * SLOPE_ROUNDING.get(type(activation), 5e-11)
    np.testing.assert_allclose(found, expected.reshape(7, 3, 6), rtol=rtol, atol=1e-14)


AT_KINKS = {
    nn.ReLU(): "relu",
    nn.ReLU6(): "relu6",
    nn.ELU(0.7): activations.elu(0.7),
    nn.SELU(): "selu",
    nn.CELU(0.5): activations.celu(0.5),
    nn.Hardtanh(): "hard_tanh",
    nn.Hardsigmoid(): "hard_sigmoid",
    nn.Hardswish(): "hard_swish",
    nn.Softsign(): "softsign",
}


@pytest.mark.parametrize("module", AT_KINKS, ids=str)
def test_slopes_at_kinks_are_those_of_pytorch(module):
    x = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0, 6.0], dtype=torch.float64, requires_grad=True)
    module(x).sum().backward()
    found = activations.get(AT_KINKS[module]).slope(x.detach().numpy())
    np.testing.assert_allclose(found, x.grad, rtol=SLOPE_ROUNDING.get(type(module), 1e-14))


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
        (nn.Sequential(nn.Linear(2, 2), nn.Hardtanh(0, 2)), "between 0 and 2; only between -1 and"),
        (nn.Sequential(nn.Linear(2, 2), nn.Softplus(1, 2)), "with threshold 2; only from 20"),
        (nn.Sequential(nn.Linear(2, 2), nn.PReLU(2)), "with 2 slopes; only one for all units"),
        (
            nn.Sequential(nn.Linear(2, 2), type("Sine", (nn.Tanh,), {"forward": torch.sin})()),
            "Sine",
        ),
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
