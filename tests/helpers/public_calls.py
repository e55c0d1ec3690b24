"""The public functions, classes and methods that users call, each with valid arguments for small, fast calls."""

from __future__ import annotations

import copy
import functools
import inspect
from operator import attrgetter

import matplotlib.pyplot as plt
import numpy as np

import constrained_vae as cv
from tests.test_docstrings import public_names

X = np.array([[-3.0, 1.0], [-3.0, -1.0], [3.0, 0.5], [3.0, -0.5], [2.5, 0.0], [-2.0, 0.25]])
WEIGHTS = np.array([0.1, 0.2, 0.3, 0.1, 0.2, 0.1])
HELD_OUT = np.concatenate([X + 0.01 * i for i in range(17)])
LABELS = np.array([0.0, 0.0, 1.0, 1.0, 1.0, 0.0])

# Results, and second names of functions; no user calls them. Everything else must be in `public_calls`.
RESULTS = """Blur Branch BranchComparison Certificate CertifiedFixedPoint ConstrainedFixedPoint Effort
Eigenpairs Estimate Excess ExcessParts Expectations report spectral.compare_spectral spectral.first_split equations.bits
Explorer Plateau Suggestions Transitions
FirstSplit FixedPoint Iterate Jacobian KMeansBound NearestSplit Peak PopulationBounds RateDistortionCurve Report
SpectralComparison SupportChange Tangent Transition diagnostics.Blur diagnostics.Report geco.Evaluation
geco.Feasibility geco.History geco.Placement geco.Run geco.Thresholds spectral.BranchComparison
spectral.FirstSplit spectral.SpectralComparison equations.Expectations image_models.Batch image_models.ImageEvaluation
image_models.ImageRun image_models.LinearPlacement image_models.Pass spectral.SpectralComparison.plot
spectral.BranchComparison.plot""".split()
# Called by the solvers, with arrays that were checked already.
PROTOCOLS = (
    "in_frame",
    "check",
    "statistics",
    "offset",
    "readout",
    "decoder",
    "pullback",
    "coordinates",
    "reconstructions",
    "curvature",
    "settings",
)
INNER = """Frame.inward Frame.outward FixedPoint.extended_as Sites.of_tiles Sites.with_masses Sites.merged Sites.without
Sites.with_mass Sites.total Sites.can_split Sites.split Sites geco.VAE geco.VAE.initialised geco.VAE.with_parameters
geco.VAE.forward geco.VAE.backward geco.Multiplier.state_dict Constraint FeatureMap equations.energies
equations.is_steep equations.encoder equations.log_masses equations.marginal equations.decoder equations.free_energy
equations.rate equations.distortion equations.marginal_kl equations.expectations equations.coverage
image_models.Batch.part
image_models.Model image_models.Task image_models.Task.batch image_models.Task.images image_models.Task.to
image_models.PlainImages.batch image_models.MnistRotate.batch image_models.ColourMnist.batch
image_models.Gaussian image_models.Gaussian.of image_models.Gaussian.standard image_models.Gaussian.sample
image_models.Gaussian.log_density image_models.Gaussian.kl image_models.RealNVP.outward image_models.RealNVP.inward
image_models.RealNVP.log_prob image_models.RealNVP.sample image_models.Model.forward image_models.Model.sample
image_models.Model.draw_codes image_models.Model.log_ratio image_models.Model.check""".split()


@functools.cache
def solution():
    return cv.solve(X, beta=0.5, n_tiles=4, weights=WEIGHTS)


@functools.cache
def branch():
    return cv.sweep(X, betas=np.geomspace(12, 0.5, 6), n_tiles=4)


@functools.cache
def curve():
    return cv.rate_distortion(X, betas=[4.0, 1.0], held_out=HELD_OUT)


@functools.cache
def run():
    return cv.geco.train(X, cv.RE(1.0), latent_dim=1, hidden=(3,), steps=4)


@functools.cache
def compared(of):
    return cv.compare_spectral(of, affinities=("posterior",))


