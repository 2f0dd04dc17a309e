"""Models of patches: what they warn of, and what they refuse with the line where it is written."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from impactreg.components.metrics.metric import Metric
from impactreg.components.transforms.linear import TranslationTransform
from impactreg.components.transforms.transform import Combination
from impactreg.errors import ModelError, ParameterError
from impactreg.parameters import ParameterMap


class Twice(nn.Module):
    """Two layers, whether they are asked for or not."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x, x * x]


class Constant(nn.Module):
    """Takes no notice of the image."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [torch.ones_like(x)]


class Normalised(nn.Module):
    """Each patch over its own deviation."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x / x.std(dim=[1, 2, 3, 4], keepdim=True)]


class OverBatch(nn.Module):
    """Over the deviation of all patches."""

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x / x.std()]


def keys(path, **more):
    given = {"ImpactMode": "Jacobian", "ImpactModelsPath0": path, "ImpactVoxelSize0": 1.5, "ImpactPatchSize0": 7}
    return given | more


def shift(*by):
    return Combination(TranslationTransform(torch.tensor(by, dtype=torch.float64), torch.zeros(len(by)).double()))


def test_dense_is_refused_where_a_model_normalises_by_its_whole_input(metric, network, pair, voxels):
    for path, cause in (
        ("MIND/R1D1_3D.pt", "it normalises by all"),
        (network(Normalised()), "they depend on many x many x many"),
    ):
        given = metric(
            "Impact", *pair, **keys(path, ImpactEvaluation="Dense", ImpactVoxelSize0=list(pair[0].grid.spacing))
        )
        with pytest.raises(ParameterError, match=f"Dense.*depend on where the patch ends: {cause}"):
            given.evaluate(shift(0, 0, 0), voxels)


def test_dense_is_refused_below_the_field_of_view(metric, network, pair, voxels):
    asked = keys(network("SmallUNet"), ImpactEvaluation="Dense", ImpactPatchSize0=8, ImpactVoxelSize0=2)
    given = metric("Impact", *pair, **asked | {"ImpactVoxelSize0": list(pair[0].grid.spacing)})
    with pytest.raises(ParameterError, match="patches of 8 8 8 depend on where the patch ends: they depend on 10 x 10"):
        given.evaluate(shift(0, 0, 0), voxels)


def test_dense_is_refused_for_samples_between_voxels(metric, network, pair, samples):
    given = metric("Impact", *pair, **keys(network("Convolutions"), ImpactEvaluation="Dense"))
    with pytest.raises(ParameterError, match="as many lattices as there are samples"):
        given.evaluate(shift(0, 0, 0), samples)


def test_a_patch_below_the_field_of_view_is_warned_of(metric, network, pair, samples, caplog):
    caplog.set_level(logging.WARNING)
    metric("Impact", *pair, **keys(network("Convolutions"), ImpactPatchSize0=5)).evaluate(shift(0, 0, 0), samples)
    assert not caplog.records
    asked = keys(network("Convolutions"), ImpactPatchSize0=3, ImpactLayersMask0="01")
    metric("Impact", *pair, **asked).evaluate(shift(0, 0, 0), samples)
    assert "ImpactPatchSize 3 3 3 is below the field of view of" in caplog.text
    assert "5 x 5 x 5 voxels" in caplog.text


def test_a_model_that_looks_over_its_batch_is_warned_of(metric, network, pair, samples, caplog):
    metric("Impact", *pair, **keys(network(OverBatch()))).evaluate(shift(0, 0, 0), samples)
    assert "depends on the others of its batch" in caplog.text


# What is refused, with its line.


def written(tmp_path, text):
    (tmp_path / "map.txt").write_text(text, encoding="utf-8")
    return ParameterMap.read(tmp_path / "map.txt")


def refused(tmp_path, metric, pair, samples, path, extra):
    lines = ['(ImpactMode "Jacobian")', f'(ImpactModelsPath0 "{path}")', "(ImpactVoxelSize0 1.5)", *extra]
    given = written(tmp_path, "\n".join(lines))
    component = Metric.named("Impact")
    made = component(
        component.Settings.read(given), replace(metric("AdvancedMeanSquares", *pair).scene, parameter_map=given)
    )
    made.evaluate(shift(0, 0, 0), samples)


@pytest.mark.parametrize(
    ("net", "extra", "message"),
    [
        (Twice(), ["(ImpactPatchSize0 7)"], r"map\.txt.*LayersMask \"1\".*returns more than 1 layers"),
        (
            "Convolutions",
            ["(ImpactPatchSize0 7)", '(ImpactLayersMask0 "001")'],
            r"map\.txt:2: .*returns 2 layers; 3 are asked for; check .*ImpactLayersMask \(\"001\"\)",
        ),
        (
            "Convolutions",
            ["(ImpactPatchSize0 7)", '(ImpactLayersMask0 "01")', "(ImpactNumberOfChannels0 3)"],
            r"map\.txt:2: .*cannot take an input of \[2, 3, 7, 7, 7\].*ImpactNumberOfChannels \(3\)",
        ),
        (
            "Convolutions",
            ["(ImpactPatchSize0 7)", '(ImpactLayersMask0 "01")', "(ImpactDimension0 2)"],
            r"map\.txt:2: .*ImpactDimension \(2\)",
        ),
        ("SmallUNet", ["(ImpactPatchSize0 7)"], r"map\.txt:2: .*cannot take an input of .*ImpactPatchSize \(7 7 7\)"),
        (Constant(), ["(ImpactPatchSize0 7)"], r"map\.txt:2: .*has no gradient to the image"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_where_it_is_written(
    tmp_path, metric, network, pair, samples, net, extra, message
):
    with pytest.raises((ModelError, ParameterError), match=message):
        refused(tmp_path, metric, pair, samples, network(net), extra)


def test_layers_of_different_width_are_refused_where_the_moving_model_is_written(
    tmp_path, metric, network, pair, samples
):
    extra = ["(ImpactPatchSize0 5)", f'(ImpactMovingModelsPath0 "{network("Differences", "moving.pt")}")']
    with pytest.raises(ParameterError, match=r"map\.txt:5: layer 1 of the fixed models has 1 channels and its .* 3"):
        refused(tmp_path, metric, pair, samples, network(Normalised(), "fixed.pt"), extra)


def test_an_image_of_other_channels_is_refused(tmp_path, metric, network, pair, samples):
    fixed, moving = pair
    coloured = fixed.with_data(fixed.data.repeat(2, 1, 1, 1))
    with pytest.raises(ParameterError, match=r"takes 3 channels, but the fixed image has 2"):
        refused(
            tmp_path,
            metric,
            (coloured, moving),
            samples,
            network("Colours"),
            ["(ImpactPatchSize0 5)", "(ImpactNumberOfChannels0 3)"],
        )


def test_features_that_are_no_numbers_are_an_error(metric, network, pair, samples):
    fixed, moving = pair
    given = metric("Impact", fixed, moving, **keys(network("Pointwise"), ImpactPatchSize0=1))
    given.evaluate(shift(0, 0, 0), samples)
    holes = moving.with_data(moving.data.clone().fill_(torch.nan))
    with pytest.raises(ModelError, match="not finite numbers"):
        metric("Impact", fixed, holes, **keys(network("Pointwise"), ImpactPatchSize0=1)).evaluate(
            shift(0, 0, 0), samples
        )
