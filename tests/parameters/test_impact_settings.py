from pathlib import Path

import pytest

from impactreg.errors import ParameterError
from impactreg.parameters import ImpactSettings, LayerSettings, ModelSettings, ParameterMap, keys_of, unknown_keys

# The two configurations of the IMPACT documentation, by which the keys are known.
TWO_RESOLUTIONS = """
(ImpactModelsPath0 "/Data/Models/TS/M291_1_Layers.pt")
(ImpactModelsPath1 "/Data/Models/SAM/Tiny_2_Layers.pt")
(ImpactDimension0 3)
(ImpactDimension1 2)
(ImpactNumberOfChannels0 1)
(ImpactNumberOfChannels1 3)
(ImpactPatchSize0 5 5 5)
(ImpactPatchSize1 29 29)
(ImpactVoxelSize0 3 3 3)
(ImpactVoxelSize1 1.5 1.5 1.5)
(ImpactLayersMask0 "1")
(ImpactLayersMask1 "01")
(ImpactPCA0 0)
(ImpactPCA1 3)
(ImpactSubsetFeatures0 32)
(ImpactSubsetFeatures1 3)
(ImpactDistance0 "L2")
(ImpactDistance1 "L1")
(ImpactLayersWeight0 1)
(ImpactLayersWeight1 1)
(ImpactMode "Static" "Jacobian")
(ImpactGPU 0 -1)
(ImpactUseMixedPrecision "true" "false")
(ImpactFeaturesMapUpdateInterval -1 -1)
(ImpactWriteFeatureMaps "false" "/features")
"""
TWO_MODELS = """
(ImpactModelsPath0 "/Models/M850_8_Layers.pt" "/Models/MIND/R1D2.pt")
(ImpactDimension0 3 3)
(ImpactNumberOfChannels0 1 1)
(ImpactPatchSize0 5 5 5 7 7 7)
(ImpactVoxelSize0 1.5 1.5 1.5 6 6 6)
(ImpactLayersMask0 "00000001" "1")
(ImpactPCA0 0 0)
(ImpactSubsetFeatures0 64 16)
(ImpactDistance0 "Dice" "L2")
(ImpactLayersWeight0 1.0 0.5)
"""
STATIC = '(ImpactMode "Static")\n(ImpactModelsPath0 "a.pt")\n(ImpactVoxelSize0 2)\n'


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def read(text: str, level: int = 0, dimension: int = 3, label: str = "Metric0") -> ImpactSettings:
    Path("impact.txt").write_text(text, encoding="utf-8")
    return ImpactSettings.read_level(ParameterMap.read("impact.txt"), level, dimension, label)


def test_the_published_configuration_of_two_resolutions_is_read() -> None:
    coarse, fine = read(TWO_RESOLUTIONS, 0), read(TWO_RESOLUTIONS, 1)
    assert coarse.fixed == (
        ModelSettings("/Data/Models/TS/M291_1_Layers.pt", 3, 1, (5, 5, 5), (3.0, 3.0, 3.0), (True,)),
    )
    assert fine.moving == (
        ModelSettings("/Data/Models/SAM/Tiny_2_Layers.pt", 2, 3, (29, 29), (1.5, 1.5), (False, True)),
    )
    assert (coarse.layers, fine.layers) == ((LayerSettings(32, 0, 1.0, "L2"),), (LayerSettings(3, 3, 1.0, "L1"),))
    assert (coarse.mode, coarse.device_index, coarse.use_mixed_precision) == ("Static", 0, True)
    assert (fine.mode, fine.device_index, fine.use_mixed_precision) == ("Jacobian", -1, False)
    assert (coarse.feature_map_directory, fine.feature_map_directory) == ("", "/features")
    assert read(TWO_RESOLUTIONS, 2) == coarse