@functools.cache
def suggested():
    return cv.suggest(branch())


@functools.cache
def explorer():
    return cv.explore(branch(), spectral=False)


def axes():
    return plt.figure(1, clear=True).add_subplot()


def estimator(**parameters):
    return cv.FixedPointVAE(**{"beta": 0.5, "n_tiles": 4, **parameters})


@functools.cache
def fitted():
    return estimator().fit(X)


SOLVER = {
    "sigma": 1.0,
    "n_tiles": 4,
    "tiling": None,
    "weights": WEIGHTS,
    "masses": "fixed",
    "accelerate": "lbfgs",
    "tol": 1e-8,
    "max_maps": 300,
    "time_limit": 2.0,
    "backend": "reference",
    "dtype": None,
    "progress": False,
    "on_failure": "return",
}
DATA = {"x": X, "objective": cv.ELBO(), "sigma": 1.0, "weights": WEIGHTS, "backend": "reference"}
TABLE = {"columns": ["1", "2"], "drop": ("2",), "labels": None, "standardize": False, "missing": "drop"}
PICTURES = {
    "flow": {"points": X, "paths": np.zeros((2, 3, 2)), "fixed_points": X[:2]},
    "reconstructions": {"solution": solution},
    "principal_axes": {"x": X, "weights": WEIGHTS, "count": 2},
    "images": {"shown": lambda: np.ones((3, 4)), "image_shape": (2, 2), "columns": 2},
    "partitions": {"comparison": lambda: compared(solution())},
    "agreement": {"comparison": lambda: compared(branch())},
    "phases": {"branch": branch, "critical": np.ones(1)},
    "suggestions": {"found": lambda: suggested()},
    "staircase": {"found": lambda: cv.transitions(X, n_tiles=4, limit=1)},
    "training": {"run": run},
    "distortion": {
        "branch": np.array([1.0, 2.0]),
        "values": np.array([1.0, 2.0]),
        "critical": np.ones(1),
        "detected": np.ones(1),
    },
    "second_derivative": {
        "branch": np.array([1.0, 2.0]),
        "values": np.array([1.0, 2.0]),
        "peaks": np.ones((1, 2)),
        "critical": np.ones(1),
    },
    "bifurcation": {"stable": np.ones((2, 2)), "unstable": np.ones((2, 2)), "critical": np.ones(1)},
    "split_condition": {"stable": np.ones((2, 2)), "unstable": np.ones((2, 2)), "critical": np.ones(1)},
    "hysteresis": {"cooling": np.ones((2, 2)), "heating": np.ones((2, 2)), "interval": (1.0, 2.0), "heating_end": 1.0},
    "merging_tree": {"tree": branch, "critical": np.ones(1)},
    "rate_distortion": {"curve": curve, "models": lambda: {"mine": np.array([1.0, 1.0])}, "unit": "nats"},
}


