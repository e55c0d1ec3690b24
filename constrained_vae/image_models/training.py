"""Training: the training step of image models for every objective, with a state that can be saved and restored."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._utils import deadline
from .._utils.checks import TooLargeError, shown
from .._utils.files import check_contents, entry
from ..geco.evaluation import gaussian_nll
from ..geco.history import History, column_name, make_history
from ..geco.loop import INTERRUPTED, LATE, NotFiniteError, out_of_time
from ..geco.states import check_history, check_multipliers
from ..geco.weighing import columns, learned_of, measure, stake, weight_of
from ..objectives.constraints import Constraint
from .energies import ImageTerm, squared_error
from .models import Model, Pass
from .optimisation import learning_rate_at
from .processes import Processes
from .tasks import Task

_BETAS = (0.9, 0.99)  # of Adam


@dataclass(frozen=True, eq=False)
class Drawn:
    """The rows (B,) of a step that this process computes, with images, noise and contexts."""

    step: int
    rows: np.ndarray
    x: Tensor
    noise: Tensor
    context: Tensor | None = None


@dataclass(eq=False)
class Training:
    """Model, optimiser and multipliers during training.

    An epoch takes every row of the task once, in an order that depends on the seed and its number. Noise and
    augmentation depend on the seed and the step, and are drawn for the whole batch; each process keeps its part.
    """

    model: Model
    task: Task
    terms: list[ImageTerm]
    beta: Callable[[int], float] | None
    sigma: float
    batch_size: int
    learning_rate: float
    total: int  # steps over which the learning rate falls
    clip: float
    seed: int
    every: int
    device: torch.device
    autocast: bool
    processes: Processes
    steps: int = 0
    rows: list[list[float]] = field(default_factory=list)
    signals: list[int] = field(default_factory=list)  # that wait until all processes end

    def __post_init__(self) -> None:
        self.model.to(self.device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.processes.agree(self.parameters)
        self.adam = torch.optim.Adam(self.parameters, betas=_BETAS)
        self.dim = math.prod(self.model.image_shape)
        self.columns = self._columns()
        self._ahead: Drawn | None = None
        self._epoch, self._order = -1, np.empty(0, dtype=np.intp)
        self._ends = ""

    def _columns(self) -> tuple[str, ...]:
        """Names of the numbers that `step` returns, in their order."""
        names = ["kl", "distortion", "nll", "learning_rate", "gradient", *["beta"] * (self.beta is not None)]
        parts = [column_name("kl", str(t + 1)) for t in range(self.model.code_shape[0])]
        return (*names, *parts * (len(parts) > 1), *columns(self.terms))

    def history(self, constraints: tuple[Constraint, ...]) -> History:
        """The history of all steps so far."""
        return make_history(
            self.columns, self.rows, dim=self.dim, sigma=self.sigma, constraints=constraints, every=self.every
        )

    def step(self) -> list[float]:
        """One step of the network and of every multiplier (T20); the measurements, in the order of `columns`.

        Raises
        ------
        NotFiniteError
            If the loss or its gradient is not finite; the parameters are then unchanged.
        TooLargeError
            If the batch does not fit into the memory of the device.
        """
        try:
            return self._step()
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)) and "CPUAllocator" not in str(error):
                raise
            raise TooLargeError(
                f"batch_size {self.batch_size} does not fit into the memory of the device {self.device}: lower it"
            ) from None

    def _step(self) -> list[float]:
        drawn = self._ahead if self._ahead and self._ahead.step == self.steps else self.draw(self.steps)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast and self.device.type == "cuda"):
            done = self.model(drawn.x, drawn.noise, drawn.context)
        kl = done.kl.mean(0)
        distortion, energies = self.energies(drawn, done)
        weights = [weight_of(term, self.steps) for term in self.terms]
        loss = kl.sum() + sum(w * e for w, e in zip(weights, energies, strict=True) if w is not None)
        self.adam.zero_grad()
        (loss / stake(self.terms, self.steps)).backward()
        self.processes.average_gradients(self.parameters)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        ends = [kl.new_full((), float(one)) for one in (deadline.passed(), bool(self.signals))]
        found = self.processes.mean(torch.cat([kl, torch.stack([distortion, *energies, *ends])]).detach())
        if self.device.type != "cpu":
            self._ahead = self.draw(self.steps + 1)  # while the device computes
        gradient, *numbers, late, pressed = torch.cat([norm[None], found]).tolist()
        if not np.isfinite(numbers).all():
            raise NotFiniteError(f"the loss is not finite, KL and energies {numbers}")
        if not math.isfinite(gradient):
            raise NotFiniteError("the gradient is not finite")
        self._ends = LATE if late else INTERRUPTED if pressed else ""
        return self._move(numbers[: len(kl)], *numbers[len(kl) :], gradient=gradient)

    def _move(self, kl: list[float], distortion: float, *energies: float, gradient: float) -> list[float]:
        """Adam's step and that of the multipliers, from the mean KL of every step of the model and the energies."""
        rate = learning_rate_at(self.steps, self.total, self.learning_rate)
        row = [sum(kl), distortion, gaussian_nll(distortion, self.sigma, self.dim), rate, gradient]
        if self.beta is not None:
            row.append(self.beta(self.steps))
        row += kl * (len(kl) > 1)
        for term, energy in zip(self.terms, energies, strict=True):
            row += measure(term, energy, self.steps)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        for multiplier in learned_of(self.terms).values():
            multiplier.step()
        if self.steps % self.every == 0:
            self.rows.append(row)
        self.steps += 1
        return row

    def energies(self, drawn: Drawn, done: Pass) -> tuple[Tensor, list[Tensor]]:
        """Means over the rows of this process of the squared error and of the energy of every term."""
        distortion = squared_error(drawn.x, done.mean)
        found = [term.at(drawn.rows, drawn.x, done.mean, distortion) for term in self.terms]
        return distortion.mean(), [energy.mean() for energy in found]

    def ends(self) -> str:
        """Why training ends: several processes end together if one of them is out of time or was interrupted."""
        return out_of_time() if self.processes.count == 1 else self._ends

    def draw(self, step: int) -> Drawn:
        """The rows of this process in the batch of a step, on its device and of the type of the model."""
        rows = torch.as_tensor(self.batch(step))
        random = np.random.SeedSequence([self.seed, step]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(random[0]))
        batch = self.task.batch(rows, generator)
        noise = torch.randn(len(rows), *self.model.code_shape, generator=generator)
        x, noise, *context = (
            self.processes.share(values).to(self.device, self.model.centre.dtype)
            for values in (batch.x, noise, batch.context)
            if values is not None
        )
        return Drawn(step, self.processes.share(rows).numpy(), x, noise, *context)

    def batch(self, step: int) -> np.ndarray:
        """Rows (B,) of the task in the batch of a step."""
        epoch, place = divmod(step, len(self.task) // self.batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.task))
        return self._order[place * self.batch_size : (place + 1) * self.batch_size]

    def state(self) -> dict[str, Any]:
        """Everything that changes in training: tensors on the CPU, and numbers."""
        moments = [(p, self.adam.state[p]) for p in self.parameters] if self.steps else []
        learned = {name: multiplier.state_dict() for name, multiplier in learned_of(self.terms).items()}
        return {
            "steps": self.steps,
            "model": {name: values.detach().cpu().clone() for name, values in self.model.state_dict().items()},
            "adam_mean": [_moment(found, "exp_avg", p) for p, found in moments],
            "adam_square": [_moment(found, "exp_avg_sq", p) for p, found in moments],
            "history": torch.tensor(self.rows, dtype=torch.float64).reshape(len(self.rows), len(self.columns)),
            "multipliers": json.dumps(learned),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a state; ValueError if it is not one of such a training, which is then unchanged."""
        learned = self._checked(state)
        self.model.load_state_dict(state["model"])
        for p, mean, square in zip(self.parameters, state["adam_mean"], state["adam_square"], strict=False):
            moments = {"exp_avg": mean.to(p, copy=True), "exp_avg_sq": square.to(p, copy=True)}
            self.adam.state[p] = {"step": torch.tensor(float(state["steps"])), **moments}
        self.steps, self.rows, self._ahead = state["steps"], state["history"].tolist(), None
        for name, multiplier in learned_of(self.terms).items():
            multiplier.load_state_dict(learned[name])

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """The states of the multipliers, if all of a state fits this training."""
        steps, found, own = entry(state, "steps", int), entry(state, "model", dict), self.model.state_dict()
        if set(found) != set(own):
            raise ValueError(f"model must have the tensors {', '.join(own)}, got {', '.join(map(str, found))}")
        for name, like in own.items():
            _check_tensor(found[name], name, like)
        moments = self.parameters if steps else []
        for name, least in (("adam_mean", -math.inf), ("adam_square", 0.0)):
            if len(entry(state, name, list)) != len(moments):
                raise ValueError(f"{name} must have {len(moments)} tensors, got {len(state[name])}")
            for values, like in zip(state[name], moments, strict=True):
                _check_tensor(values, name, like, least)
        check_history(entry(state, "history", Tensor).numpy(), self.columns, math.ceil(steps / self.every))
        states = {"multipliers": json.loads(entry(state, "multipliers", str))}
        learned: dict[str, Any] = entry(states, "multipliers", dict)
        check_multipliers(learned, learned_of(self.terms), steps)
        return learned


def _moment(found: dict[str, Tensor], name: str, parameter: Tensor) -> Tensor:
    """A moment of Adam on the CPU; 0 for a parameter that the loss does not use, of which Adam knows nothing."""
    moment = found.get(name)
    return (torch.zeros_like(parameter) if moment is None else moment).detach().cpu().clone()


def _check_tensor(values: Any, name: str, like: Tensor, least: float = -math.inf) -> None:
    """Raise ValueError unless the values are a finite tensor of the shape and type of another one."""
    if not isinstance(values, Tensor) or values.dtype != like.dtype:
        raise ValueError(f"{name} must be a tensor of {like.dtype}, got {shown(values)}")
    check_contents(values.numpy(), name, tuple(like.shape), least)
