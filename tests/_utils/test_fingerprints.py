"""Fingerprints tell contents apart that print alike."""

import numpy as np
import pytest

import constrained_vae as cv
from constrained_vae._utils.fingerprints import fingerprint, without_addresses

COEFFICIENTS = np.array([[-2.0], [2.0]])


def classifier(factor=1.0):
    return cv.ClassProbabilities(factor * COEFFICIENTS, [0.0, 0.0])


PAIRS = {  # a value, and others that its repr or its sums do not tell from it
    "rows": (np.arange(6.0).reshape(3, 2), np.arange(6.0).reshape(3, 2)[::-1], np.arange(6.0).reshape(2, 3)),
    "types": (np.zeros(2), np.zeros(2, dtype=np.float32), np.zeros(4, dtype=np.float32)),
    "matrices": (cv.FRE(0.5, np.eye(2)), cv.FRE(0.5, 3 * np.eye(2)), cv.FRE(0.5 + 1e-9, np.eye(2))),
    "labels": (cv.CLA(0.5, classifier(), [0, 1]), cv.CLA(0.5, classifier(), [1, 0])),
    "classifiers": (cv.CLA(0.5, classifier(), [0, 1]), cv.CLA(0.5, classifier(2), [0, 1])),
    "Fourier": tuple(cv.FRE(0.5, cv.FourierFeatures.random(2, 4, seed=seed)) for seed in range(3)),
    "patches": (cv.PNCC(0.5, (4, 4), 2), cv.PNCC(0.5, (4, 4), 2, stride=1)),
    "lists": (["a", "b"], ["ab"], ("a", "b"), [["a"], "b"], ["a", ["b"]]),
    "objects": (np.array(["a", None]), np.array(["a", "b"], dtype=object), np.array(["a"], dtype=object)),
}


@pytest.mark.parametrize("values", PAIRS.values(), ids=PAIRS)
def test_other_contents_have_other_fingerprints(values):
    assert len({fingerprint(value) for value in values}) == len(values)


def test_equal_contents_have_equal_fingerprints():
    assert fingerprint(cv.CLA(0.5, classifier(), [0, 1])) == fingerprint(cv.CLA(0.5, classifier(), [0, 1]))
    wide = np.arange(12.0).reshape(3, 4)
    assert fingerprint(wide[:, ::2]) == fingerprint(wide[:, ::2].copy())
    assert fingerprint(lambda x: x) == fingerprint(lambda x: x)  # nothing but the name of a function counts
    assert fingerprint(np.zeros((0, 2))) == fingerprint(np.zeros((0, 2)))


def test_addresses_are_left_out():
    assert without_addresses("<function f at 0x7f00aa>") == "<function f>"
