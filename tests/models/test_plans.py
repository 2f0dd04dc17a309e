"""Plans: both formats, inheritance, axes, labels, and what is refused."""

import json
from typing import Any

import pytest

from impactreg.errors import ModelError
from impactreg.models.plans import Plan, read_plan
from impactreg.models.topology import NormSettings, Topology

TOPOLOGY = Topology(
    input_channels=1,
    outputs=3,
    features=(32, 64, 100),
    kernels=((1, 3, 3), (3, 3, 3), (3, 3, 3)),
    strides=((1, 1, 1), (1, 2, 2), (2, 2, 2)),
    encoder_blocks=(2, 2, 2),
    decoder_blocks=(2, 2),
)
FLAT = Topology(1, 2, (4, 8), ((3, 3),) * 2, ((1, 1), (2, 2)), (2, 2), (2,), residual=True)
OLD: dict[str, Any] = {
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 32,
    "unet_max_num_features": 100,
    "n_conv_per_stage_encoder": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
    "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "num_pool_per_axis": [1, 2, 2],
    "spacing": [3.0, 1.5, 2.0],
    "patch_size": [32, 48, 64],
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": {"0": False},
}
CT = {"mean": 50.0, "std": 200.0, "percentile_00_5": -900.0, "percentile_99_5": 800.0, "median": 40.0, "max": 3000.0}


def read(plans: Any, dataset: Any, configuration: str = "3d_fullres", orientation: str | None = None) -> Plan:
    return read_plan(json.dumps(plans).encode(), json.dumps(dataset).encode(), configuration, "model", orientation)


def test_plans_of_the_newer_form_describe_the_network(training) -> None:
    for topology, name in ((TOPOLOGY, "3d_fullres"), (FLAT, "2d")):
        plan = read(training.plans(topology), training.dataset(topology), name)
        assert plan.topology == topology
        assert plan.orientation == "RPI"
        assert plan.outputs[:2] == ("background", "organ 1")


def test_plans_of_the_older_form_describe_the_same_network(training) -> None:
    older = {"configurations": {"3d_fullres": OLD}, "foreground_intensity_properties_by_modality": {"0": CT}}
    plan = read(older, training.dataset(TOPOLOGY))
    assert plan.topology == TOPOLOGY
    assert plan.topology.norm == NormSettings()
    (channel,) = plan.normalisations
    assert channel.scheme == "CTNormalization"
    assert channel.intensities
    assert channel.intensities.percentile_99_5 == 800
    residual = {"configurations": {"3d_fullres": {**OLD, "UNet_class_name": "ResidualEncoderUNet"}}}
    assert read({**older, **residual}, training.dataset(TOPOLOGY)).topology.residual


def test_one_number_stands_for_all_stages_and_axes(training) -> None:
    plans = training.plans(TOPOLOGY)
    arguments = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    arguments |= {"kernel_sizes": 3, "strides": [1, 2, 2], "n_conv_per_stage": 2, "features_per_stage": 8}
    topology = read(plans, training.dataset(TOPOLOGY)).topology
    assert topology.kernels == ((3, 3, 3),) * 3
    assert topology.strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2))
    assert topology.features == (8, 8, 8)


def test_a_configuration_inherits_what_it_does_not_say(training) -> None:
    plans = training.plans(TOPOLOGY)
    plans["configurations"]["small"] = {"inherits_from": "3d_fullres", "patch_size": [16, 16, 16]}
    plans["configurations"]["smaller"] = {"inherits_from": "small", "spacing": [6.0, 6.0, 6.0]}
    plan = read(plans, training.dataset(TOPOLOGY), "smaller")
    assert plan.patch() == (16, 16, 16)
    assert plan.voxel_size() == (6, 6, 6)
    assert plan.topology == TOPOLOGY
    plans["configurations"]["3d_fullres"]["inherits_from"] = "smaller"
    with pytest.raises(ModelError, match="smaller inherits from itself"):
        read(plans, training.dataset(TOPOLOGY), "smaller")
    plans["configurations"]["3d_fullres"]["inherits_from"] = [1]
    with pytest.raises(ModelError, match=r"no configuration \[1\]; there are 3d_fullres"):
        read(plans, training.dataset(TOPOLOGY), "smaller")
    plans["configurations"]["3d_fullres"]["inherits_from"] = "nowhere"
    with pytest.raises(ModelError, match="no configuration nowhere; there are 3d_fullres"):
        read(plans, training.dataset(TOPOLOGY), "smaller")


@pytest.mark.parametrize(
    ("transpose", "voxel"),
    [([0, 1, 2], (2.0, 1.5, 3.0)), ([1, 0, 2], (2.0, 3.0, 1.5)), ([2, 0, 1], (3.0, 2.0, 1.5))],
)
def test_spacing_and_patch_are_turned_back_to_x_y_z(training, transpose: list[int], voxel: tuple[float, ...]) -> None:
    plan = read(training.plans(TOPOLOGY, transpose_forward=transpose), training.dataset(TOPOLOGY))
    assert plan.voxel_size() == voxel
    spacing = {3.0: 32, 1.5: 48, 2.0: 64}
    assert plan.patch() == tuple(spacing[step] for step in voxel)


