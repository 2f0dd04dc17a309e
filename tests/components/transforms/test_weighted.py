"""Weighted combinations of transforms."""

import pytest
import torch

from impactreg.components.setup import Setup
from impactreg.components.transforms.files import read_transform
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.rotating import EulerTransform
from impactreg.components.transforms.transform import Combination
from impactreg.components.transforms.weighted import WeightedCombinationTransform
from impactreg.errors import ImpactregError, ParameterError, TransformError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64)


MEMBERS = (
    Combination(TranslationTransform(numbers(4, 5, 6), numbers(0, 0, 0))),
    Combination(EulerTransform(numbers(0.1, 0.2, -0.3, 4, 5, 6), numbers(3, 4, 5))),
)
POINTS = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 10


def make(normalized):
    return WeightedCombinationTransform(numbers(0.7, 0.5), MEMBERS, ("a.txt", "b.txt"), normalized)


def test_displacements_are_weighted_and_summed():
    moves = [member(POINTS) - POINTS for member in MEMBERS]
    assert torch.allclose(make(False)(POINTS), POINTS + 0.7 * moves[0] + 0.5 * moves[1])
    assert torch.allclose(make(True)(POINTS), (0.7 * MEMBERS[0](POINTS) + 0.5 * MEMBERS[1](POINTS)) / 1.2)


@pytest.mark.parametrize("normalized", [True, False])
def test_derivatives_to_the_weights_are_exact(normalized):
    transform = make(normalized)
    for direction in torch.eye(2).double():
        ahead, behind = (transform.with_parameters(transform.parameters + s * direction)(POINTS) for s in (1e-6, -1e-6))
        assert torch.allclose(transform.at(POINTS).push_forward(direction), (ahead - behind) / 2e-6, atol=1e-7)


def write(folder, name, **keys):
    given = {"Transform": "TranslationTransform", "TransformParameters": [1, 2, 3], **keys}
    path = folder / name
    path.write_text(ParameterMap.from_dict(given).text())
    return path


def weighted(folder, name="w.txt", **keys):
    return write(folder, name, Transform="WeightedCombinationTransform", **{"TransformParameters": [2, 3], **keys})


def test_sub_transforms_are_found_beside_the_file_and_written_in_full(tmp_path):
    write(tmp_path, "a.txt")
    write(tmp_path, "b.txt", TransformParameters=[5, 5, 5], InitialTransformParameterFileName=str(tmp_path / "a.txt"))
    read = read_transform(weighted(tmp_path, SubTransforms=["a.txt", "b.txt"]))
    assert torch.allclose(read(POINTS) - POINTS, numbers(2 + 18, 4 + 21, 6 + 24).expand(12, 3))
    assert read.current.written()["SubTransforms"] == [str(tmp_path / "a.txt"), str(tmp_path / "b.txt")]
    read = read_transform(weighted(tmp_path, SubTransforms=["a.txt", "b.txt"], NormalizeCombinationWeights="true"))
    assert read.current.normalized


def test_it_begins_with_equal_weights(tmp_path):
    files = [str(write(tmp_path, f"{name}.txt")) for name in "ab"]
    image = Image(torch.zeros(1, 4, 4, 4), Grid.of((4, 4, 4)))
    for normalized, start in (("false", 0.0), ("true", 0.5)):
        given = ParameterMap.from_dict({"SubTransforms": files, "NormalizeCombinationWeights": normalized})
        settings = WeightedCombinationTransform.Settings.read(given)
        transform = WeightedCombinationTransform.begin(settings, Setup(image, image))
        assert transform.parameters.tolist() == [start, start]
        assert transform.default_scales(settings).tolist() == [1, 1]
    with pytest.raises(ParameterError, match="SubTransforms"):
        WeightedCombinationTransform.begin(WeightedCombinationTransform.Settings(), Setup(image, image))
    with pytest.raises(TransformError, match="2 numbers, not 3"):
        transform.default_scales(WeightedCombinationTransform.Settings(scales=(1.0, 2.0, 3.0)))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({}, "SubTransforms ...), which is missing"),
        ({"SubTransforms": ["a.txt", "gone.txt"]}, 'gone.txt"): there is no such file'),
        ({"SubTransforms": ["a.txt"]}, "2 TransformParameters are given where 1"),
        ({"SubTransforms": ["a.txt", "w.txt"]}, "names the file itself"),
        ({"SubTransforms": ["a.txt", "v.txt"]}, "refer to each other"),
        (
            {
                "SubTransforms": ["a.txt", "a.txt"],
                "TransformParameters": [1, -1],
                "NormalizeCombinationWeights": "true",
            },
            "cannot be normalised",
        ),
    ],
)
def test_what_cannot_be_read_is_one_clear_line(tmp_path, keys, message):
    write(tmp_path, "a.txt")
    weighted(tmp_path, "v.txt", SubTransforms=["a.txt", "w.txt"])
    path = weighted(tmp_path, **keys)
    with pytest.raises(ImpactregError) as error:
        read_transform(path)
    assert message in str(error.value)
    assert "w.txt" in str(error.value)
    assert "\n" not in str(error.value)
