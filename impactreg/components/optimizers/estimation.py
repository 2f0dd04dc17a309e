"""Step sizes estimated from the images: how elastix's adaptive stochastic gradient descent chooses its own parameters.

The step size is such that no point moves by more than about `MaximumStepLength` millimetres in an iteration. `Original`
and `OriginalButSigmoidToDefault` follow Klein, Pluim, Staring and Viergever (IJCV 81, 2009), `DisplacementDistribution`
follows Qiao, Sun, Lelieveldt and Staring (SPIE Medical Imaging 2014). J is the transform's Jacobian to the scaled
parameters.
"""

import logging
import time
from dataclasses import dataclass
from math import ceil, isfinite, log, sqrt, tanh
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.optimizers.gradient_descent import decaying_gain
from impactreg.components.optimizers.optimizer import Objective, SamplingSettings, norm
from impactreg.components.samplers import grid_samples
from impactreg.components.transforms.transform import Mapped, Parameters
from impactreg.errors import RegistrationError
from impactreg.images import sums
from impactreg.parameters import Once

logger = logging.getLogger(__name__)
_TINY = 1e-14


class EstimationSettings(SamplingSettings):
    """The keys that steer the estimation, and the one that it needs of the gain."""

    asgd_parameter_estimation_method: Annotated[
        Literal["Original", "OriginalButSigmoidToDefault", "DisplacementDistribution"], Once
    ] = Field("Original", alias="ASGDParameterEstimationMethod", description="How the step sizes are estimated.")
    gain_offset: float = Field(20.0, alias="SP_A", ge=0, description="A of the gain a / (A + t + 1)^alpha.")
    maximum_step_length_ratio: float = Field(
        1.0, gt=0, description="The default of MaximumStepLength as a multiple of the images' mean spacing."
    )
    maximum_step_length: float | None = Field(
        None,
        gt=0,
        description="How far a point moves in an iteration at most, about, in mm; by default the mean of the first two "
        "spacings of both full-resolution images, times MaximumStepLengthRatio.",
    )
    number_of_gradient_measurements: int = Field(
        0, ge=0, description="At how many perturbed positions gradients are compared; 0 for as many as are needed."
    )
    number_of_jacobian_measurements: int | None = Field(
        None,
        ge=1,
        description="At how many points the Jacobian is looked at; by default 1000 or, if more, one a parameter.",
    )
    number_of_samples_for_exact_gradient: int = Field(
        100000, ge=1, description="How many samples on a grid stand for the whole image in an exact gradient."
    )
    sigmoid_scale_factor: float = Field(
        0.1, gt=0, description="The sigmoid's estimated width, as a multiple of what the gradients' noise suggests."
    )
    noise_compensation: Annotated[bool, Once] = Field(
        True, description="Whether DisplacementDistribution takes smaller steps the noisier the gradients are."
    )
    maximum_displacement_estimation_method: Annotated[Literal["2sigma", "95percentile"], Once] = Field(
        "2sigma",
        description="Read for compatibility: as in elastix, only the mean plus two standard deviations is used.",
    )
    max_band_cov_size: int = Field(192, ge=0, description="Read for compatibility: how elastix stores a matrix.")
    number_of_band_structure_samples: int = Field(
        10, ge=0, description="Read for compatibility: how elastix stores a matrix."
    )

    @property
    def samples_gradients(self) -> bool:
        """Whether the estimation measures the noise of the gradients."""
        return self.asgd_parameter_estimation_method != "DisplacementDistribution" or self.noise_compensation


