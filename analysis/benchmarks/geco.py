"""How soon GECO meets its constraint and settles, and at which KL: `train`, and loops that people write in PyTorch.

    python -m analysis.benchmarks.geco [--data NAME] [--kappa KAPPA] [--latent L] [--steps T] [--seed S]

Three kinds of training with the same network, batches of 128 and one constraint on the error per dimension: `train`
with its defaults; a plain loop in PyTorch with the `Multiplier` of this project; a plain loop with Algorithm 1 as the
paper prints it, lambda <- lambda exp(nu C_ma) from lambda = 1, for three step sizes nu and three averages alpha. The
plain loops have PyTorch's own initial weights and Adam with the learning rate 1e-3.

A constraint is met when its average is at most 1.02 kappa^2 for the first time. It has settled at the step from which
on the average stays within 5 % of kappa^2. KL and error are means over the last tenth. The KL at kappa is that of the
same error: KL + lambda (E - kappa^2), where lambda is that of `train` for every method; it is left out where E is off
by more than 5 %. The last column is the largest lambda over the last one.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import constrained_vae as cv
from analysis import _training

_BATCH, _WIDTH, _RATE = 128, 64, 1e-3
_AVERAGING = 0.99  # of the average that is judged, the same for every method
_STEP_SIZES, _AVERAGES = (0.01, 0.1, 1.0), (0.9, 0.99, 0.999)
_MET, _SETTLED = 0.02, 0.05


@dataclass(frozen=True)
class Outcome:
    """What a training came to; steps are None where it never came there."""

    met: int | None
    settled: int | None
    kl: float
    error: float  # mean square per dimension
    multiplier: float
    peak: float


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", default="digits", help="digits, mnist, or a file (default %(default)s)")
    parser.add_argument(
        "--kappa", type=float, default=0.1, help="root of the error per dimension (default %(default)s)"
    )
    parser.add_argument("--latent", type=int, default=16, help="dimension of the latent space (default %(default)s)")
    parser.add_argument("--steps", type=int, default=8000, help="number of steps (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="seed (default %(default)s)")
    args = parser.parse_args(argv)
    x = _training.data_set(args.data).x
    print(f"{args.data}, kappa = {args.kappa:g} per dimension, {args.latent} latents, {args.steps} steps")
    print(f"{'':33} {'met':>6} {'settled':>8} {'error, rms':>11} {'KL':>8} {'KL at kappa':>12} {'peak':>8}")
    slope = None
    for name, method in methods().items():
        try:
            found = method(x, args.kappa, args.latent, args.steps, args.seed)
        except ImportError:
            print(f"{name:33} PyTorch is not installed: pip install 'constrained-vae[bench]'")
            continue
        slope = found.multiplier if slope is None else slope
        print(line(name, found, args.kappa, slope), flush=True)
    return 0


Method = Callable[[np.ndarray, float, int, int, int], Outcome]


def methods() -> dict[str, Method]:
    """Every way to train, by name."""
    found: dict[str, Method] = {"train": with_train, "Multiplier in a plain loop": with_multiplier}
    for nu, alpha in itertools.product(_STEP_SIZES, _AVERAGES):
        found[f"Algorithm 1, nu {nu:g}, alpha {alpha:g}"] = with_algorithm_1(nu, alpha)
    return found


def line(name: str, found: Outcome, kappa: float, slope: float) -> str:
    """A row of the table; the KL is moved to an error of kappa^2 along the slope."""
    steps = ["never" if step is None else str(step) for step in (found.met, found.settled)]
    excess = found.error - kappa**2
    moved = f"{found.kl + slope * excess:.2f}" if abs(excess) <= _SETTLED * kappa**2 else "-"
    numbers = f"{math.sqrt(found.error):11.4f} {found.kl:8.2f} {moved:>12} {found.peak:8.3g}"
    return f"{name:33} {steps[0]:>6} {steps[1]:>8} {numbers}"


def outcome(errors: np.ndarray, kl: np.ndarray, multipliers: np.ndarray, kappa: float) -> Outcome:
    """The outcome, from the numbers of every step."""
    average = np.empty_like(errors)
    mean = errors[0]
    for step, error in enumerate(errors):
        mean = _AVERAGING * mean + (1 - _AVERAGING) * error
        average[step] = mean
    excess = average / kappa**2 - 1
    away = np.flatnonzero(~(np.abs(excess) <= _SETTLED))
    met = np.flatnonzero(excess <= _MET)
    settled = int(away[-1]) + 1 if len(away) else 0
    tail = slice(len(errors) - max(len(errors) // 10, 1), None)
    return Outcome(
        met=int(met[0]) if len(met) else None,
        settled=settled if settled < len(errors) else None,
        kl=float(kl[tail].mean()),
        error=float(errors[tail].mean()),
        multiplier=float(multipliers[tail].mean()),
        peak=float(multipliers.max() / multipliers[-1]),
    )


def with_train(x: np.ndarray, kappa: float, latent: int, steps: int, seed: int) -> Outcome:
    """`train` with its defaults."""
    constraint = cv.RE(kappa, reduction="mean")
    history = _training.trained(x, constraint, latent_dim=latent, steps=steps, seed=seed, dtype="float32").history
    return outcome(history.per_dimension, history.kl, history.multipliers["RE"], kappa)


def with_multiplier(x: np.ndarray, kappa: float, latent: int, steps: int, seed: int) -> Outcome:
    """A plain loop with a `Multiplier` that starts at the natural lambda."""
    start = cv.geco.natural_multiplier(x, cv.RE(kappa, reduction="mean"))
    multiplier = cv.geco.Multiplier(kappa**2, initial=start)
    return _plain_loop(x, kappa, latent, steps, seed, multiplier.penalty, lambda: multiplier.value, multiplier.step)


def with_algorithm_1(nu: float, alpha: float) -> Method:
    """A plain loop with Algorithm 1 of the paper."""

    def train(x: np.ndarray, kappa: float, latent: int, steps: int, seed: int) -> Outcome:
        lam, average = 1.0, math.nan

        def penalty(error: Any) -> Any:
            nonlocal average
            c = error - kappa**2
            average = c.item() if math.isnan(average) else alpha * average + (1 - alpha) * c.item()
            return lam * (c + (average - c).detach())

        def move() -> None:
            nonlocal lam
            lam *= math.exp(nu * average)

        return _plain_loop(x, kappa, latent, steps, seed, penalty, lambda: lam, move)

    return train


def _plain_loop(
    x: np.ndarray,
    kappa: float,
    latent: int,
    steps: int,
    seed: int,
    penalty: Callable[[Any], Any],
    value: Callable[[], float],
    move: Callable[[], None],
) -> Outcome:
    """A training loop as a user of PyTorch writes it."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    points = torch.tensor(x, dtype=torch.float32)
    dim, width = points.shape[1], max(_WIDTH, 2 * latent)

    def perceptron(inputs: int, outputs: int) -> nn.Module:
        hidden = [nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
        return nn.Sequential(*hidden, nn.Linear(width, outputs))

    encoder, decoder = perceptron(dim, 2 * latent), perceptron(latent, dim)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=_RATE)
    rows = np.empty((steps, 3))
    order, per_epoch = torch.empty(0), len(points) // _BATCH
    for step in range(steps):
        place = step % per_epoch
        order = torch.randperm(len(points)) if place == 0 else order
        batch = points[order[place * _BATCH : (place + 1) * _BATCH]]
        mean, log_sigma = encoder(batch).chunk(2, dim=1)
        sigma = log_sigma.exp()
        error = (batch - decoder(mean + sigma * torch.randn_like(mean))).square().mean()
        kl = (0.5 * (mean.square() + sigma.square() - 1) - log_sigma).sum(1).mean()
        rows[step] = error.item(), kl.item(), value()
        optimizer.zero_grad()
        (kl + penalty(error)).backward()
        optimizer.step()
        move()
    errors, kl, multipliers = rows.T
    return outcome(errors, kl, multipliers, kappa)


if __name__ == "__main__":
    raise SystemExit(main())
