"""Transforms that are applied but not optimised."""

import pytest
import torch

from impactreg import register
from impactreg.errors import ParameterError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap

IMAGE = Image(torch.rand(1, 8, 8, 8), Grid.of((8, 8, 8)))


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("BSplineStackTransform", "use --engine elastix"),
        ("EulerStackTransform", "use --engine elastix"),
        ("DeformationFieldTransform", "give the field as initial transform"),
    ],
)
def test_a_registration_that_would_optimise_one_is_refused_before_it_runs(tmp_path, name, advice):
    keys = {
        "Transform": name,
        "Metric": "AdvancedMeanSquares",
        "ImageSampler": "Full",
        "Optimizer": "StandardGradientDescent",
    }
    path, out = tmp_path / "p.txt", tmp_path / "out"
    ParameterMap.from_dict(keys).write(path)
    with pytest.raises(ParameterError) as error:
        register(IMAGE, IMAGE, path, engine="torch", output_directory=out)
    assert f'p.txt:1: (Transform "{name}"): ' in str(error.value)
    assert advice in str(error.value)
    assert not out.exists()
