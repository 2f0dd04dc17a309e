"""What every room's tests share."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import beartype
import hypothesis
import jaxtyping
import pytest

if TYPE_CHECKING:
    import torch

REPOSITORY = Path(__file__).parents[1]
SHAPED = r"\b(Float|Int|UInt|Bool|Num|Complex|Shaped)\d*\["

# A shared machine makes any deadline flaky; continuous integration must fail on the same examples twice.
hypothesis.settings.register_profile("impactreg", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("impactreg")


def shapes_checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Check on every call the tensor shapes that a signature promises; mypy holds its other types."""
    hints = function.__annotations__.items()
    function.__annotations__ = {name: hint for name, hint in hints if re.search(SHAPED, str(hint))}
    return beartype.beartype(function) if function.__annotations__ else function


def modules_to_check() -> Iterator[str]:
    """Every module but those that TorchScript reads: it compiles a method, not what is wrapped around it."""
    for path in (REPOSITORY / "impactreg").rglob("*.py"):
        scripted = re.search(r"^class \w+\(.*\bModule\)", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        if path.name != "__init__.py" and not scripted:
            yield ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)


jaxtyping.install_import_hook(list(modules_to_check()), f"{__name__}.shapes_checked")


@pytest.fixture
def unchecked_shapes() -> Iterator[None]:
    """For a test that gives a wrong shape on purpose, to see it refused."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps models and measurements of tests out of the user's cache; each is made once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMPACTREG_CACHE", str(tmp_path_factory.getbasetemp() / "models"))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference runs and images beside the repository; a test that needs it is skipped elsewhere."""
    folder = REPOSITORY.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder `shared` with reference runs and images lies beside the repository")
    return folder


@pytest.fixture
def generator() -> torch.Generator:
    """A random number generator that starts every test with the same seed."""
    import torch

    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are faster on one thread, and sums come out alike. Tests without torch do not pay for it."""
    if "torch" not in sys.modules:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plans_text(topology: Any, **changes: Any) -> dict[str, Any]:
    """`plans.json` of a network in the form of nnU-Net 2.4, with the configuration `3d_fullres` or `2d`."""
    dimension, stages = topology.dimension, topology.stages
    norm = topology.norm
    kinds = {"instance": "instancenorm.InstanceNorm", "batch": "batchnorm.BatchNorm"}
    blocks = "n_blocks_per_stage" if topology.residual else "n_conv_per_stage"
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if topology.residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": topology.features,
            "conv_op": f"torch.nn.modules.conv.Conv{dimension}d",
            "kernel_sizes": topology.kernels,
            "strides": topology.strides,
            blocks: topology.encoder_blocks,
            "n_conv_per_stage_decoder": topology.decoder_blocks,
            "conv_bias": topology.bias,
            "norm_op": f"torch.nn.modules.{kinds[norm.kind]}{dimension}d" if norm else None,
            "norm_op_kwargs": {"eps": norm.eps, "affine": norm.affine} if norm else None,
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": f"torch.nn.{topology.activation}",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "spacing": [3.0, 1.5, 2.0][3 - dimension :],
        "patch_size": [32, 48, 64][3 - dimension :],
        "normalization_schemes": ["ZScoreNormalization"] * topology.input_channels,
        "use_mask_for_norm": [False] * topology.input_channels,
        "architecture": architecture,
    }
    name = "3d_fullres" if dimension == 3 else "2d"
    plans = {"configurations": {name: configuration}, "transpose_forward": [0, 1, 2], "transpose_backward": [0, 1, 2]}
    return {**plans, **changes}


def dataset_text(topology: Any, **changes: Any) -> dict[str, Any]:
    """`dataset.json` of a network."""
    channels = {str(number): f"channel {number}" for number in range(topology.input_channels)}
    labels = {"background": 0} | {f"organ {number}": number for number in range(1, topology.outputs)}
    return {
        "channel_names": channels,
        "labels": labels,
        "image_orientation": "RPI",
        "file_ending": ".nii.gz",
        **changes,
    }


def checkpoint_of(network: Any) -> dict[str, Any]:
    """What nnU-Net saves of a network: with second names, and with numbers of numpy in a log."""
    import numpy as np
    import torch

    weights = {}
    for name, value in network.state_dict().items():
        weights[name] = value
        if ".conv." in name:
            weights[name.replace(".conv.", ".all_modules.0.")] = value
        if name.startswith("encoder."):
            weights[f"decoder.{name}"] = value
    return {
        "network_weights": weights,
        "optimizer_state": {"param_groups": [{"lr": 0.01}]},
        "grad_scaler_state": {"scale": 65536.0},
        "logging": {"ema_fg_dice": [np.float64(0.5)], "train_losses": [np.float32(0.25), 1.5]},
        "_best_ema": np.float64(0.5),
        "current_epoch": 1000,
        "init_args": {"plans": {"spacing": [1.0]}, "configuration": "3d_fullres", "device": torch.device("cuda", 0)},
        "trainer_name": "nnUNetTrainer",
        "inference_allowed_mirroring_axes": (0, 1, 2),
    }


class Training:
    """Folders as nnU-Net leaves them after a training, with random weights."""

    plans = staticmethod(plans_text)
    dataset = staticmethod(dataset_text)
    checkpoint = staticmethod(checkpoint_of)

    @staticmethod
    def write(
        place: Path,
        topology: Any,
        *,
        folds: tuple[str, ...] = ("0",),
        plans: dict[str, Any] | None = None,
        dataset: dict[str, Any] | None = None,
    ) -> Path:
        """Makes the trainer's folder in `place`; its network has the topology, and some keys are changed."""
        import torch

        from impactreg.models.unet import UNet

        described = plans_text(topology) | (plans or {})
        folder = place / f"nnUNetTrainer__nnUNetPlans__{next(iter(described['configurations']))}"
        for fold in folds:
            (folder / f"fold_{fold}").mkdir(parents=True)
            torch.save(checkpoint_of(UNet(topology)), folder / f"fold_{fold}" / "checkpoint_final.pth")
            (folder / f"fold_{fold}" / "debug.json").write_text("{}")
            (folder / f"fold_{fold}" / "training_log_2024_9_3_14_06_03.txt").write_text("epoch 0\n")
        (folder / "plans.json").write_text(json.dumps(described))
        (folder / "dataset.json").write_text(json.dumps(dataset_text(topology) | (dataset or {})))
        (folder / "dataset_fingerprint.json").write_text("{}")
        return folder


@pytest.fixture(scope="session")
def training() -> Training:
    """Writes folders of nnU-Net trainings."""
    return Training()
