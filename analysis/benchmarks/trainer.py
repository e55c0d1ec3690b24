"""Times a training step of GECO: of this project, and of the same network and algorithm in PyTorch on the CPU.

    python -m analysis.benchmarks.trainer [--rounds R] [--threads T]

The data are the digits, in batches of 256. The network is 64-128-128-16-128-128-64 with tanh; the optimiser is Adam;
there is one RE constraint with its multiplier. Every measurement has its own process, and ratios are taken within a
round. PyTorch runs without compilation; ratios are to its fastest Adam.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import constrained_vae as cv

from ._process import elsewhere

HIDDEN, LATENT, BATCH = (128, 128), 16, 256
WARM_UP, STEPS = 50, 400
_KAPPA = 0.15  # per pixel
DTYPES = ("float64", "float32")
METHODS = ("this project", "PyTorch", "PyTorch fused Adam", "PyTorch foreach Adam")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="processes per method (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args(argv)
    print(f"{'':8} {'method':22} {'ms per step':>11} {'slowest round':>13} {'of PyTorch':>10}")
    for dtype in DTYPES:
        rounds = [
            {m: elsewhere("training", {"method": m, "dtype": dtype}, args.threads) for m in METHODS}
            for _ in range(args.rounds)
        ]
        for line in summary(dtype, rounds):
            print(line, flush=True)
    return 0


def summary(dtype: str, rounds: list[dict[str, dict[str, Any]]]) -> list[str]:
    """A line for every method: median milliseconds of a step, and their ratio to the fastest PyTorch of the round."""
    lines = []
    for method in METHODS:
        if missing := rounds[0][method].get("missing"):
            lines.append(f"{dtype:8} {method:22} {missing}")
            continue
        taken = [each[method]["milliseconds"] for each in rounds]
        fastest = [
            min((each[m]["milliseconds"] for m in METHODS[1:] if "milliseconds" in each[m]), default=float("nan"))
            for each in rounds
        ]
        ratio = statistics.median(mine / theirs for mine, theirs in zip(taken, fastest, strict=True))
        lines.append(f"{dtype:8} {method:22} {statistics.median(taken):11.2f} {max(taken):13.2f} {ratio:10.2f}")
    return lines


def measure(method: str, dtype: str, threads: int) -> dict[str, Any]:
    """Median milliseconds of a step; or the reason why the method is missing."""
    if method == "this project":
        return {"milliseconds": 1e3 * statistics.median(_ours(dtype))}
    try:
        step = _torch(method, dtype, threads)
    except ImportError:
        return {"missing": "PyTorch is not installed: pip install 'constrained-vae[bench]'"}
    times = [time.perf_counter()]
    for _ in range(WARM_UP + STEPS):
        step()
        times.append(time.perf_counter())
    return {"milliseconds": 1e3 * statistics.median(np.diff(times)[WARM_UP:])}


def _ours(dtype: str) -> list[float]:
    times: list[float] = []
    cv.geco.train(
        cv.datasets.digits().x,
        cv.RE(_KAPPA, reduction="mean"),
        latent_dim=LATENT,
        hidden=HIDDEN,
        batch_size=BATCH,
        steps=WARM_UP + STEPS,
        dtype=dtype,
        callback=lambda step, row: times.append(time.perf_counter()),
    )
    return np.diff(times)[WARM_UP:].tolist()


def _torch(method: str, dtype: str, threads: int) -> Callable[[], None]:
    """A training step as a user of PyTorch would write it, with the multiplier of this project."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    x = torch.tensor(cv.datasets.digits().x, dtype=kind)
    x = (x - x.mean(0)) / x.var(0, correction=0).sum().sqrt()
    order = torch.randperm(len(x))
    dim = x.shape[1]

    def perceptron(*widths: int) -> Any:
        layers: list[Any] = []
        for n_in, n_out in itertools.pairwise(widths):
            layers += [nn.Linear(n_in, n_out, dtype=kind), nn.Tanh()]
        return nn.Sequential(*layers[:-1])

    encoder, decoder = perceptron(dim, *HIDDEN, 2 * LATENT), perceptron(LATENT, *HIDDEN[::-1], dim)
    kinds: dict[str, dict[str, Any]] = {
        "PyTorch": {},
        "PyTorch fused Adam": {"fused": True},
        "PyTorch foreach Adam": {"foreach": True},
    }
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=5e-3, **kinds[method])
    multiplier = cv.geco.Multiplier(_KAPPA**2)
    place = 0

    def step() -> None:
        nonlocal place, order
        if (place + 1) * BATCH > len(x):
            order, place = torch.randperm(len(x)), 0
        batch = x[order[place * BATCH : (place + 1) * BATCH]]
        place += 1
        mean, log_sigma = encoder(batch).chunk(2, dim=1)
        sigma = log_sigma.exp()
        code = mean + sigma * torch.randn_like(mean)
        error = (batch - decoder(code)).square().sum(1).mean() / dim
        kl = (0.5 * (mean.square() + sigma.square() - 1) - log_sigma).sum(1).mean()
        loss = kl + multiplier.penalty(error)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        multiplier.step()

    return step


if __name__ == "__main__":
    raise SystemExit(main())
