"""Affine transforms by logarithms, and by angles, shears and scales."""

import math

import pytest
import torch

from impactreg.components.scales import scales_of
from impactreg.components.setup import Setup
from impactreg.components.transforms.affine_forms import AffineDTITransform, AffineLogTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ParameterError, TransformError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(kind, n):
    parameters = kind.identity_parameters(n)
    return kind(parameters + 0.2 * random(len(parameters)), random(n, seed=2))


KINDS = [(kind, n) for kind in (AffineLogTransform, AffineDTITransform) for n in (2, 3)]


@pytest.mark.parametrize(("kind", "n"), KINDS)
def test_the_identity_leaves_points_where_they_are(kind, n):
    assert torch.allclose(kind(kind.identity_parameters(n), random(n))(random(5, n)), random(5, n), atol=1e-12)


@pytest.mark.parametrize(("kind", "n"), KINDS)
def test_derivatives_to_the_parameters_are_exact(kind, n):
    transform, points = make(kind, n), 10 * random(5, n)
    for direction in torch.eye(transform.parameters.numel()).double():
        ahead, behind = (transform.with_parameters(transform.parameters + s * direction)(points) for s in (1e-6, -1e-6))
        assert torch.allclose(transform.at(points).push_forward(direction), (ahead - behind) / 2e-6, atol=1e-7)


def test_the_logarithm_of_a_rotation_is_its_angle():
    angle = 0.4
    values = torch.tensor([0, -angle, angle, 0, 5, 6]).double()
    transform = AffineLogTransform(values, torch.zeros(2).double())
    expected = torch.tensor([[math.cos(angle) + 5, math.sin(angle) + 6]]).double()
    assert torch.allclose(transform(torch.tensor([[1.0, 0.0]]).double()), expected)


@pytest.mark.parametrize(("kind", "n"), KINDS)
def test_scales_are_estimated_unless_they_are_given(kind, n):
    image = Image(torch.zeros(1, *(8,) * n), Grid.of((8,) * n))
    transform = make(kind, n)
    total = transform.parameters.numel()
    for asked in ("true", "false"):
        settings = kind.Settings.read(ParameterMap.from_dict({"AutomaticScalesEstimation": asked}))
        scales = scales_of(Combination(transform), settings, image)
        assert torch.allclose(scales[-n:], torch.ones(n).double())
        assert not torch.allclose(scales[:-n], torch.ones(total - n).double())
    given = list(range(1, total + 1))
    settings = kind.Settings.read(ParameterMap.from_dict({"Scales": given, "AutomaticScalesEstimation": "true"}))
    assert scales_of(Combination(transform), settings, image).tolist() == given
    with pytest.raises(TransformError, match=f"{total} numbers, not 2"):
        scales_of(Combination(transform), kind.Settings.read(ParameterMap.from_dict({"Scales": [1, 2]})), image)
    with pytest.raises(ParameterError, match="above 0"):
        kind.Settings.read(ParameterMap.from_dict({"Scales": [1, 0]}))


@pytest.mark.parametrize(("kind", "n"), KINDS)
def test_it_begins_as_the_identity_about_the_centre_of_the_image(kind, n):
    image = Image(torch.zeros(1, *(8,) * n), Grid.of((8,) * n))
    start = kind.begin(kind.Settings(), Setup(image, image))
    assert torch.equal(start.parameters, kind.identity_parameters(n))
    assert start.centre.tolist() == [3.5] * n