@dataclass(frozen=True)
class Schedule:
    """The gain a / (A + t + 1)^alpha, and the sigmoid by which t moves as gradients agree or disagree."""

    a: float
    A: float
    alpha: float
    sigmoid_max: float = 1.0
    sigmoid_min: float = -0.8
    sigmoid_scale: float = 1e-8

    def gain(self, at: float) -> float:
        """The step size at this time."""
        return decaying_gain(self.a, self.A, self.alpha, at)

    def time_step(self, agreement: float) -> float:
        """How much time passes when <g_k, g_{k-1}> is `agreement`: less than none when it is positive.

        The formula is (2) of Cruz (1986) in Klein et al. (2009), with the shift that puts its zero at an agreement of
        0.
        """
        shift = log(-self.sigmoid_max / self.sigmoid_min)
        # tanh saturates where the exponential of the textbook's sigmoid overflows.
        share = (1 + tanh((-agreement / self.sigmoid_scale - shift) / 2)) / 2
        return self.sigmoid_min + (self.sigmoid_max - self.sigmoid_min) * share

    def lines(self) -> str:
        """The six lines in which elastix logs it."""
        keys = ("SP_a", "SP_A", "SP_alpha", "SigmoidMax", "SigmoidMin", "SigmoidScale")
        values = (self.a, self.A, self.alpha, self.sigmoid_max, self.sigmoid_min, self.sigmoid_scale)
        return "\n".join(f"( {key} {value:.6f} )" for key, value in zip(keys, values, strict=True))


def estimate(settings: EstimationSettings, objective: Objective, parameters: Parameters) -> Schedule:
    """The schedule of a resolution that starts at `parameters`.

    Raises `RegistrationError` where no point lies in the fixed mask, too many samples miss the moving image, or a
    gradient is not a number.

    Where all points move alike (a translation), rounding can make elastix's variance of the displacements negative and
    its step size not a number; here that variance is never negative.
    """
    logger.info("Starting automatic parameter estimation for AdaptiveStochasticGradientDescent ...")
    began = time.perf_counter()
    if settings.maximum_displacement_estimation_method != "2sigma":
        logger.warning("MaximumDisplacementEstimationMethod 95percentile has no effect: as in elastix, 2sigma is used")
    mapped = objective.mapped(_jacobian_points(settings, objective, parameters.numel()), parameters)
    if settings.asgd_parameter_estimation_method == "DisplacementDistribution":
        schedule = _from_displacements(settings, objective, parameters, mapped)
    else:
        schedule = _from_second_moment(settings, objective, parameters, mapped)
    logger.info("Automatic parameter estimation took %.2fs", time.perf_counter() - began)
    return schedule


def step_length(settings: EstimationSettings, objective: Objective) -> float:
    """`MaximumStepLength` in millimetres, or its default from the first two spacings of both full-resolution images."""
    if settings.maximum_step_length is not None:
        return settings.maximum_step_length
    spacings = [*objective.fixed_full.grid.spacing[:2], *objective.moving_full.grid.spacing[:2]]
    return settings.maximum_step_length_ratio * sum(spacings) / len(spacings)


def _jacobian_points(
    settings: EstimationSettings, objective: Objective, parameters: int
) -> Float[Tensor, "points dim"]:
    wanted = settings.number_of_jacobian_measurements or max(1000, parameters)
    full = objective.fixed_full.grid
    points = grid_samples(objective.fixed, objective.fixed_mask, wanted, full=full).points
    if not len(points):
        raise RegistrationError(
            f"resolution {objective.level}: none of {wanted} voxels lies in the fixed mask, so no step size can be "
            "estimated; look at the fixed mask, or set AutomaticParameterEstimation to false"
        )
    return points


def _from_displacements(
    settings: EstimationSettings, objective: Objective, parameters: Parameters, mapped: Mapped
) -> Schedule:
    delta = step_length(settings, objective)
    gradient = objective.evaluate(parameters).gradient
    lengths = torch.linalg.vector_norm(mapped.push_forward(gradient / objective.scales), dim=1)
    largest = float(sums.mean(lengths) + 2 * sums.deviation(lengths, correction=0))
    quietness = 1.0
    if settings.noise_compensation:
        count = settings.number_of_gradient_measurements or 2
        gg, ee = _gradient_energies(settings, objective, parameters, _spread(delta, mapped, objective.scales), count)
        quietness = gg / (gg + ee + _TINY)
    A = settings.gain_offset
    return Schedule(delta * (A + 1) / (largest + _TINY) * quietness, A, alpha=1.0)