def public_calls(folder):
    """The calls by name: a function and its valid arguments; an argument that is a function here is made by it."""
    return {
        "bits": (cv.bits, {"nats": 1.0}),
        "solve": (
            cv.solve,
            {
                "x": X,
                "objective": cv.ELBO(),
                "beta": 0.5,
                **SOLVER,
                "start": None,
                "seed": 0,
                "callback": None,
                "record": False,
            },
        ),
        "sweep": (
            cv.sweep,
            {
                "x": X,
                "objective": cv.ELBO(),
                "betas": np.array([4.0, 0.5]),
                "direction": "down",
                **SOLVER,
                "start": None,
                "seed": 0,
                "predict": False,
                "resolution": 1e-3,
                "restarts": 1,
                "callback": None,
            },
        ),
        "transitions": (
            cv.transitions,
            {
                "x": X,
                "objective": cv.ELBO(),
                "beta_range": np.array([2.0, 12.0]),
                "limit": 1,
                "callback": None,
                **without(SOLVER, "dtype", "on_failure"),
            },
        ),
        "explore": (
            cv.explore,
            {
                **DATA,
                "image_shape": None,
                "names": None,
                "title": "mine",
                "spectral": False,
                "time_limit": 2.0,
                "seed": 0,
                "progress": False,
            },
        ),
        "suggest": (
            cv.suggest,
            {
                **DATA,
                "most": 3,
                "sample": 6,
                "time_limit": 2.0,
                "seed": 0,
                "progress": False,
                "on_failure": "return",
            },
        ),
        "solve_constrained": (
            cv.solve_constrained,
            {
                "x": X,
                "constraints": cv.RE(1.0),
                "box": (np.full(2, -4.0), np.full(2, 4.0)),
                "anchor": 0.0,
                **without(SOLVER, "sigma"),
            },
        ),
        "global_solution": (
            cv.global_solution,
            {
                **DATA,
                "beta": 0.5,
                "gap": 1e-4,
                "start": None,
                "max_maps": 300,
                "time_limit": 2.0,
                "progress": False,
                "on_failure": "return",
            },
        ),
        "rate_distortion": (
            cv.rate_distortion,
            {
                **DATA,
                "betas": np.array([4.0, 1.0]),
                "gap": 1e-4,
                "locate": None,
                "held_out": HELD_OUT,
                "confidence": 0.9,
                "seed": 0,
                "max_maps": 300,
                "time_limit": 2.0,
                "progress": False,
                "callback": None,
                "on_failure": "return",
            },
        ),
        "first_critical_beta": (cv.first_critical_beta, DATA),
        "default_betas": (cv.default_betas, {**DATA, "count": 5}),
        "estimate": (cv.estimate, {"n": 6, "k": 4, "d": 2, "x": X, "backend": "reference", "dtype": None}),
        "nucleation_beta": (cv.nucleation_beta, {**DATA, "time_limit": 2.0}),
        "hysteresis_interval": (cv.hysteresis_interval, {**DATA, "time_limit": 2.0}),
        "first_split": (cv.first_split, {"x": X, "weights": WEIGHTS, "backend": "reference"}),
        "block_expectations": (
            cv.block_expectations,
            {
                "x": X,
                "decoder": X[:2],
                "objective": cv.ELBO(),
                "masses": np.array([0.5, 0.5]),
                "weights": WEIGHTS,
                "frame": None,
                "backend": "reference",
                "dtype": None,
            },
        ),
        "certify": (cv.certify, {"solution": solution, "time_limit": 2.0}),
        "excess_parts": (
            cv.excess_parts,
            {"solution": solution, "encoder": None, "gap": 1e-3, "time_limit": 2.0},
        ),
        "nearest_split": (cv.nearest_split, {"solution": solution}),
        "tangent": (cv.tangent, {"at": solution}),
        "match_peaks": (cv.match_peaks, {"peaks": list, "found": list}),
        "compare_spectral": (
            cv.compare_spectral,
            {
                "solution": solution,
                "n_clusters": 2,
                "affinities": ("posterior",),
                "labels": LABELS.tolist(),
                "seed": 0,
                "time_limit": 2.0,
                "progress": False,
            },
        ),
        **{
            f"spectral.{name}": (getattr(cv.spectral, name), {"solution": solution})
            for name in ("affinity", "overlap_matrix", "spectrum", "walk")
        },
        "spectral.embedding": (cv.spectral.embedding, {"solution": solution, "n_components": 1}),
        "spectral.eigengap": (cv.spectral.eigengap, {"eigenvalues": np.array([1.0, 0.9, 0.1])}),
        **{
            f"diagnostics.{name}": (getattr(cv.diagnostics, name), {"solution": solution})
            for name in ("blur", "coverage", "marginal_kl")
        },
        **{
            f"diagnostics.{name}": (getattr(cv.diagnostics, name), {"solution": solution, "threshold": 0.5})
            for name in ("active_tiles", "holes", "report")
        },
        "backends.get_backend": (cv.backends.get_backend, {"name": "reference"}),
        # --- objectives and tilings
        "ELBO": (cv.ELBO, {"beta": 1.0, "sigma": 1.0, "likelihood": "gaussian"}),
        "ELBO.at": (cv.ELBO().at, {"beta": 1.0}),
        "Lagrangian": (
            cv.Lagrangian,
            {
                "constraints": cv.RE(1.0),
                "multipliers": 1.0,
                "beta": 1.0,
                "box": (np.full(2, -4.0), np.full(2, 4.0)),
                "anchor": 0.0,
            },
        ),
        "Lagrangian.at": (cv.Lagrangian(cv.RE(1.0), 1.0).at, {"beta": 1.0}),
        "RE": (cv.RE, {"kappa": 1.0, "reduction": "sum", "name": "RE"}),
        "RE.from_squared_error": (cv.RE.from_squared_error, {"squared_error": 1.0, "reduction": "sum"}),
        "FRE": (cv.FRE, {"kappa": 1.0, "features": np.eye(2), "name": "FRE"}),
        "CLA": (
            cv.CLA,
            {
                "kappa": 0.5,
                "classifier": cv.ClassProbabilities(np.ones((2, 2)), np.zeros(2)),
                "labels": LABELS.tolist(),
                "name": "CLA",
            },
        ),
        "PNCC": (cv.PNCC, {"kappa": 0.5, "image_shape": (2, 2), "patch": (2, 2), "stride": None, "name": "PNCC"}),
        "ClassProbabilities": (
            cv.ClassProbabilities,
            {"coefficients": np.ones((2, 2)), "intercepts": np.zeros(2), "classes": None},
        ),
        "ClassProbabilities.of": (cv.ClassProbabilities.of, {"classifier": None}),
        "Features": (cv.Features, {"function": np.sin, "product": np.multiply}),
        "FourierFeatures": (cv.FourierFeatures, {"frequencies": np.ones((3, 2)), "phases": np.zeros(3)}),
        "FourierFeatures.random": (cv.FourierFeatures.random, {"dim": 2, "n_features": 3, "gamma": 1.0, "seed": 0}),
        "LinearFeatures": (cv.LinearFeatures, {"matrix": np.eye(2)}),
        "NormalisedPatches": (cv.NormalisedPatches, {"image_shape": (2, 2), "patch": (2, 2), "stride": None}),
        "Frame": (cv.Frame, {"centre": np.zeros(2), "scale": 1.0}),
        "Frame.identity": (cv.Frame.identity, {"dim": 2}),
        "RowBlocks": (cv.RowBlocks, {"source": lambda: [X]}),
        "Tiling": (cv.Tiling, {"masses": np.array([0.5, 0.5]), "positions": np.zeros((2, 2))}),
        "Tiling.uniform": (cv.Tiling.uniform, {"n_tiles": 4}),
        "Tiling.gaussian": (cv.Tiling.gaussian, {"n_tiles": 4, "dim": 3, "seed": 0}),
        # --- data sets
        "datasets.DataSet": (
            cv.datasets.DataSet,
            {
                "x": X,
                "name": "x",
                "weights": WEIGHTS,
                "labels": LABELS,
                "image_shape": (1, 2),
                "critical_beta": 1.0,
                "columns": ("a", "b"),
                "classes": ("p", "q"),
                "centre": np.zeros(2),
                "scale": np.ones(2),
            },
        ),
        "datasets.DataSet.original": (lambda points: cv.datasets.DataSet(X, "x").original(points), {"points": X}),
        "datasets.from_table": (
            cv.datasets.from_table,
            {"frame": {"a": X[:, 0], "b": X[:, 1], "c": LABELS}, **TABLE, "name": "mine"},
        ),
        "datasets.digits": (cv.datasets.digits, {"n": 5}),
        "datasets.exponential": (cv.datasets.exponential, {"n": 5}),
        "datasets.find": (cv.datasets.find, {"source": folder / "x.npy", "seed": 0, **TABLE}),
        "datasets.four_clusters": (cv.datasets.four_clusters, {"n_per_cluster": 4, "spread": 0.1, "seed": 0}),
        "datasets.gaussian": (cv.datasets.gaussian, {"eigenvalues": np.array([1.0, 2.0]), "n": 4, "seed": 0}),
        "datasets.images": (
            cv.datasets.images,
            {"path": folder / "images.npz", "part": "test", "n": 2, "size": 2},
        ),
        "datasets.held_out": (cv.datasets.held_out, {"source": folder / "x.npy", "size": 4}),
        "datasets.load": (cv.datasets.load, {"path": folder / "x.npy", **TABLE}),
        "datasets.moons": (cv.datasets.moons, {"n": 6, "noise": 0.1, "seed": 0}),
        "datasets.patches": (cv.datasets.patches, {"n": 2, "side": 3, "seed": 0}),
        "datasets.resized": (cv.datasets.resized, {"data": lambda: cv.datasets.digits(3), "size": 4}),
        "datasets.rings": (cv.datasets.rings, {"n": 6, "radii": np.array([1.0, 2.0]), "noise": 0.1, "seed": 0}),
        "datasets.simplex": (cv.datasets.simplex, {"n_corners": 3, "scale": 1.0}),
        "datasets.two_points": (cv.datasets.two_points, {"half_distance": 1.0, "weight": 0.5, "dim": 1}),
        # --- results
        "FixedPoint.encoder_blocks": (lambda x: list(solution().encoder_blocks(x)), {"x": X}),
        "FixedPoint.encode": (lambda x: solution().encode(x), {"x": X}),
        "FixedPoint.reconstruct": (lambda x: solution().reconstruct(x), {"x": X}),
        "FixedPoint.save": (lambda path: solution().save(path), {"path": folder / "s.npz"}),
        "FixedPoint.load": (cv.FixedPoint.load, {"path": folder / "s.npz", "objective": None}),
        "Branch.at": (lambda beta: branch().at(beta), {"beta": 0.5}),
        "Branch.peaks": (lambda k, variable: branch().peaks(k, variable), {"k": 2, "variable": "beta"}),
        "Branch.plot": (lambda critical, ax: branch().plot(critical, ax), {"critical": np.ones(1), "ax": axes}),
        "FixedPoint.plot": (
            lambda image_shape, ax: solution().plot(image_shape, ax),
            {"image_shape": (1, 2), "ax": axes},
        ),
        "RateDistortionCurve.plot": (
            lambda models, ax: curve().plot(models, ax),
            {"models": lambda: {"mine": np.array([1.0, 1.0])}, "ax": axes},
        ),
        "Suggestions.plot": (lambda ax: suggested().plot(ax), {"ax": axes}),
        "Transitions.plot": (lambda ax: cv.transitions(X, n_tiles=4, limit=1).plot(ax), {"ax": axes}),
        "SpectralComparison.plot": (lambda ax: compared(solution()).plot(ax), {"ax": axes}),
        "BranchComparison.plot": (lambda ax: compared(branch()).plot(ax), {"ax": axes}),
        "geco.Run.plot": (lambda ax: run().plot(ax), {"ax": axes}),
        "Explorer.plot": (lambda ax: explorer().plot(ax), {"ax": axes}),
        "Explorer.save": (lambda path: explorer().save(path), {"path": folder / "page.html"}),
        "RateDistortionCurve.rate_at": (lambda distortion: curve().rate_at(distortion), {"distortion": np.ones(2)}),
        "Branch.save": (lambda path: branch().save(path), {"path": folder / "b.npz"}),
        "Branch.load": (cv.Branch.load, {"path": folder / "b.npz", "objective": None}),
        "RateDistortionCurve.bound_below": (
            lambda distortion: curve().bound_below(distortion),
            {"distortion": np.ones(2)},
        ),
        "RateDistortionCurve.bound_above": (
            lambda distortion: curve().bound_above(distortion),
            {"distortion": np.ones(2)},
        ),
        "RateDistortionCurve.excess": (
            lambda rate, distortion, distortion_error, population: curve().excess(
                rate, distortion, distortion_error=distortion_error, population=population
            ),
            {"rate": 1.0, "distortion": 1.0, "distortion_error": 0.1, "population": False},
        ),
        "RateDistortionCurve.from_arrays": (
            cv.RateDistortionCurve.from_arrays,
            {"arrays": lambda: curve().to_arrays()},
        ),
        "PopulationBounds.bound_below": (
            lambda distortion: curve().population.bound_below(distortion),
            {"distortion": np.ones(2)},
        ),
        "PopulationBounds.bound_above": (
            lambda distortion: curve().population.bound_above(distortion),
            {"distortion": np.ones(2)},
        ),
        "PopulationBounds.from_arrays": (
            cv.PopulationBounds.from_arrays,
            {"arrays": lambda: curve().population.to_arrays()},
        ),
        "RateDistortionCurve.kmeans_bound": (lambda K: curve().kmeans_bound(K), {"K": 2}),
        "Certificate.save": (
            lambda path, accuracy: cv.certify(solution()).save(path, accuracy=accuracy),
            {"path": folder / "proof.json", "accuracy": 1e-3},
        ),
        "RateDistortionCurve.save": (lambda path: curve().save(path), {"path": folder / "c.npz"}),
        "RateDistortionCurve.load": (cv.RateDistortionCurve.load, {"path": folder / "c.npz"}),
        "Jacobian.at": (cv.Jacobian.at, {"solution": solution, "masses": "fixed", "merge": True}),
        "Jacobian.product": (
            lambda decoder, log_masses: jacobian().product(decoder, log_masses),
            {"decoder": np.ones((len(jacobian().sites), 2)), "log_masses": None},
        ),
        "Jacobian.eigenpairs": (lambda count: jacobian().eigenpairs(count), {"count": 1}),
        # --- the estimator
        "FixedPointVAE": (
            lambda **parameters: estimator(**parameters).fit(X),
            {
                "beta": 0.5,
                "sigma": 1.0,
                "likelihood": "gaussian",
                "n_tiles": 4,
                "masses": "fixed",
                "start": "mean",
                "tol": 1e-8,
                "max_maps": 300,
                "time_limit": 2.0,
                "backend": "reference",
                "random_state": 0,
                "warm_start": True,
                "threads": 1,
            },
        ),
        "FixedPointVAE.fit": (
            lambda X, sample_weight: estimator().fit(X, sample_weight=sample_weight),
            {"X": X, "sample_weight": WEIGHTS},
        ),
        "FixedPointVAE.predict": (lambda X: fitted().predict(X), {"X": X}),
        "FixedPointVAE.predict_proba": (lambda X: fitted().predict_proba(X), {"X": X}),
        "FixedPointVAE.transform": (lambda X: fitted().transform(X), {"X": X}),
        "FixedPointVAE.inverse_transform": (lambda X: fitted().inverse_transform(X), {"X": fitted().transform(X)}),
        "FixedPointVAE.score": (
            lambda X, sample_weight: fitted().score(X, sample_weight=sample_weight),
            {"X": X, "sample_weight": WEIGHTS},
        ),
        # --- training
        "geco.train": (
            cv.geco.train,
            {
                "x": X,
                "constraints": cv.RE(1.0),
                "latent_dim": 1,
                "hidden": (3,),
                "activation": "tanh",
                "likelihood": "gaussian",
                "objective": "geco",
                "beta": None,
                "sigma": 1.0,
                "multipliers": None,
                "weights": None,
                "steps": 3,
                "time_limit": 2.0,
                "batch_size": 2,
                "learning_rate": 1e-3,
                "seed": 0,
                "dtype": None,
                "checkpoint": None,
                "checkpoint_every": 2,
                "resume": None,
                "progress": False,
                "callback": None,
            },
        ),
        "geco.thresholds": (cv.geco.thresholds, {"x": X, "latent_dim": 1, "weights": WEIGHTS}),
        "geco.Run.evaluate": (
            lambda x, weights, samples, seed: run().evaluate(x, weights=weights, samples=samples, seed=seed),
            {"x": X, "weights": WEIGHTS, "samples": 2, "seed": 0},
        ),
        "geco.Run.excess_over": (
            lambda curve, evaluation: run().excess_over(curve, evaluation=evaluation),
            {"curve": curve, "evaluation": None},
        ),
        "geco.Run.save": (lambda path: run().save(path), {"path": folder / "r.npz"}),
        "geco.VAE.encode": (lambda x: run().model.encode(x), {"x": X}),
        "geco.VAE.decode": (lambda code: run().model.decode(code), {"code": np.ones((3, 1))}),
        "geco.VAE.reconstruct": (lambda x: run().model.reconstruct(x), {"x": X}),
        "geco.VAE.sample": (lambda n, seed: run().model.sample(n, seed), {"n": 2, "seed": 0}),
        "geco.History.tail": (lambda share: run().history.tail(share), {"share": 0.5}),
        "geco.History.column": (lambda name: run().history.column(name), {"name": "kl"}),
        "geco.Multiplier": (
            cv.geco.Multiplier,
            {"threshold": 1.0, "initial": 1.0, "averaging": 0.9, "step_size": None, "burn_in": None, "bounds": None},
        ),
        "geco.Multiplier.threshold_at": (lambda step: cv.geco.Multiplier(1.0).threshold_at(step), {"step": 1}),
        "geco.Multiplier.freeze": (lambda frozen: cv.geco.Multiplier(1.0).freeze(frozen), {"frozen": True}),
        "geco.Multiplier.penalty": (
            lambda energy, weight: cv.geco.Multiplier(1.0).penalty(energy, weight),
            {"energy": 1.0, "weight": 0.5},
        ),
        "geco.Multiplier.observe": (
            lambda energy, weight: cv.geco.Multiplier(1.0).observe(energy, weight),
            {"energy": 1.0, "weight": 0.5},
        ),
        "geco.Multiplier.cost": (lambda energy: cv.geco.Multiplier(1.0).cost(energy), {"energy": 1.0}),
        "geco.natural_multiplier": (
            cv.geco.natural_multiplier,
            {"x": X, "constraint": cv.RE(0.5), "weights": None},
        ),
        "geco.Multiplier.load_state_dict": (
            lambda state: cv.geco.Multiplier(1.0).load_state_dict(state),
            {"state": lambda: cv.geco.Multiplier(1.0).state_dict()},
        ),
        "geco.Ramp": (cv.geco.Ramp, {"start": 1.0, "end": 2.0, "steps": 3}),
        "geco.Ramp.of_gqn": (cv.geco.Ramp.of_gqn, {"steps": 30}),
        **{
            f"plotting.{name}": (
                getattr(cv.plotting, name),
                arguments
                | ({} if name == "principal_axes" else {"ax": lambda: plt.figure(1, clear=True).add_subplot()}),
            )
            for name, arguments in PICTURES.items()
        },
    }


@functools.cache
def jacobian():
    return cv.Jacobian.at(solution())


def without(arguments, *names):
    return {name: value for name, value in arguments.items() if name not in names}


def valid(arguments):
    """Fresh copies of valid arguments."""
    return {
        name: value()
        if inspect.isfunction(value) or value is list or hasattr(value, "cache_info")
        else copy.copy(value)
        for name, value in arguments.items()
    }


def callable_names(names=cv.__all__):
    """All public functions, classes and methods that a user calls with arguments, of these names of the package."""
    for path in public_names(names):
        thing = attrgetter(path)(cv)
        last = path.rpartition(".")[2]
        left_out = path in RESULTS or path in INNER or path.startswith("testing.") or last in PROTOCOLS
        if (
            left_out
            or not callable(thing)
            or (inspect.isclass(thing) and issubclass(thing, (BaseException, cv.Status)))
        ):
            continue
        if set(inspect.signature(thing).parameters) - {"self"}:
            yield path