def test_the_published_configuration_of_two_models_is_read() -> None:
    settings = read(TWO_MODELS)
    assert settings.mode == "Jacobian"
    assert settings.fixed == settings.moving
    assert [model.patch_size for model in settings.fixed] == [(5, 5, 5), (7, 7, 7)]
    assert [model.voxel_size for model in settings.fixed] == [(1.5, 1.5, 1.5), (6.0, 6.0, 6.0)]
    assert [sum(model.layers_mask) for model in settings.fixed] == [1, 1]
    assert settings.layers == (LayerSettings(64, 0, 1.0, "Dice"), LayerSettings(16, 0, 0.5, "L2"))


def test_all_published_keys_are_known() -> None:
    for text in (TWO_RESOLUTIONS, TWO_MODELS):
        read(text)
        assert unknown_keys(ParameterMap.read("impact.txt"), keys_of(ImpactSettings)) == []


def test_each_resolution_says_how_patches_are_shown() -> None:
    text = TWO_MODELS + '(ImpactEvaluation "Patches" "Dense")\n(ImpactBatchSize 100 0)\n'
    assert [(s.evaluation, s.batch_size) for s in (read(text, 0), read(text, 1))] == [("Patches", 100), ("Dense", 0)]
    assert (read(TWO_MODELS).evaluation, read(TWO_MODELS).batch_size) == ("Auto", 0)
    with pytest.raises(ParameterError, match=r':\d+: \(ImpactEvaluation "Whole"\): one of Auto, Patches, Dense is'):
        read(TWO_MODELS + '(ImpactEvaluation "Whole")')


def test_little_needs_to_be_said() -> None:
    settings = read('(ImpactMode "Static")\n(ImpactModelsPath "a.pt")\n(ImpactVoxelSize 2)', level=3, dimension=2)
    assert settings.fixed == (ModelSettings("a.pt", 2, 1, (0, 0), (2.0, 2.0), (True,)),)
    assert settings.layers == (LayerSettings(0, 0, 1.0, "L2"),)


def test_lists_are_grouped_by_the_dimensions_of_the_models() -> None:
    models = (
        "(ImpactModelsPath0 a b)\n(ImpactDimension0 2 3)\n(ImpactPatchSize0 29 31 11 12 13)\n(ImpactVoxelSize0 1 2 3)\n"
    )
    jacobian, static = read(models).fixed, read(models + '(ImpactMode "Static")').fixed
    assert [model.patch_size for model in jacobian] == [(29, 31), (11, 12, 13)]
    assert [model.voxel_size for model in jacobian] == [(1.0, 2.0), (3.0, 1.0, 1.0)]
    assert [model.voxel_size for model in static] == [(1.0, 2.0, 3.0), (1.0, 1.0, 1.0)]


def test_surplus_values_are_left_aside() -> None:
    text = "(ImpactPatchSize0 1 2 3 4)\n(ImpactLayersMask0 1 11)\n(ImpactPCA0 4 5)\n(ImpactDimension0 3 2)\n"
    settings = read(STATIC + text)
    assert settings.fixed[0].patch_size == (1, 2, 3)
    assert settings.layers == (LayerSettings(0, 4, 1.0, "L2"),)


def test_each_image_may_have_its_own_models() -> None:
    settings = read(
        STATIC + '(ImpactFixedModelsPath0 "ct.pt")\n(ImpactFixedLayersMask0 010)\n(ImpactMovingVoxelSize0 3)'
    )
    assert settings.fixed == (ModelSettings("ct.pt", 3, 1, (0, 0, 0), (2.0, 2.0, 2.0), (False, True, False)),)
    assert settings.moving == (ModelSettings("a.pt", 3, 1, (0, 0, 0), (3.0, 3.0, 3.0), (True,)),)


