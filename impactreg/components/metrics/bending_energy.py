"""The bending energy of a transform: how far it is, on average, from being affine around each sample."""

import torch

from impactreg.components.metrics.metric import MetricValue, TransformMetric
from impactreg.components.samplers import Samples
from impactreg.components.transforms.transform import Combination, Transform
from impactreg.parameters import ParameterMap

PIECE = 1 << 13
"""Samples that are worked on together; their second derivatives in 3D fill 2 MB."""


class TransformBendingEnergyPenalty(TransformMetric, name="TransformBendingEnergyPenalty"):
    """The mean over the samples of the sum of all squared second derivatives d2T_k/dx_i dx_j (1/mm^2), mixed ones
    counted twice (`itk::TransformBendingEnergyPenaltyTerm`; Rueckert et al. 1999, IEEE TMI 18, 712-721).

    T is the whole transform with what comes before it, so that what that bends counts, too. elastix leaves it out of
    the value where transforms are added; here it counts either way. A transform of matrices alone has no bending energy
    and no gradient. B-splines of order 1, which elastix refuses, are penalised for their mixed derivatives. Samples
    count where T(x) is in the moving mask, even beyond the moving image. Raises `TransformError` for a transform whose
    second derivatives are not known, such as a deformation field.
    """

    @classmethod
    def check_choice(cls, parameter_map: ParameterMap, label: str, transform: type[Transform]) -> None:
        """Refuses transforms whose second derivatives are not known: those that leave `local` as it is."""
        del label
        if transform.local is Transform.local:
            raise parameter_map.error("Transform", f"the second derivatives that {cls.names[0]} needs are not known")

    def evaluate(self, transform: Combination, samples: Samples, *, gradient: bool = True) -> MetricValue:
        """The mean energy and its gradient; raises `RegistrationError` when too few samples map into the mask."""
        total = samples.points.new_zeros(())
        slope = samples.points.new_zeros(transform.parameters.numel())
        counted = 0
        for points in samples.points.split(PIECE):
            valid = None if self.scene.moving_mask is None else self.valid(transform(points))
            counted += len(points) if valid is None else int(valid.sum())
            local = transform.local(points)
            if local.flat:
                continue
            hessian = local.hessian if valid is None else torch.where(valid[:, None, None, None], local.hessian, 0.0)
            total += torch.linalg.vector_norm(hessian) ** 2
            if gradient:
                slope += local.pull_back(None, hessian)
        self.check(counted, len(samples))
        return MetricValue(float(total) / counted, slope * (2 / counted) if gradient else None)