def _from_second_moment(
    settings: EstimationSettings, objective: Objective, parameters: Parameters, mapped: Mapped
) -> Schedule:
    delta, A = step_length(settings, objective), settings.gain_offset
    moment = mapped.second_moment(objective.scales)
    count = settings.number_of_gradient_measurements or _measurements(moment.trace, moment.frobenius)
    gg, ee = _gradient_energies(settings, objective, parameters, _spread(delta, mapped, objective.scales), count)
    signal, noise = (energy / moment.trace if min(energy, moment.trace) > _TINY else 0.0 for energy in (gg, ee))
    quietness = signal / (signal + noise + _TINY)
    reach = _largest_bound(moment.sandwich)
    a = A * delta / sqrt(signal * reach) if sqrt(signal) > _TINY and reach > _TINY else 0.0
    if settings.asgd_parameter_estimation_method == "OriginalButSigmoidToDefault":
        return Schedule(a * quietness, A, alpha=1.0)
    width = max(_TINY, settings.sigmoid_scale_factor * noise * moment.frobenius)
    return Schedule(a * quietness, A, 1.0, sigmoid_max=1.0, sigmoid_min=-0.99 + 0.98 * quietness, sigmoid_scale=width)


def _measurements(trace: float, frobenius: float) -> int:
    """So many that the mean squared gradient stays under 1.5 times its expectation, at two standard deviations."""
    enough = trace > _TINY and frobenius**2 > _TINY
    # Whole numbers are usual here, for a translation say, and a rounding error must not add one.
    count = max(2, ceil(8 * frobenius**2 / trace**2 / 0.25 - 1e-9)) if enough else 2
    logger.info("  NumberOfGradientMeasurements to estimate sigma_i: %d", count)
    return count


def _largest_bound(products: Float[Tensor, "points dim dim"]) -> float:
    """The largest Tr M + 2 sqrt(2) ||M||_F: a squared length's expectation plus two standard deviations."""
    traces = products.diagonal(dim1=1, dim2=2).sum(dim=1)
    return float((traces + 2 * sqrt(2) * torch.linalg.matrix_norm(products)).max())


def _spread(delta: float, mapped: Mapped, scales: Parameters) -> float:
    """The standard deviation of scaled parameters that displaces points by about `delta` millimetres at most."""
    bound = _largest_bound(mapped.gram(scales))
    return delta / sqrt(bound) if bound > _TINY else 0.0


def _gradient_energies(
    settings: EstimationSettings, objective: Objective, parameters: Parameters, spread: float, count: int
) -> tuple[float, float]:
    """Over perturbed parameters, mean squared lengths of the exact gradient and of the approximate one's error."""
    logger.info("  Sampling gradients ...")
    roots = objective.scales.sqrt()
    gg = ee = 0.0
    for _ in range(count):
        nearby = parameters + spread * _normal(parameters, objective.generator) / roots
        if settings.new_samples_every_iteration and objective.random_sampling:
            exact = objective.exact_gradient(nearby, settings.number_of_samples_for_exact_gradient)
            ee += norm((exact - objective.approximate_gradient(nearby)) / roots) ** 2
        else:
            exact = objective.evaluate(nearby).gradient
        gg += norm(exact / roots) ** 2
    if not isfinite(gg + ee):
        raise RegistrationError(
            f"resolution {objective.level}: the metric's gradient is not a number close to the start, so no step size "
            "can be estimated; set a smaller MaximumStepLength, or look for not-a-number values in the images"
        )
    return gg / count, ee / count


def _normal(like: Parameters, generator: torch.Generator) -> Parameters:
    return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device).to(like.device)
