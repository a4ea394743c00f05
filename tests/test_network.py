"""Networks: values, derivatives, and files that are not what they claim."""

import io
import os
import struct
import zipfile
from itertools import pairwise

import numpy as np
import pytest

from jacometry import ModelFileError, UnsupportedModelError
from jacometry.activations import Activation
from jacometry.factors import Dense, Diagonal
from jacometry.network import Network
from jacometry.ops.chain import chain_product


def small_network(rng, activation="tanh", widths=(3, 5, 1, 4)):
    weights = [rng.standard_normal((m, n)) for n, m in pairwise(widths)]
    biases = [rng.standard_normal(m) for m in widths[1:]]
    return Network.from_arrays(weights, biases, activation), weights, biases


def test_forward_is_the_formula(rng):
    net, (w1, w2, w3), (b1, b2, b3) = small_network(rng)
    x = rng.standard_normal((6, 3))
    h1 = np.tanh(x @ w1.T + b1)
    h2 = np.tanh(h1 @ w2.T + b2)
    np.testing.assert_allclose(net.forward(x), h2 @ w3.T + b3, rtol=1e-14)
    signals = net.activations(x)
    assert [s.shape for s in signals] == [(6, 3), (6, 5), (6, 1), (6, 4)]
    np.testing.assert_array_equal(signals[0], x)
    np.testing.assert_allclose(signals[2], h2, rtol=1e-14)
    np.testing.assert_allclose(net.forward(x[0]), net.forward(x)[0], rtol=1e-14)


@pytest.mark.parametrize("activation", ["tanh", "relu", "sigmoid", "gelu", "erf", "identity"])
def test_jacobian_chain_is_the_derivative(activation, rng):
    net, *_ = small_network(rng, activation)
    x = rng.standard_normal((4, 3))
    jacobian = chain_product(net.jacobian_chain(x)).to_array()
    step = 1e-5
    for i in range(3):
        unit = step * np.eye(3)[i]
        slope = (net.forward(x + unit) - net.forward(x - unit)) / (2 * step)
        np.testing.assert_allclose(jacobian[:, :, i], slope, atol=1e-8)


def test_jacobian_chain_of_one_input_is_a_linear_operator(rng):
    net, *_ = small_network(rng)
    chain = net.jacobian_chain(rng.standard_normal(3))
    assert chain.shape == (4, 3)
    kinds = [type(chain[k]) for k in range(len(chain))]
    assert kinds == [Dense, Diagonal, Dense, Diagonal, Dense]
    np.testing.assert_allclose(
        chain @ np.ones(3), chain_product(chain).to_array() @ np.ones(3), rtol=1e-13
    )


def test_an_activation_on_the_output_is_part_of_the_chain(rng):
    net = Network.from_arrays([[[2.0]]], activations=["sigmoid"])
    assert len(net.jacobian_chain([0.0])) == 2
    assert chain_product(net.jacobian_chain([0.0])).to_array() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("network_dtype", "x_dtype", "expected"),
    [
        (np.float32, np.float32, np.float32),
        (np.float32, np.float16, np.float32),
        (np.float32, np.float64, np.float64),
        (np.float64, np.float32, np.float64),
        (np.float32, np.int64, np.float32),
    ],
)
def test_dtype_rule(network_dtype, x_dtype, expected):
    net = Network.random([3, 4, 2], "relu", "he_normal", rng=0, dtype=network_dtype)
    assert net.dtype == network_dtype
    assert net.forward(np.ones((2, 3), x_dtype)).dtype == expected


def test_arrays_are_copied_and_read_only(rng):
    weights = np.eye(2)
    net = Network.from_arrays([weights])
    weights[:] = 7
    np.testing.assert_array_equal(net.layers[0].weights, np.eye(2))
    with pytest.raises(ValueError, match="read-only"):
        net.layers[0].weights[0, 0] = 1


def test_random_is_reproducible_and_has_the_widths():
    first, second = (Network.random([7, 5, 5, 2], "relu", "he_uniform", rng=3) for _ in range(2))
    assert first.widths == (7, 5, 5, 2)
    assert len(first) == 3
    assert [layer.activation.name for layer in first.layers] == ["relu", "relu", "identity"]
    for a, b in zip(first.layers, second.layers, strict=True):
        np.testing.assert_array_equal(a.weights, b.weights)


def test_propagate_agrees_with_activations(rng):
    for activation in ("relu", "tanh"):
        net, *_ = small_network(rng, activation)
        x = rng.standard_normal((5, 3))
        states = list(net.propagate(x))
        for state, signal in zip(states, net.activations(x)[1:], strict=True):
            np.testing.assert_allclose(state.activations, signal, rtol=1e-13, atol=1e-300)
            assert not state.exponent.any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_propagate_survives_any_depth(scale):
    depth = 1000
    weights = [np.array([[scale]])] * depth
    states = list(Network.from_arrays(weights, activations="relu").propagate(np.ones((1, 1))))
    last = states[-1]
    log = np.log(last.activations[0, 0]) + last.exponent[0] * np.log(2)
    assert log == pytest.approx(depth * np.log(scale), rel=1e-13)