def test_a_second_impact_metric_may_have_its_own_keys() -> None:
    text = STATIC + '(Metric1ImpactModelsPath0 "b.pt")\n(Metric1ImpactMode "Jacobian")\n(Metric1ImpactPatchSize 5)'
    assert read(text, label="Metric0").fixed[0].path == "a.pt"
    assert read(text, label="Metric1").fixed[0][:4] == ("b.pt", 3, 1, (5, 5, 5))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", '(ImpactModelsPath0): a model is needed, such as (ImpactModelsPath0 "MIND/R1D2_3D.pt")'),
        (
            '(ImpactMode "Static")\n(ImpactModelsPath0 a)',
            "(ImpactVoxelSize0): the size in mm of the voxels that the model sees is needed, such as",
        ),
        (
            "(ImpactModelsPath0 a)\n(ImpactVoxelSize0 2)\n(ImpactPatchSize0 0)",
            ":3: (ImpactPatchSize0 0): Jacobian mode needs the size of a patch in voxels, more than 0",
        ),
        (STATIC + "(ImpactLayersMask0 012)", ":4: (ImpactLayersMask0 012): a 1 or 0 for each output"),
        (STATIC + "(ImpactLayersMask0 00)", "(ImpactLayersMask0 00): a 1 or 0 for each output of the model is needed"),
        (STATIC + "(ImpactDimension0 4)", "(ImpactDimension0 4): at most 3 is needed"),
        (STATIC + "(ImpactNumberOfChannels0 0)", "(ImpactNumberOfChannels0 0): at least 1 is needed"),
        (STATIC + "(ImpactPatchSize0 5 -5)", "(ImpactPatchSize0 5 -5): value 2, -5: at least 0 is needed"),
        (STATIC + "(ImpactFixedVoxelSize0 0)", "(ImpactFixedVoxelSize0 0): more than 0 is needed"),
        (
            STATIC + "(ImpactDistance0 Cosin)",
            '(ImpactDistance0 "Cosin"): one of L1, L2, NCC, Cosine, L1Cosine, DotProduct, Dice is needed; did you',
        ),
        (
            STATIC + "(ImpactMovingModelsPath0 b)\n(ImpactMovingLayersMask0 11)",
            ":5: (ImpactMovingLayersMask0 11): the masks must select as many moving as fixed layers, not 2 and 1",
        ),
        (
            STATIC.replace("Static", "Jacobian")
            + "(ImpactPatchSize0 5)\n(ImpactFixedModelsPath0 b)\n(ImpactMovingModelsPath0 c d)",
            ':6: (ImpactMovingModelsPath0 "c" "d"): Jacobian mode needs as many moving as fixed models, not 2 and 1',
        ),
        (STATIC + "(ImpactGPU -2)", "(ImpactGPU -2): at least -1 is needed"),
        ('(ImpactMode "Statik")', 'one of Static, Jacobian is needed; did you mean Static?'),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_file_and_line(text: str, message: str) -> None:
    with pytest.raises(ParameterError) as told:
        read(text)
    assert str(told.value).startswith("impact.txt")
    assert message in str(told.value)


def test_a_model_cannot_have_more_dimensions_than_the_images() -> None:
    with pytest.raises(
        ParameterError, match=r"\(ImpactDimension0 3\): at most 2 is needed, the dimension of the images"
    ):
        read(STATIC + "(ImpactDimension0 3)", dimension=2)
    with pytest.raises(ParameterError, match="images of 2 or 3 dimensions are needed, not of 4"):
        read(STATIC, dimension=4)


def test_settings_are_made_in_python_too() -> None:
    settings = ImpactSettings(mode="Static", models_path=("a.pt",), voxel_size=(1.5,), layers_mask=("11",))
    assert settings.fixed[0].voxel_size == (1.5, 1.5, 1.5)
    assert len(settings.layers) == 2
    with pytest.raises(ParameterError, match=r"ImpactSettings\(voxel_size\): the size in mm"):
        ImpactSettings(models_path=("a.pt",), mode="Static")
    with pytest.raises(ParameterError, match=r"ImpactSettings\(distance=\(\)\): at least one value is needed"):
        ImpactSettings(models_path=("a.pt",), voxel_size=(1.5,), mode="Static", distance=())


def test_the_reference_runs_are_read(shared: Path) -> None:
    for path in sorted((shared / "reference" / "impact_elastix").glob("*/map.txt")):
        settings = ImpactSettings.read_level(ParameterMap.read(path), 0, 3)
        assert settings.mode == path.parent.name.split("_")[0]
        assert {layer.distance for layer in settings.layers} == {path.parent.name.split("_")[1]}
