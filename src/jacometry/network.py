"""Fully connected networks: what the analysis needs to know of a model.

A `Network` is weights, biases and activations.  It comes from arrays, from random initialisation,
from an ``.npz`` file, or from another library's model (`jacometry.interop`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import activations as _activations
from . import initializers as _initializers
from ._network_arguments import activations_of, matrices_of, vectors_of
from ._npz import printable, read_npz
from ._status import ModelFileError
from ._validate import as_array, common_dtype, finite_scan
from .factors import Chain, Dense, Diagonal

__all__ = ["Layer", "LayerState", "Network"]

_MEMBER = re.compile(r"(weights|biases)_(0|[1-9][0-9]{0,5})")
# phi(c x) = c phi(x) for c > 0: their signals can be rescaled without changing a slope.
_HOMOGENEOUS = ("identity", "relu", "leaky_relu", "prelu", "abs")
# Signals of such layers are rescaled when their largest entry leaves 2**+-_COMFORTABLE.
_COMFORTABLE = 200


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer, ``h = phi(W h_previous + b)``.

    Attributes
    ----------
    weights : ndarray, (n_out, n_in)
        W, read-only.
    biases : ndarray, (n_out,)
        b, read-only.
    activation : Activation
        phi.
    name : str
        Printable.
    """

    weights: np.ndarray
    biases: np.ndarray
    activation: _activations.Activation
    name: str


@dataclass(frozen=True, eq=False)
class LayerState:
    """The signal at one layer; values are ``array * 2**exponent[:, None]``.

    Attributes
    ----------
    pre_activations : ndarray, (B, n)
        ``z``, up to the exponent.
    activations : ndarray, (B, n)
        ``phi(z)``, up to the exponent.
    exponent : ndarray of int64, (B,)
        0 except after layers that scale with their input (identity, ReLU, leaky ReLU).
    slopes : ndarray, (B, n)
        ``phi'(z)``.
    """

    pre_activations: np.ndarray
    activations: np.ndarray
    exponent: np.ndarray
    slopes: np.ndarray


