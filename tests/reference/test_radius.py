"""The oracles of the radii, where these are known."""

import numpy as np

from jacometry.reference import radius as reference


def test_the_joint_radius_of_two_nilpotent_matrices_is_that_of_their_product():
    a, b = np.array([[0.0, 2.0], [0.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 0.0]])
    assert reference.joint_spectral_radius([a, b], 2) == (2.0, 2.0)
    assert reference.joint_spectral_radius([a, b], 1) == (0.0, 2.0)


def test_the_joint_radius_of_the_golden_pair_lies_between():
    a, b = np.array([[1.0, 1.0], [0.0, 1.0]]), np.array([[1.0, 0.0], [1.0, 1.0]])
    lower, upper = reference.joint_spectral_radius([a, b], 4)
    golden = (1 + 5**0.5) / 2
    assert abs(lower - golden) < 1e-14
    assert abs(upper - golden) < 1e-14


def test_the_spectral_radius_of_a_turn_is_its_scale():
    assert abs(reference.spectral_radius(np.array([[0.0, -3.0], [3.0, 0.0]])) - 3) < 1e-14
