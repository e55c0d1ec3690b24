"""A training loop of your own in PyTorch with `geco.Multiplier`: a VAE of digits, with an error of 0.15^2 per pixel.

python -m docs.examples.multiplier_in_pytorch --steps 3000 --out multiplier.pt
"""

import argparse

import torch
from torch import Tensor, nn

import constrained_vae as cv

KAPPA, LATENT, BATCH, PARTS = 0.15, 8, 128, 2  # each batch is computed in two parts, whose gradients are added


def kl_and_error(encoder: nn.Module, decoder: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Means over a batch of the KL and of the squared error per pixel."""
    mean, log_sigma = encoder(x).chunk(2, dim=1)
    z = mean + log_sigma.exp() * torch.randn_like(mean)
    kl = 0.5 * (mean**2 + (2 * log_sigma).exp() - 1) - log_sigma
    return kl.sum(1).mean(), ((x - decoder(z)) ** 2).mean()


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Train, validate and save; what was measured at the end."""
    parser = argparse.ArgumentParser(description="Train a VAE of digits under a constraint.")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", default="multiplier.pt")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    digits = cv.datasets.digits().x
    train, validation = torch.tensor(digits, dtype=torch.float32).split([1500, 297])
    encoder = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 2 * LATENT))
    decoder = nn.Sequential(nn.Linear(LATENT, 128), nn.ReLU(), nn.Linear(128, 64))
    network = nn.ModuleList([encoder, decoder])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)

    constraint = cv.RE(KAPPA, reduction="mean")
    start = cv.geco.natural_multiplier(train.numpy(), constraint)  # hundreds, for a mean over 64 pixels
    multiplier = cv.geco.Multiplier(constraint.allowance, initial=start)

    for _ in range(args.steps):
        batch = train[torch.randint(len(train), (BATCH,))]
        optimizer.zero_grad()
        for part in batch.chunk(PARTS):
            kl, error = kl_and_error(encoder, decoder, part)
            loss = kl + multiplier.penalty(error, weight=1 / PARTS)
            (loss / PARTS).backward()
        optimizer.step()
        multiplier.step()  # once for the whole batch

    with torch.no_grad():
        kl, error = kl_and_error(encoder, decoder, validation)
        cost = kl + multiplier.cost(error)  # no step of lambda
    torch.save(
        {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "multiplier": multiplier.state_dict()},
        args.out,
    )
    print(f"training: lambda {multiplier.value:.5g}, error {multiplier.average + constraint.allowance:.5g}")
    print(f"validation: KL {kl:.5g} nats, error {error:.5g}, cost {cost:.5g} nats")
    return {"lambda": multiplier.value, "KL": float(kl), "error": float(error), "cost": float(cost)}


if __name__ == "__main__":
    main()
