"""Newton's method for soft modes: directions along which F is nearly flat, where the other accelerators crawl.

Just below a transition of symmetric data F is nearly flat along a rotation of the split axis, and along exchanges of
tiles: eigenvalues 1e-3, 1e-6, 1e-9 of I - J belong to one problem. The history of the accelerators spans a few of
these directions only, and differences of the map do not resolve curvatures of 1e-9. The dense Hessian does: it is
computed exactly (T8), which counts as one map per unknown. A quasi-Newton method, which starts from it and stays within
a trust region, then follows the curved valley until the next Hessian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .._utils.arrays import Array, FloatArray
from .._utils.blas import single_threaded
from .._utils.device import to_host
from .._utils.eigenvectors import eigh
from ..results.status import Status
from . import extended_precision, saddles
from .acceleration import extended
from .iteration import Iteration
from .masses import growing
from .point import Point
from .symmetrised import assembled, dense_part

_MOST_UNKNOWNS = 256  # with more unknowns the Hessian costs more than it saves
_PATIENCE = 120  # maps without convergence, or one for each unknown if that is more, before the first Hessian
_SHORT_PATIENCE = 10  # the same, if the other schemes were slow before
_FORECAST = 30  # maps from which the number of further maps is estimated
_SADDLE_MAPS = 500  # maps of one approach, before which a saddle is not accepted as the end
_NEAR = 1e-3  # in units of the data's radius: largest residual at which a Hessian is of use
_MOST_HESSIANS = 20  # before the other schemes have another turn
_IDLE = 2  # Hessians in a row that lowered neither F nor the error nor the residual, before the method ends
_ROUNDING = 10.0  # in units of the rounding of F: smaller falls do not count
_CHORDS = 8  # steps with one Hessian, and one more for each unknown
_IDLE_STEPS = 30  # in a row that neither lower F by more than its rounding nor reach a new least residual
_SMALL_DENOMINATOR = 0.01  # of the symmetric rank-one formula: the cosine between a step and the product that it missed
_SECULAR = 50  # Newton steps for the shift of a trust region, which needs about five
_LENGTH = 1e-12  # by which a step may be longer than its radius, before it is cut
_LEAST_RADIUS = 1e-12
_ROUNDED_SLOPES = 1.0  # in units of `Convergence.floor`: changes of slopes that are rounding
_RMS_ROUNDING = 0.25  # root-mean-square rounding of the residual, in units of `Convergence.floor`
_NEARLY_AT_REST = 1e3  # in units of `Convergence.floor`: residual at which coincident sites with free masses are tied
_FLAT = 1e-13  # curvatures up to this size are rounding: the mode is flat, and its coordinate arbitrary
_FIRST_RADIUS = 0.1  # of the trust region, in units of the spread of the sites
_MERGED = (0.5, 0.25, 0.1, 0.03)  # in units of the resolution stiffness^-1/2: distances of sites that may be one
_SAME_HESSIAN = 0.01  # of the least curvature: length of a Newton step, in the metric, that hardly changes it
_REFINEMENTS = 4  # Newton steps in extended precision


def wait(it: Iteration) -> None:
    """Begin to wait for the convergence of the other schemes; if they did not converge before, only shortly."""
    if not it.soft.used:
        it.soft.began = it.recorder.n_maps
    _wait(it, _SHORT_PATIENCE if it.soft.used else _patience(it))


def _wait(it: Iteration, maps: int) -> None:
    it.soft.due, it.soft.seen = it.recorder.n_maps + maps, None


def _patience(it: Iteration) -> int:
    return max(_PATIENCE, it.here.vectors[0].size)


def due(it: Iteration, tol: float) -> bool:
    """Whether the other schemes have had their time and, as the residual falls, need more maps than a Hessian."""
    now, soft = it.recorder.n_maps, it.soft
    if (now < soft.due - _FORECAST and not soft.used) or not _possible(it):
        return False
    residual = it.here.residual
    if soft.used:  # differences of the map may not see the soft mode, so that the Hessian decides on convergence
        return now >= soft.due or residual <= tol
    if soft.seen is None:
        soft.seen = now, residual
    if now < soft.due:
        return False
    before, then = soft.seen
    fall = np.log(then / residual) if 0 < residual < then else 0.0
    if fall * len(it.here.vectors[0]) < np.log(max(residual / tol, 2.0)) * (now - before):
        return True
    _wait(it, _FORECAST)
    return False


def maps_until_due(it: Iteration) -> int:
    """Number of maps before which `due` has nothing to say."""
    soft = it.soft
    if it.here.vectors[0].size > _MOST_UNKNOWNS:
        return it.options.max_maps
    return 0 if soft.used else soft.due - it.recorder.n_maps - (_FORECAST if soft.seen is None else 0)


def _possible(it: Iteration) -> bool:
    if not it.bregman or it.options.accelerate == "plain" or it.problem.data.dtype.type is not np.float64:
        return False
    unknowns = it.here.vectors[0].size
    several = len(it.here.psi) > 1 or it.options.free
    near = it.here.residual <= _NEAR * it.problem.data.radius
    return several and near and unknowns <= _MOST_UNKNOWNS and _affordable(it)


def _affordable(it: Iteration) -> bool:
    """Whether the maps that are left suffice for a Hessian."""
    return bool(len(it.here.vectors[0]) <= it.options.max_maps - it.recorder.n_maps)


@dataclass(frozen=True, eq=False)
class Quadratic:
    """F near a point, in the symmetrised coordinates metric^1/2 u: curvatures, their axes, and the residual there."""

    values: FloatArray
    vectors: FloatArray
    root: FloatArray  # metric^1/2

    @classmethod
    def at(cls, it: Iteration) -> Quadratic:
        """From one pass over the data, which counts as one map for each unknown."""
        point, problem = it.here, it.problem
        (k, dim), n = point.psi.shape, point.vectors[0].size
        it.recorder.count(n)
        psi, mass = to_host(point.psi), to_host(point.expectations.mass)
        curvature = problem.framed.curvature(psi)
        assert curvature is not None  # Bregman energies only
        move = problem.data.to_device
        sums = problem.total(dense_part, psi, to_host(point.log_masses), move(psi), move(np.sqrt(curvature)), n)
        per_root_mass = np.divide(1.0, np.sqrt(mass), out=np.zeros(k), where=mass > 0)
        jacobian = assembled((to_host(sums[0]), to_host(sums[1])), per_root_mass)
        if point.free:  # from the order by site to that of the vectors
            order = np.arange(n).reshape(k, dim + 1)
            order = np.concatenate([order[:, :dim].ravel(), order[:, dim]])
            jacobian = jacobian[np.ix_(order, order)]
        values, vectors = single_threaded(eigh, np.eye(n) - jacobian)
        return cls(values, vectors, np.sqrt(to_host(point.vectors[2])))

    def along(self, r: Array) -> FloatArray:
        """Components of a residual along the axes: minus the slopes of F."""
        components: FloatArray = self.vectors.T @ (self.root * to_host(r))
        return components

    def slopes(self, point: Point) -> FloatArray:
        """Minus the slopes of F along the axes at any point: for the squared error exactly, else to first order."""
        r, metric = (to_host(array) for array in point.vectors[1:])
        down = metric * r
        if point.free:  # of F + sum pi, which is least at the masses of sum 1
            k = len(point.psi)
            down[-k:] = np.where(metric[-k:] > 0, metric[-k:] - np.exp(to_host(point.log_masses)), 0.0)
        scaled = np.divide(down, self.root, out=np.zeros_like(down), where=self.root > 0)
        return np.asarray(self.vectors.T @ scaled)

    def displacement(self, components: FloatArray) -> FloatArray:
        """The displacement of u with components along the axes."""
        symmetrised = self.vectors @ components
        return np.divide(symmetrised, self.root, out=np.zeros_like(symmetrised), where=self.root > 0)

    def scale(self, components: FloatArray, radius: float) -> FloatArray:
        """Roots of the curvatures, made positive and increased to keep the step in the trust region to a factor of 2.

        A step is the components divided by the squares of the result.
        """
        curvature = np.maximum(np.abs(self.values), _FLAT)
        for shift in np.concatenate([[0.0], _FLAT * 2.0 ** np.arange(60)]):
            if np.linalg.norm(components / (curvature + shift)) <= radius:
                break
        return np.asarray(np.sqrt(curvature + shift))

    def size(self, components: FloatArray) -> float:
        """Length of the Newton step in the metric, where negative curvatures count as positive ones."""
        return float(np.linalg.norm(components / np.maximum(np.abs(self.values), _FLAT)))

    def gain(self, components: FloatArray, radius: float) -> float:
        """How far F falls in a step in the trust region, in nats."""
        along_gradient = float(np.sum((components / self.scale(components, radius)) ** 2))
        return (along_gradient + max(-float(self.values[0]), 0.0) * radius**2) / 2

    def error(self, components: FloatArray, floor: float) -> float:
        """Length of the Newton step, where residuals below the floor count as the floor; infinite at a saddle."""
        if self.values[0] <= 0:
            return np.inf
        least = floor / np.sqrt(len(components))
        return float(np.linalg.norm(np.maximum(np.abs(components), least) / self.values))


def approach(it: Iteration, tol: float) -> Status | None:
    """Newton's method from the current point; how it ended, or None if the other schemes must go on.

    It ends at the accuracy of the arithmetic if F cannot fall by more than its rounding, and modes are so flat that the
    rounding of the residual alone is an error above the tolerance; or if some Hessians in a row were of no use.
    """
    unit = np.sqrt(it.here.coordinates.stiffness)  # of lengths in the metric
    floor, first = _RMS_ROUNDING * it.convergence.floor * unit, _FIRST_RADIUS * unit * _spread(it.here)
    radius, move = first, it.problem.data.to_device
    same = it.soft.exhausted(it.here.free_energy, _ROUNDING * it.slack(), len(it.here.vectors[0]))
    if same and not it.options.free:  # an exchange of free masses is flat only until coincident sites are tied
        it.error = it.soft.last_error
        return Status.CRITICAL
    unchanged = False
    for _ in range(_MOST_HESSIANS):
        merge(it)
        quadratic = _quadratic(it, unchanged)
        if quadratic is None:
            break
        rounding = _ROUNDING * it.slack()
        components = quadratic.along(it.here.vectors[1])
        error = quadratic.error(components, floor) / unit
        unchanged = error * unit <= _SAME_HESSIAN * quadratic.values[0]
        it.soft.record(error, it.here, rounding)
        spent = quadratic.gain(components, first) <= rounding
        flat = spent and quadratic.error(0 * components, floor) / unit > tol
        flat = flat and (not it.options.free or it.here.residual <= _NEARLY_AT_REST * it.convergence.floor)
        if (error > tol or growing(it)) and it.here.residual > it.convergence.floor and not it.soft.idle >= _IDLE:
            moved, radius = _descend(it, quadratic, components, max(radius, 0.1 * first))
            if not moved and quadratic.values[0] < -_FLAT:
                moved = saddles.slide(it, move(quadratic.displacement(np.eye(1, len(components))[0])))
            if moved and not flat:
                continue
            error = quadratic.error(quadratic.along(it.here.vectors[1]), floor) / unit
            if not flat and (it.options.free or not spent):
                break
        # The way down from a saddle may begin with falls of F below its rounding, which the other schemes follow.
        if quadratic.values[0] < -_FLAT and it.recorder.n_maps - it.soft.began < _SADDLE_MAPS:
            break
        at_rest = it.here.residual <= it.convergence.floor
        if tol < error < np.inf and at_rest and extended_precision.possible(it):
            error = _refined(it, quadratic, tol, floor)
        it.error = it.soft.last_error = error
        if error <= tol and not growing(it):
            return Status.CONVERGED
        it.soft.free_energy, it.soft.spent = it.here.free_energy, True
        return Status.CRITICAL
    _wait(it, _patience(it))
    return None


def _quadratic(it: Iteration, unchanged: bool) -> Quadratic | None:
    """The quadratic here: the last one if it is of this point, or if neither the Hessian nor the sites have changed.

    None if a new one is needed, for which the maps that are left do not suffice.
    """
    known = it.soft.quadratic
    if known is None or not (known[0] is it.here or (unchanged and len(known[1].root) == len(it.here.vectors[0]))):
        if not _affordable(it):
            return None
        known = it.soft.quadratic = it.here, Quadratic.at(it)
    quadratic: Quadratic = known[1]
    return quadratic


def merge(it: Iteration) -> bool:
    """Tie near sites of free mass if F does not rise; return whether it did.

    A pair approaches a common site ever more slowly where that nearly meets its split condition (T9), since F is
    quartic in the distance. Without the pair the Hessian has fewer unknowns.
    """
    tried = len(it.here.psi)
    if it.options.free and it.options.split:
        for distance in _MERGED:
            merged = it.current_sites().merged(distance * it.problem.framed.stiffness**-0.5)
            if len(merged) == len(it.here.psi):
                break
            if len(merged) != tried and it.move_to(merged, strictly=True):
                return True
            tried = len(merged)
    return False


def _refined(it: Iteration, quadratic: Quadratic, tol: float, floor: float) -> float:
    """Newton steps from residuals in extended precision, as long as they help; the error after them."""
    unit, move = np.sqrt(it.here.coordinates.stiffness), it.problem.data.to_device
    least, best = np.inf, it.here
    for left in reversed(range(_REFINEMENTS)):
        components = quadratic.along(extended_precision.residual(it))
        error = quadratic.error(components, floor * extended_precision.RATIO) / unit
        if error >= least:
            _reach(it, best)
            break
        slow, least, best = error > 0.5 * least, error, it.here
        if error <= tol or slow or not left:
            break
        step = move(quadratic.displacement(components / quadratic.values))
        _reach(it, it.evaluate_vector(it.here.vectors[0] + step))
    it.soft.quadratic = it.here, quadratic
    return float(least)


def _reach(it: Iteration, point: Point) -> None:
    it.reach(point, extended([], *point.vectors[:2], plain=False))


def _spread(point: Point) -> float:
    """Root-mean-square distance of the sites from their mean, in the frame."""
    mass, psi = to_host(point.expectations.mass), to_host(point.psi)
    return float(np.sqrt(mass @ np.square(psi - mass @ psi / mass.sum()).sum(axis=1)))


def _descend(it: Iteration, quadratic: Quadratic, components: FloatArray, radius: float) -> tuple[bool, float]:
    """Steps of a trust-region method from the Hessian on, as long as they make progress; whether there were any.

    Every step corrects the Hessian, by the symmetric rank-one formula or, where its denominator is small, by Powell's
    symmetric Broyden formula, so that negative curvatures and those that change along a curved valley are followed
    (Nocedal and Wright 2006, Numerical Optimization, section 6.2). Returns the next radius, too.
    """
    move, slack, n = it.problem.data.to_device, it.slack(), len(components)
    rounding = _ROUNDED_SLOPES * it.convergence.floor * np.sqrt(it.here.coordinates.stiffness)
    hessian, slopes, moved = np.diag(quadratic.values), quadratic.slopes(it.here), False
    least, idle = it.here.residual, 0
    for _ in range(_CHORDS + n):
        values, axes = single_threaded(eigh, hessian)
        step = axes @ trust_region_step(values, axes.T @ slopes, radius)
        length, fall = float(np.linalg.norm(step)), float(slopes @ step - step @ (hessian @ step) / 2)
        point = it.here
        after = it.evaluate(*point.from_vector(point.vectors[0] + move(quadratic.displacement(step))))
        rise = after.free_energy - point.free_energy
        if not after.finite:
            radius = length / 4
            continue
        found = quadratic.slopes(after)
        missed = (slopes - found) - hessian @ step
        if np.linalg.norm(missed) > rounding and length > 0:
            hessian = hessian + correction(step, missed)
        falls = rise < -slack or (rise <= slack and it.falls(after))
        ratio = -rise / fall if fall > slack else float(falls)
        if falls:
            moved, slopes = True, found
            it.accept(after)
            if ratio > 0.5 and length > 0.8 * radius:
                radius *= 2
        if ratio < 0.1:
            radius = min(radius, length) / 4
        idle = 0 if rise < -slack or (falls and after.residual < least) else idle + 1
        least = min(least, it.here.residual)
        if idle > _IDLE_STEPS or radius < _LEAST_RADIUS or it.here.residual <= it.convergence.floor:
            break
    return moved, radius


def correction(step: FloatArray, missed: FloatArray) -> FloatArray:
    """The symmetric change (n, n) of a Hessian that turns its product with a step into that plus `missed`."""
    along, length = float(missed @ step), float(np.linalg.norm(step))
    if abs(along) > _SMALL_DENOMINATOR * length * float(np.linalg.norm(missed)):
        return np.asarray(np.outer(missed, missed) / along)
    cross = np.outer(missed, step)
    return np.asarray((cross + cross.T - along / length**2 * np.outer(step, step)) / length**2)


def trust_region_step(values: FloatArray, slopes: FloatArray, radius: float) -> FloatArray:
    """The step (n,) of at most a radius that lowers slopes . s - sum(values s^2) / 2 most, on the axes of a Hessian.

    Where the radius is not reached along a negative curvature, because its slope is zero (the "hard case"), all axes of
    about the same curvature share what is missing.

    Parameters
    ----------
    values : (n,) array
        Curvatures, in ascending order.
    slopes : (n,) array
        Minus the gradient.
    radius : float
    """
    raised = np.maximum(values - min(0.0, float(values[0])), _FLAT)  # the least shift that leaves no negative curvature
    step = slopes / raised
    left = radius**2 - float(step @ step)
    if left > 0:
        if values[0] >= 0:
            return np.asarray(step)
        soft = np.where(values <= values[0] / 2, np.where(slopes < 0, -1.0, 1.0), 0.0)
        soft /= np.linalg.norm(soft)
        along = float(step @ soft)
        return np.asarray(step + left / (along + np.sqrt(along**2 + left)) * soft)
    # 1 / |step| is concave in the shift and nearly linear, so that Newton's method never passes the root (Nocedal and
    # Wright, section 4.3).
    for _ in range(_SECULAR):
        length = float(np.linalg.norm(step))
        if length <= (1 + _LENGTH) * radius:
            break
        unit = step / length  # whose squares do not overflow
        raised = raised + (length / radius - 1) / float(unit @ (unit / raised))
        step = slopes / raised
    return np.asarray(step * min(1.0, radius / length))