class Network:
    """A fully connected network, ``z_l = W_l h_{l-1} + b_l``, ``h_l = phi_l(z_l)``, ``l = 1..L``.

    Make one with `from_arrays`, `random`, `load`, `from_sklearn` or `from_torch`.

    Parameters
    ----------
    layers : sequence of Layer
        In the order of application; sizes must fit.
    description : str, optional
        Free text, shown in reports.
    classes : ndarray, optional
        Labels that the outputs stand for, where they are not 0, 1, 2, ...
    flattens_input : bool, optional
        Whether a sample may have several axes, to be flattened in C order.

    Attributes
    ----------
    layers : tuple of Layer
    widths : tuple of int
        ``n_0, ..., n_L``.
    dtype : dtype
        float32 if all weights and biases are, else float64.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        description: str = "",
        classes: np.ndarray | None = None,
        flattens_input: bool = False,
    ) -> None:
        self.layers = tuple(layers)
        if not self.layers:
            raise ValueError("layers must hold at least one layer, got none")
        for k, (layer, following) in enumerate(zip(self.layers, self.layers[1:], strict=False)):
            if following.weights.shape[1] != layer.weights.shape[0]:
                raise ValueError(
                    f"weights[{k + 1}] must have {layer.weights.shape[0]} columns to follow "
                    f"weights[{k}], got shape {following.weights.shape}"
                )
        self.widths = (
            self.layers[0].weights.shape[1],
            *(layer.weights.shape[0] for layer in self.layers),
        )
        self.dtype = common_dtype(*(a for f in self.layers for a in (f.weights, f.biases)))
        self.description = description
        self.classes = classes
        self.flattens_input = flattens_input

    @classmethod
    def from_arrays(
        cls,
        weights: Sequence[npt.ArrayLike],
        biases: Sequence[npt.ArrayLike | None] | None = None,
        activations: Any = "identity",
        *,
        names: Sequence[str] | None = None,
        description: str = "",
    ) -> Network:
        """A network from its arrays, which are copied.

        Parameters
        ----------
        weights : sequence of array_like (n_out, n_in)
            ``W_1, ..., W_L``, the first applied first.
        biases : sequence of array_like (n_out,) or None, optional
            ``b_1, ..., b_L``; None, as a whole or for one layer, means zero.
        activations : str, Activation, callable, or a sequence of L of them, optional
            One is used after every layer but the last, which is then linear; a sequence gives that
            after each layer, the last one's included.
        names : sequence of str, optional
            One per layer, for reports.
        description : str, optional
            Free text, shown in reports.

        Returns
        -------
        Network

        Raises
        ------
        ValueError, TypeError
            Naming the argument and the layer: wrong shapes, NaN or infinity, unknown activations.

        Examples
        --------
        >>> net = Network.from_arrays([[[1.0, 2.0], [0.0, 1.0]], [[1.0, -1.0]]], activations="relu")
        >>> net.forward([1.0, 1.0])
        array([2.])
        """
        matrices = matrices_of(weights)
        n_layers = len(matrices)
        dtype_of = common_dtype(*matrices)
        vectors = vectors_of(biases, matrices)
        phis = activations_of(activations, n_layers)
        if names is not None and len(names) != n_layers:
            raise ValueError(f"names must hold {n_layers} strings, one per layer, got {len(names)}")
        layers = []
        for k, (matrix, vector, phi) in enumerate(zip(matrices, vectors, phis, strict=True)):
            kind = common_dtype(matrix, vector) if vector is not None else dtype_of
            matrix = np.array(
                matrix, dtype=kind if matrix.dtype.kind == "f" else dtype_of, order="C"
            )
            vector = np.zeros(len(matrix), matrix.dtype) if vector is None else vector.astype(kind)
            matrix.flags.writeable = vector.flags.writeable = False
            name = printable(str(names[k]), 64) if names is not None else f"layer {k + 1}"
            layers.append(Layer(matrix, vector, phi, name))
        return cls(layers, description=description)

    @classmethod
    def random(
        cls,
        widths: Sequence[int],
        activation: str | _activations.Activation | Callable[..., Any],
        initializer: str | Callable[..., np.ndarray],
        *,
        rng: np.random.Generator | int | None = None,
        dtype: npt.DTypeLike = np.float64,
    ) -> Network:
        """A network with random weights and zero biases.

        Parameters
        ----------
        widths : sequence of int
            ``n_0, ..., n_L``.
        activation : str, Activation or callable
            After every layer but the last, which is linear.
        initializer : str or callable
            A name of `jacometry.initializers`, or a callable of that signature.
        rng : numpy.random.Generator, int or None, optional
            SPEC 7.
        dtype : dtype, optional
            float32 or float64.

        Returns
        -------
        Network

        Raises
        ------
        ValueError, TypeError
            Naming the argument.

        Examples
        --------
        >>> Network.random([8, 16, 16, 3], "tanh", "glorot_normal", rng=0).widths
        (8, 16, 16, 3)
        """
        sizes = np.asarray(widths)
        if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or len(sizes) < 2 or sizes.min() < 1:
            raise ValueError(f"widths must be at least two integers of at least 1, got {widths!r}")
        draw = _initializers.get(initializer)
        rng = np.random.default_rng(rng)
        shapes = zip(sizes[1:].tolist(), sizes[:-1].tolist(), strict=True)
        weights = [draw(shape, rng=rng, dtype=dtype) for shape in shapes]
        return cls.from_arrays(weights, activations=_activations.get(activation))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Network:
        """A network from an ``.npz`` file; the file may be hostile.

        Parameters
        ----------
        path : str or path-like
            A file with ``weights_0, weights_1, ...`` of shape (n_out, n_in), applied in that order;
            optionally ``biases_0, ...`` of shape (n_out,); ``activations``, the L names after each
            layer, or one name for all but the last, which is then linear; optionally
            ``description``, a string.

        Returns
        -------
        Network

        Raises
        ------
        ModelFileError
            Where the file is not that: one line, naming the file and the member.
        OSError
            Where it cannot be opened.

        Notes
        -----
        Nothing is unpickled or executed; sizes, compression ratio, duplicates, types and shapes are
        checked before any array is made.
        """
        shown = printable(os.path.basename(os.fspath(path)))
        try:
            return cls._from_members(read_npz(path))
        except ModelFileError:
            raise
        except (ValueError, TypeError) as error:
            reason = printable(str(error), 300)
            raise ModelFileError(f"{shown}: not a network: {reason}") from error

    @classmethod
    def _from_members(cls, members: dict[str, np.ndarray]) -> Network:
        found: dict[str, dict[int, np.ndarray]] = {"weights": {}, "biases": {}}
        for name, array in members.items():
            if match := _MEMBER.fullmatch(name):
                if array.dtype.kind not in "biuf":
                    raise ValueError(f"{name} must hold numbers, got dtype {array.dtype}")
                found[match[1]][int(match[2])] = array
            elif name not in ("activations", "description"):
                raise ValueError(f"unexpected member {printable(name, 80)!r}")
        n_layers = len(found["weights"])
        if not n_layers or set(found["weights"]) != set(range(n_layers)):
            raise ValueError(
                "expected weights_0, weights_1, ... without gaps, got "
                f"{sorted(found['weights'])[:10] or 'none'}"
            )
        if extra := set(found["biases"]) - set(range(n_layers)):
            raise ValueError(f"biases_{min(extra)} has no weights_{min(extra)}")
        if "activations" not in members:
            raise ValueError("member 'activations' is missing")
        stored = members["activations"]
        if stored.dtype.kind != "U" or stored.ndim > 1:
            raise ValueError("activations must be one name, or one per layer, as strings")
        phis = str(stored) if stored.ndim == 0 else [str(name) for name in stored]
        description = members.get("description", np.array(""))
        if description.dtype.kind != "U" or description.ndim:
            raise ValueError("description must be one string")
        return cls.from_arrays(
            [found["weights"][k] for k in range(n_layers)],
            [found["biases"].get(k) for k in range(n_layers)],
            phis,
            description=printable(str(description), 1000),
        )

    @classmethod
    def from_sklearn(cls, mlp: Any) -> Network:
        """A network from a fitted scikit-learn ``MLPClassifier`` or ``MLPRegressor``.

        Parameters
        ----------
        mlp : MLPClassifier or MLPRegressor
            Fitted.

        Returns
        -------
        Network
            A classifier's outputs are its logits: the softmax or logistic function belongs to the
            loss.

        Raises
        ------
        UnsupportedModelError
            For any other estimator, naming it.
        ImportError
            Without the ``sklearn`` extra.
        """
        from .interop.sklearn import to_network

        return to_network(mlp)

    @classmethod
    def from_torch(cls, module: Any) -> Network:
        """A network from a ``torch.nn.Sequential``.

        Parameters
        ----------
        module : torch.nn.Sequential
            Of Linear, Flatten, Identity, Dropout (in evaluation mode), activations and further
            Sequentials.

        Returns
        -------
        Network

        Raises
        ------
        UnsupportedModelError
            For any other node, naming it.
        ImportError
            Without the ``torch`` extra.
        """
        from .interop.torch import to_network

        return to_network(module)

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        widths = "-".join(map(str, self.widths))
        if len(self.widths) > 12:
            widths = f"{self.widths[0]}-...-{self.widths[-1]}"
        names = " ".join(dict.fromkeys(layer.activation.name for layer in self.layers))
        return f"<Network {widths}, {len(self)} layers, {names}>"

    def forward(self, x: npt.ArrayLike) -> np.ndarray:
        """The network's output.

        Parameters
        ----------
        x : array_like, (n_0,) or (B, n_0)
            One input, or one per row.

        Returns
        -------
        ndarray, (n_L,) or (B, n_L)
            float32 if the network and `x` are, else float64.
        """
        return self.activations(x)[-1]

    def activations(self, x: npt.ArrayLike) -> list[np.ndarray]:
        """The signal at each interface.

        Parameters
        ----------
        x : array_like, (n_0,) or (B, n_0)
            One input, or one per row.

        Returns
        -------
        list of L + 1 ndarrays, (n_l,) or (B, n_l)
            The input itself, then ``h_1, ..., h_L``.
        """
        h = self.checked_input(x)
        signals = [h]
        for layer in self.layers:
            z = h @ layer.weights.astype(h.dtype, copy=False).T + layer.biases.astype(h.dtype)
            h = layer.activation.value(z)
            signals.append(h)
        return signals

    def jacobian_chain(self, x: npt.ArrayLike) -> Chain:
        """The derivative of the output with respect to the input, as a chain of factors.

        Parameters
        ----------
        x : array_like, (n_0,) or (B, n_0)
            Where to differentiate.

        Returns
        -------
        Chain
            ``D_L W_L ... D_1 W_1`` with ``D_l = diag(phi_l'(z_l))``, per sample for a batch.  An
            identity activation has no factor, except that a batch through a linear network ends in
            one of ones, so that it stays a batch.
        """
        h = self.checked_input(x)
        factors: list[Dense | Diagonal] = []
        for layer in self.layers:
            z = h @ layer.weights.astype(h.dtype, copy=False).T + layer.biases.astype(h.dtype)
            factors.append(Dense(layer.weights))
            if not is_built_in(layer.activation, ("identity",)):
                factors.append(Diagonal(layer.activation.slope(z)))
            h = layer.activation.value(z)
        if h.ndim == 2 and all(isinstance(factor, Dense) for factor in factors):
            factors.append(Diagonal(np.broadcast_to(h.dtype.type(1), h.shape)))
        return Chain(factors)

    def checked_input(self, x: npt.ArrayLike) -> np.ndarray:
        """`x` as an array of the dtype that the network computes with, or an error naming it.

        Parameters
        ----------
        x : array_like, (n_0,) or (B, n_0)
            With several axes per sample where the network flattens its input.

        Returns
        -------
        ndarray, (n_0,) or (B, n_0)

        Raises
        ------
        ValueError, TypeError
            For a wrong shape, a dtype that is not real, NaN or infinity.
        """
        array = as_array("x", x)
        n_inputs = self.widths[0]
        if self.flattens_input and array.ndim > 2 and np.prod(array.shape[1:]) == n_inputs:
            array = array.reshape(len(array), n_inputs)
        if array.ndim not in (1, 2) or array.shape[-1] != n_inputs:
            raise ValueError(
                f"x must have shape ({n_inputs},) or (B, {n_inputs}), as the network has "
                f"{n_inputs} inputs, got shape {array.shape}"
            )
        finite_scan("x", array)
        reference = np.empty(0, self.dtype)
        return array.astype(common_dtype(array, reference), copy=False)

    def propagate(self, x: np.ndarray) -> Iterator[LayerState]:
        """The signal layer by layer, in float64, safe at any depth.

        Parameters
        ----------
        x : ndarray, (B, n_0)
            Finite inputs.

        Yields
        ------
        LayerState
            One per layer.

        Raises
        ------
        ValueError
            Where a signal overflows in front of an activation that does not scale with its input.

        Notes
        -----
        After identity, abs and (leaky, parametric) ReLU a sample is rescaled by a power of two when
        it leaves ``2**+-200``, which is exact and changes no slope.  Memory: one layer's state.
        """
        h = x.astype(np.float64)
        exponent = np.zeros(len(h), np.int64)
        for layer in self.layers:
            biases = layer.biases.astype(np.float64)
            if biases.any():
                # Below this a sample is invisible beside the biases, whose scaling must not
                # overflow.
                lowest = np.frexp(np.abs(biases).max())[1] - _COMFORTABLE
                raised = np.maximum(exponent, lowest)
                h, exponent = _ldexp(h, exponent - raised), raised
            with np.errstate(over="ignore", invalid="ignore"):
                z = h @ layer.weights.T.astype(np.float64) + _ldexp(biases, -exponent)
            if is_built_in(layer.activation, _HOMOGENEOUS):
                size = np.frexp(np.abs(z).max(axis=1, initial=0.0))[1].astype(np.int64)
                shift = np.where(np.abs(size) > _COMFORTABLE, size, 0)
                z, exponent = _ldexp(z, -shift), exponent + shift
            else:
                z, exponent = _ldexp(z, exponent), np.zeros_like(exponent)
            if not np.isfinite(z).all():
                raise ValueError(f"x: the signal overflows float64 in {layer.name!r}")
            h = layer.activation.value(z)
            yield LayerState(z, h, exponent, layer.activation.slope(z))


def is_built_in(activation: _activations.Activation, names: Sequence[str]) -> bool:
    """Whether `activation` is one of the package's own, of one of these names.

    Parameters
    ----------
    activation : Activation
        Perhaps a user's, of any name.
    names : sequence of str
        Names of `jacometry.activations`.

    Returns
    -------
    bool
    """
    return activation.is_built_in and activation.name in names


def _ldexp(values: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    """Rows of `values` (B, n), or one vector for all, times ``2**exponent``, exponent (B,)."""
    if not exponent.any():
        return values
    with np.errstate(over="ignore", under="ignore"):
        return np.ldexp(values, np.clip(exponent, -(2**14), 2**14).astype(np.int32)[:, None])