def test_propagate_keeps_biases_beside_a_vanished_signal():
    weights = [np.array([[1e-200]])] * 6
    biases = [np.zeros(1)] * 5 + [np.array([3.0])]
    *_, last = Network.from_arrays(weights, biases).propagate(np.ones((1, 1)))
    assert last.activations[0, 0] * 2.0 ** last.exponent[0] == 3.0


def test_propagate_names_the_layer_that_overflows():
    net = Network.from_arrays(
        [[[1e200]], [[1e200]], [[1.0]]], activations=["relu", "gelu", "identity"]
    )
    with pytest.raises(ValueError, match="layer 2"):
        list(net.propagate(np.ones((1, 1))))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([],), ValueError, "weights must hold at least one"),
        ((3,), TypeError, "weights must be a sequence"),
        (("ab",), TypeError, "weights must be a sequence"),
        (([[1.0]],), ValueError, r"weights\[0\] must be a matrix"),
        (([np.ones((2, 0))],), ValueError, r"weights\[0\]"),
        (([np.ones((2, 3)), np.ones((2, 3))],), ValueError, r"weights\[1\] must have 2 columns"),
        (([np.array([[1.0, np.nan]])],), ValueError, r"weights\[0\] must be finite.*\(0, 1\)"),
        (([np.eye(2) * 1j],), TypeError, r"weights\[0\]"),
        (([np.array([[None]])],), TypeError, r"weights\[0\]"),
        (([np.ones((2, 3))], [np.ones(3)]), ValueError, r"biases\[0\] must have shape \(2,\)"),
        (([np.ones((2, 3))], [np.full(2, np.inf)]), ValueError, r"biases\[0\] must be finite"),
        (([np.ones((2, 3))], []), ValueError, "biases must hold 1"),
        (([np.ones((2, 3))], None, ["relu", "relu"]), ValueError, "activations must hold 1"),
        (([np.ones((2, 3))], None, ["swoosh"]), UnsupportedModelError, r"activations\[0\].*swoosh"),
        (([np.ones((2, 3))], None, [3]), TypeError, "activation"),
    ],
)
def test_from_arrays_names_what_is_wrong(arguments, error, message):
    with pytest.raises(error, match=message):
        Network.from_arrays(*arguments)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.ones(4), ValueError, r"x must have shape \(3,\)"),
        (np.ones((2, 4)), ValueError, "3 inputs, got shape"),
        (np.ones((1, 2, 3)), ValueError, "x must have shape"),
        (np.float64(1), ValueError, "x must have shape"),
        ([[1.0, np.nan, 2.0]], ValueError, r"x must be finite, got nan at index \(0, 1\)"),
        ([[1.0, np.inf, 2.0]], ValueError, "x must be finite"),
        ([["a", "b", "c"]], TypeError, "x must"),
        (None, TypeError, "x must"),
    ],
)
@pytest.mark.parametrize("method", ["forward", "activations", "jacobian_chain"])
def test_wrong_inputs_are_named(method, x, error, message, rng):
    net, *_ = small_network(rng)
    with pytest.raises(error, match=message):
        getattr(net, method)(x)


def test_an_empty_batch_gives_an_empty_result(rng):
    net, *_ = small_network(rng)
    assert net.forward(np.ones((0, 3))).shape == (0, 4)


def test_a_user_activation_is_taken(rng):
    square = Activation(np.square, lambda z: 2 * z, name="square")
    net = Network.from_arrays([np.eye(2), np.ones((1, 2))], activations=square)
    assert net.forward([2.0, 3.0]) == pytest.approx(13)
    np.testing.assert_allclose(chain_product(net.jacobian_chain([2.0, 3.0])).to_array(), [[4, 6]])


# ------------------------------------------------------------------------------------------ files


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_a_saved_network_comes_back(tmp_path, rng):
    w, b = rng.standard_normal((2, 3)).astype(np.float32), np.ones(2, np.float32)
    path = saved(
        tmp_path / "net.npz",
        weights_0=w,
        biases_0=b,
        weights_1=np.asfortranarray(rng.standard_normal((1, 2))),
        activations=np.array(["tanh", "identity"]),
        description=np.array("a net\x1b[31m"),
    )
    net = Network.load(path)
    assert net.widths == (3, 2, 1)
    np.testing.assert_array_equal(net.layers[0].weights, w)
    np.testing.assert_array_equal(net.layers[1].biases, [0.0])
    assert net.description == "a net?[31m"
    one_name = saved(tmp_path / "one.npz", weights_0=w, weights_1=w.T, activations=np.array("relu"))
    assert [f.activation.name for f in Network.load(one_name).layers] == ["relu", "identity"]