def test_a_network_of_slices_sees_two_of_the_axes(training) -> None:
    changes = {"transpose_forward": [1, 0, 2], "original_median_spacing_after_transp": [5.0, 1.5, 2.0]}
    plan = read(training.plans(FLAT, **changes), training.dataset(FLAT), "2d")
    assert plan.image_axes == (0, 2)
    assert plan.voxel_size() == (2.0, 1.5)
    assert plan.slice_spacing == 5


def test_regions_and_labels_are_counted_as_nnunet_does(training) -> None:
    plans = training.plans(TOPOLOGY)
    regions = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": 3}
    plan = read(plans, training.dataset(TOPOLOGY, labels=regions, regions_class_order=[1, 2, 3]))
    assert plan.outputs == ("whole", "core", "rim")
    ignored = {"background": 0, "b": 2, "a": 1, "ignore": 3}
    assert read(plans, training.dataset(TOPOLOGY, labels=ignored)).outputs == ("background", "a", "b")


def test_an_orientation_that_is_given_counts(training) -> None:
    plans, dataset = training.plans(TOPOLOGY), training.dataset(TOPOLOGY)
    assert read(plans, dataset, orientation="las").orientation == "LAS"
    del dataset["image_orientation"]
    assert read(plans, dataset).orientation is None
    for wrong in ("RPX", "RLI", "RP", "RPIS"):
        with pytest.raises(ModelError, match="three letters are needed"):
            read(plans, dataset, orientation=wrong)


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("patch_size",), [32], "patch_size"),
        (("patch_size",), [32, 32], "conv_op"),
        (("spacing",), [1.0, float("inf"), 1.0], "spacing.1"),
        (("normalization_schemes",), ["MyNormalization"], "normalization_schemes.0"),
        (("normalization_schemes",), [], "1 normalization_schemes are needed"),
        (("normalization_schemes",), ["CTNormalization"], "CTNormalization needs foreground_intensity_properties"),
        (("previous_stage",), "3d_lowres", "cascade"),
        (("architecture",), "PlainConvUNet", "network_class_name and arch_kwargs"),
        (("architecture", "network_class_name"), "my.code.Network", "one of PlainConvUNet, ResidualEncoderUNet"),
        (("architecture", "arch_kwargs", "nonlin"), "os.system", "one of LeakyReLU, ReLU"),
        (("architecture", "arch_kwargs", "norm_op"), "torch.nn.GroupNorm", "one of InstanceNorm2d"),
        (("architecture", "arch_kwargs", "norm_op_kwargs"), {"eps": "x"}, "small positive number"),
        (("architecture", "arch_kwargs", "nonlin_kwargs"), {"negative_slope": -1}, "negative_slope -1"),
        (("architecture", "arch_kwargs", "squeeze_excitation"), True, "with squeeze_excitation is not among"),
        (("architecture", "arch_kwargs", "n_stages"), 10**9, "n_stages"),
        (("architecture", "arch_kwargs", "features_per_stage"), [10**9] * 3, "features_per_stage"),
        (("architecture", "arch_kwargs", "n_conv_per_stage"), None, "PlainConvUNet needs n_conv_per_stage"),
        (("architecture", "arch_kwargs", "strides"), [[1, 1, 1]], "as many strides"),
    ],
)
def test_what_makes_no_sense_is_told_with_its_place(training, where: tuple[str, ...], value: Any, said: str) -> None:
    plans = training.plans(TOPOLOGY)
    place = plans["configurations"]["3d_fullres"]
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    with pytest.raises(ModelError, match=said) as caught:
        read(plans, training.dataset(TOPOLOGY))
    assert str(caught.value).startswith("model/plans.json: 3d_fullres: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "no JSON"),
        (b"[1]", "an object is needed"),
        (b"[" * 100_000, "no JSON"),
        (b"\xff", "no JSON"),
        (b"{}", "conf"),
    ],
)
def test_files_that_are_no_plans_are_refused(training, content: bytes, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        read_plan(content, json.dumps(training.dataset(TOPOLOGY)).encode(), "3d_fullres", "model")


def test_a_plan_without_a_network_is_refused(training) -> None:
    for changes, said in (({"UNet_class_name": "VNet"}, "one of Plain"), ({"UNet_base_num_features": "a"}, "numbers")):
        with pytest.raises(ModelError, match=said):
            read({"configurations": {"3d_fullres": {**OLD, **changes}}}, training.dataset(TOPOLOGY))
    bare = {key: value for key, value in OLD.items() if key != "UNet_class_name"}
    with pytest.raises(ModelError, match="no network is described"):
        read({"configurations": {"3d_fullres": bare}}, training.dataset(TOPOLOGY))
    with pytest.raises(ModelError, match=r"model/dataset\.json: .labels\.background"):
        read(training.plans(TOPOLOGY), {"channel_names": {"0": "CT"}, "labels": {"background": "x"}})
