"""The model of the trainer: every gradient against differences, its units, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_expit

import constrained_vae as cv
from constrained_vae.data.rows import standard_frame
from constrained_vae.geco import VAE
from constrained_vae.geco.loss_terms import Term
from constrained_vae.geco.networks import _bounded
from constrained_vae.objectives.energies import CrossEntropy

N, DIM, LATENT = 6, 4, 2


def model(rng, hidden, activation="tanh", likelihood="gaussian", frame=None):
    """A model with random parameters, biases included."""
    frame = cv.Frame(np.array([0.3, 0.5, 0.6, 0.2]), 0.8) if frame is None else frame
    empty = VAE.initialised(frame, LATENT, hidden, activation=activation, likelihood=likelihood, seed=3)
    return empty.with_parameters(empty.parameters + 0.2 * rng.standard_normal(empty.parameters.shape))


def squares():
    return cv.Features(lambda x: x**2 + x[:, ::-1], lambda x, df: 2 * x * df + df[:, ::-1])


def energies(rng):
    """Every kind of energy, for data in [0, 1]."""
    probabilities = cv.ClassProbabilities(rng.standard_normal((3, DIM)), rng.standard_normal(3))
    return {
        "RE": cv.RE(0.5),
        "mean RE": cv.RE(0.5, reduction="mean"),
        "linear FRE": cv.FRE(0.5, rng.standard_normal((2, DIM))),
        "Fourier FRE": cv.FRE(0.5, cv.FourierFeatures.random(DIM, 8, gamma=0.5)),
        "FRE": cv.FRE(0.5, squares()),
        "CLA": cv.CLA(0.9, probabilities, rng.integers(0, 3, N)),
        "PNCC": cv.PNCC(0.9, (2, 2), 2),
        "cross-entropy": CrossEntropy(),
    }


def named(name):
    rng = np.random.default_rng(5)
    return energies(rng)[name]


NAMES = list(energies(np.random.default_rng(5)))


def differences(f, at, h=1e-5):
    """Gradient by central differences, of error h^2 times third derivatives plus eps / h: about 1e-10."""
    return np.array([(f(at + h * e) - f(at - h * e)) / (2 * h) for e in np.eye(len(at))])


# A Gaussian decoder leaves [0, 1], where alone there is a cross-entropy.
@pytest.mark.parametrize(
    ("name", "likelihood"), [*((name, "bernoulli") for name in NAMES), *((name, "gaussian") for name in NAMES[:-1])]
)
def test_gradients_of_every_energy(rng, name, likelihood):
    """KL + 1.7 E[H] through encoder, sampling and decoder, with respect to every parameter, to 1e-6."""
    vae = model(rng, (5,), "tanh", likelihood)
    x, noise = rng.random((N, DIM)), rng.standard_normal((N, LATENT))
    out = vae.output_frame
    term = Term.make(named(name), out.inward(x), out)
    rows = np.arange(N)

    def loss(parameters):
        done = vae.with_parameters(parameters).forward(vae.frame.inward(x), noise)
        return done.kl + 1.7 * term.at(rows, done.reconstruction)[0].mean()

    done = vae.forward(vae.frame.inward(x), noise)
    found = vae.backward(done, 1.7 / N * term.at(rows, done.reconstruction)[1])
    np.testing.assert_allclose(found, differences(loss, vae.parameters), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("hidden", [(), (5,), (6, 3)])
@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_gradients_of_every_architecture(rng, activation, hidden, likelihood):
    vae = model(rng, hidden, activation, likelihood)
    x, noise, goal = rng.standard_normal((N, DIM)), rng.standard_normal((N, LATENT)), rng.random((N, DIM))

    def loss(parameters):
        done = vae.with_parameters(parameters).forward(x, noise)
        return done.kl + ((done.reconstruction - goal) ** 3).sum()

    done = vae.forward(x, noise)
    found = vae.backward(done, 3 * (done.reconstruction - goal) ** 2)
    np.testing.assert_allclose(found, differences(loss, vae.parameters), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_energies_of_pairs_are_those_of_the_formulas(rng, name):
    """Row by row, in a frame: the diagonal of the energies (T4) of the data with as many tiles."""
    x, psi = rng.random((N, DIM)), rng.uniform(0.1, 0.9, (N, DIM))
    energy = named(name)
    frame = cv.Frame(np.full(DIM, 0.4), 0.3) if name != "cross-entropy" else cv.Frame(np.zeros(DIM), 1.0)
    term = Term.make(energy, frame.inward(x), frame)
    rows = np.array([4, 0, 2])
    values, slopes = term.at(rows, frame.inward(psi[rows]))
    if name == "cross-entropy":
        plain, (phi, s) = energy, energy.statistics(x)
    else:
        plain = energy.in_frame(cv.Frame.identity(DIM))
        phi, s = plain.statistics(x, slice(0, N))
    v, b = plain.readout(psi)
    np.testing.assert_allclose(values, (s - b - (phi * v).sum(axis=1))[rows], rtol=1e-9, atol=1e-12)
    assert slopes.shape == (3, DIM)
    if name == "RE":
        np.testing.assert_allclose(values, np.square(x - psi).sum(axis=1)[rows], rtol=1e-12)
        np.testing.assert_allclose(slopes, -2 * frame.scale * (x - psi)[rows], rtol=1e-12)


def test_the_kl_is_that_of_gaussians(rng):
    vae = model(rng, (5,))
    done = vae.forward(rng.standard_normal((N, DIM)), np.zeros((N, LATENT)))
    sigma = np.exp(done.log_sigma)
    by_hand = (-np.log(sigma) + (sigma**2 + done.mean**2) / 2 - 0.5).sum(axis=1).mean()
    assert done.kl == pytest.approx(by_hand, rel=1e-13)
    np.testing.assert_array_equal(done.code, done.mean)


def test_without_hidden_layers_the_model_is_linear(rng):
    vae = model(rng, ())
    x, y = rng.standard_normal((2, 3, DIM))
    assert len(vae.layers) == 2
    np.testing.assert_allclose(vae.reconstruct((x + y) / 2), (vae.reconstruct(x) + vae.reconstruct(y)) / 2, rtol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu", "gelu"])
def test_encode_and_decode_are_the_pass_in_units_of_the_data(rng, activation):
    x, noise = rng.random((N, DIM)), rng.standard_normal((N, LATENT))
    for likelihood in ("gaussian", "bernoulli"):
        vae = model(rng, (5, 3), activation, likelihood)
        done = vae.forward(vae.frame.inward(x), noise)
        mean, log_sigma = vae.encode(x)
        np.testing.assert_allclose(mean, done.mean, rtol=1e-12)
        np.testing.assert_allclose(log_sigma, done.log_sigma, rtol=1e-12)
        decoded = vae.decode(mean + np.exp(log_sigma) * noise)
        np.testing.assert_allclose(decoded, vae.output_frame.outward(done.reconstruction), rtol=1e-12)


def test_blocks_change_nothing(rng, monkeypatch):
    vae = model(rng, (5,))
    x = rng.random((N, DIM))
    whole = vae.reconstruct(x)
    monkeypatch.setattr("constrained_vae._utils.memory.BLOCK", 10)  # two rows
    np.testing.assert_allclose(vae.reconstruct(x), whole, rtol=1e-13)


@pytest.mark.parametrize("dim", [2, 64, 784])
@pytest.mark.parametrize(
    ("hidden", "likelihood"), [((), "gaussian"), ((32,), "gaussian"), ((32, 16), "gaussian"), ((32,), "bernoulli")]
)
def test_the_first_error_is_about_the_variance(rng, dim, hidden, likelihood):
    """In every dimension: 1 for the data, and the decoder adds its own spread, which is at most E||z||^2 / L = 2."""
    x = rng.random((500, dim)).round()
    frame = standard_frame(x, np.full(500, 1 / 500))
    vae = VAE.initialised(frame, 16, hidden, likelihood=likelihood)
    done = vae.forward(frame.inward(x), rng.standard_normal((500, 16)))
    error = np.square(vae.output_frame.outward(done.reconstruction) - x).sum(axis=1).mean() / frame.scale**2
    assert 1.0 < error < (4.0 if not hidden else 2.0)


@pytest.mark.parametrize("hidden", [(), (5,)])
def test_log_sigma_is_bounded_and_untouched_near_the_prior(rng, hidden):
    vae = model(rng, hidden)
    far = 1e6 * rng.standard_normal((50, DIM))
    _, log_sigma = vae.encode(far) if not hidden else vae.with_parameters(1e6 * vae.parameters).encode(far)
    assert -20 <= log_sigma.min() < -19.9
    assert 0.99 < log_sigma.max() <= 1
    u = np.linspace(-10.0, 0.0, 11)
    np.testing.assert_array_equal(_bounded(np, u), [u, np.ones(11)])
    u = np.linspace(-40.0, 3.0, 100)
    slopes = [(_bounded(np, v + 1e-6)[0] - _bounded(np, v - 1e-6)[0]) / 2e-6 for v in u]
    np.testing.assert_allclose(_bounded(np, u)[1], slopes, atol=1e-6)


def test_bernoulli_decoders_begin_at_the_mean_and_stay_inside(rng):
    frame = cv.Frame(np.array([0.3, 0.5, 0.6, 0.0]), 0.8)
    vae = VAE.initialised(frame, LATENT, (5,), likelihood="bernoulli")
    np.testing.assert_allclose(expit(vae.layers[-1][1]), [0.3, 0.5, 0.6, 0.01], rtol=1e-12)
    far = vae.decode(1e3 * rng.standard_normal((50, LATENT)))
    assert ((far >= 0) & (far <= 1)).all()


def test_the_cross_entropy_of_logits(rng):
    """-x log p - (1 - x) log(1 - p) from the logits, to rounding of p."""
    vae = model(rng, (5,), "tanh", "bernoulli")
    x = rng.random((N, DIM))
    done = vae.forward(vae.frame.inward(x), rng.standard_normal((N, LATENT)))
    u = np.log(done.reconstruction / (1 - done.reconstruction))
    term = Term.make(CrossEntropy(), x, vae.output_frame)
    by_hand = -(x * log_expit(u) + (1 - x) * log_expit(-u)).sum(axis=1)
    np.testing.assert_allclose(term.at(np.arange(N), done.reconstruction)[0], by_hand, rtol=1e-10)


def test_samples_come_from_the_prior_and_a_seed(rng):
    vae = model(rng, (5,))
    first = vae.sample(7, seed=2)
    assert first.shape == (7, DIM)
    np.testing.assert_array_equal(first, vae.sample(7, seed=2))
    assert (first != vae.sample(7, seed=3)).any()
    np.testing.assert_array_equal(first, vae.decode(np.random.default_rng(2).standard_normal((7, LATENT))))


def test_float32_stays(rng):
    vae = VAE.initialised(cv.Frame(np.zeros(DIM), 1.0), LATENT, (5,), activation="gelu", dtype=np.float32)
    x = rng.standard_normal((N, DIM)).astype(np.float32)
    done = vae.forward(x, rng.standard_normal((N, LATENT)).astype(np.float32))
    term = Term.make(cv.RE(0.5, reduction="mean"), x, vae.output_frame)
    values, slopes = term.at(np.arange(N), done.reconstruction)
    kinds = {a.dtype for a in (done.mean, done.reconstruction, values, slopes, vae.backward(done, slopes))}
    assert kinds == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"latent_dim": 0}, "latent_dim must be a whole number of at least 1"),
        ({"hidden": 5}, "hidden must be a tuple of widths"),
        ({"hidden": (5, 0)}, "hidden must be a whole number of at least 1"),
        ({"activation": "sine"}, "activation must be one of"),
        ({"likelihood": "cauchy"}, "likelihood must be one of"),
        ({"dtype": np.float16}, "dtype must be float64 or float32"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_architectures(options, message):
    with pytest.raises(ValueError, match=message):
        VAE.initialised(cv.Frame(np.zeros(DIM), 1.0), **{"latent_dim": 2, **options})


def test_points_and_codes_of_another_size(rng):
    vae = model(rng, ())
    with pytest.raises(ValueError, match="x must have 4 columns like the data trained on, got 3"):
        vae.encode(rng.random((2, 3)))
    with pytest.raises(ValueError, match="code must have 2 columns, got 3"):
        vae.decode(rng.random((2, 3)))