def refused(path, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        Network.load(path)
    text = str(caught.value)
    assert "\n" not in text
    assert "\x1b" not in text
    assert os.path.basename(path) in text


ROW = np.ones((1, 1))
ACT = np.array(["identity"])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"activations": ACT}, "weights_0, weights_1"),
        ({"weights_1": ROW, "activations": ACT}, "without gaps"),
        ({"weights_0": ROW}, "'activations' is missing"),
        ({"weights_0": ROW, "activations": ACT, "extra": ROW}, "unexpected member 'extra'"),
        ({"weights_0": ROW, "activations": ACT, "biases_1": ROW[0]}, "biases_1 has no weights_1"),
        ({"weights_0": ROW * np.nan, "activations": ACT}, r"weights\[0\] must be finite"),
        ({"weights_0": ROW[0], "activations": ACT}, r"weights\[0\] must be a matrix"),
        ({"weights_0": ROW * 1j, "activations": ACT}, "dtype complex128"),
        ({"weights_0": np.array([["1"]]), "activations": ACT}, "weights_0 must hold numbers"),
        ({"weights_0": ROW, "activations": np.array(["swish\x1b[2J"])}, r"swish\?\[2J"),
        ({"weights_0": ROW, "activations": np.array([1.0])}, "activations must be"),
        ({"weights_0": ROW, "activations": np.array(["relu"] * 2)}, "activations must hold 1"),
        ({"weights_0": ROW, "activations": ACT, "description": ROW}, "description must be"),
        ({"weights_0": np.array([[{}]], object), "activations": ACT}, "pickled Python objects"),
        ({"weights_0": np.zeros((1, 1), "V8"), "activations": ACT}, "expected real numbers"),
        ({"weights_0": np.zeros((1, 1), np.longdouble), "activations": ACT}, "expected real"),
        ({"weights_0": np.zeros((1, 1), "M8[s]"), "activations": ACT}, "expected real numbers"),
    ],
)
def test_files_with_wrong_members_are_refused(tmp_path, arrays, message):
    refused(saved(tmp_path / "bad.npz", **arrays), message)


def test_a_text_file_and_an_empty_file_are_refused(tmp_path):
    for content in (b"hello, I am a model\n", b"", b"PK\x03\x04 not really"):
        path = tmp_path / "text.npz"
        path.write_bytes(content)
        refused(path, "not a readable .npz")


def test_every_truncation_of_a_file_is_refused(tmp_path, rng):
    whole = saved(tmp_path / "net.npz", weights_0=rng.standard_normal((4, 4)), activations=ACT)
    content = whole.read_bytes()
    path = tmp_path / "cut.npz"
    for length in range(0, len(content), 37):
        path.write_bytes(content[:length])
        refused(path, "cut.npz")


def test_flipped_bytes_give_a_network_or_a_refusal(tmp_path, rng):
    arrays = {"weights_0": rng.standard_normal((3, 3)), "activations": ACT}
    np.savez_compressed(tmp_path / "net.npz", **arrays)
    content = (tmp_path / "net.npz").read_bytes()
    path = tmp_path / "flipped.npz"
    messages = []
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(bytes(damaged))
        try:
            Network.load(path)
        except ModelFileError as error:
            messages.append(str(error))
    assert messages
    assert not any("\n" in message for message in messages)


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_duplicates_strangers_and_traversal_are_refused(tmp_path):
    for members, message in (
        ([("weights_0.npy", npy(ROW)), ("weights_0.npy", npy(ROW))], "duplicate member"),
        ([("weights_0.npy", npy(ROW)), ("run.py", b"print()")], "not an .npy array"),
        ([("../../weights_0.npy", npy(ROW))], "unexpected member"),
        ([("weights_0.npy", npy(ROW)[:-3])], "bytes"),
        ([("weights_0.npy", npy(ROW) + b"more")], "bytes"),
        ([("weights_0.npy", b"no header")], "magic"),
    ):
        path = tmp_path / "bad.npz"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members:
                if message == "duplicate member" and archive.namelist():
                    with pytest.warns(UserWarning, match="Duplicate"):
                        archive.writestr(name, content)
                else:
                    archive.writestr(name, content)
        refused(path, message)


def test_a_zip_bomb_is_refused_before_it_expands(tmp_path):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, weights_0=np.zeros((3000, 4000)), activations=ACT)
    assert path.stat().st_size < 200_000
    refused(path, "would expand")


def test_a_header_may_not_promise_more_than_the_file_holds(tmp_path):
    header = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000, 1000000)}"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n"
    path = tmp_path / "promise.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights_0.npy", content)
    refused(path, "8000000000000 bytes")


def test_directories_fifos_and_devices_are_refused(tmp_path):
    refused(tmp_path, "is a directory")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "fifo.npz")
        refused(tmp_path / "fifo.npz", "not a regular file")
    if os.path.exists("/dev/zero"):
        refused("/dev/zero", "not a regular file")
    with pytest.raises(FileNotFoundError):
        Network.load(tmp_path / "absent.npz")
