"""What a caller hands in: devices, images and masks, checked before anything runs."""

import numpy as np
import pytest
import torch

from impactreg.errors import ImageError, ParameterError, RegistrationError
from impactreg.images import Image
from impactreg.parameters import ParameterMap
from impactreg.registration.preparation import choose_device, make_case

CPU = torch.device("cpu")
IMAGE = Image.of(torch.rand(8, 9, 10).double(), (1, 2, 3), (4, 5, 6))


def maps(**keys):
    return [ParameterMap.from_dict(keys, "map.txt")]


def case(fixed=IMAGE, moving=IMAGE, fixed_mask=None, moving_mask=None, seed=None, **keys):
    return make_case(fixed, moving, fixed_mask, moving_mask, maps(**keys), CPU, seed, ())


@pytest.fixture
def gpus(monkeypatch):
    """As many CUDA devices as a test says."""
    return lambda count: monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


def test_without_a_wish_the_cpu_is_taken():
    assert choose_device(None, maps()) == choose_device(None, maps(ImpactGPU=-1)) == CPU
    assert choose_device(None, []) == CPU


def test_the_parameter_map_may_name_a_gpu(gpus):
    gpus(2)
    assert choose_device(None, maps(ImpactGPU=1)) == torch.device("cuda", 1)


def test_a_gpu_of_the_map_that_is_not_there_is_warned_of(gpus, caplog):
    gpus(1)
    assert choose_device(None, maps(ImpactGPU=1)) == CPU
    assert "(ImpactGPU 1): there is no such CUDA device" in caplog.text


def test_what_is_asked_for_goes_before_the_map(gpus):
    gpus(2)
    assert choose_device("cpu", maps(ImpactGPU=1)) == CPU
    assert choose_device("cuda:1", maps()) == torch.device("cuda:1")
    assert choose_device(torch.device("cuda"), maps()).type == "cuda"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "mps", "meta", "cuda:-1"])
def test_a_device_of_another_kind_is_refused(device):
    with pytest.raises(RegistrationError, match="use cpu, cuda or cuda:N"):
        choose_device(device, maps())


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_asked_for_but_not_there_is_refused(gpus, device):
    gpus(0)
    with pytest.raises(RegistrationError, match="PyTorch sees 0 CUDA devices; use cpu"):
        choose_device(device, maps())


@pytest.mark.parametrize("written", ["yes", "nan", "0.5"])
def test_an_impact_gpu_that_is_no_whole_number_is_told_in_one_line(written):
    with pytest.raises(ParameterError, match="ImpactGPU"):
        choose_device(None, maps(ImpactGPU=written))


def test_images_become_float32_and_keep_their_grids():
    found = case(seed=3)
    assert found.fixed.data.dtype == torch.float32
    assert found.fixed.grid == IMAGE.grid
    assert (found.device, found.seed, found.fixed_mask) == (CPU, 3, None)


def test_masks_lie_on_their_own_grid():
    inside = torch.ones(4, 4, 4, dtype=torch.uint8)
    found = case(fixed_mask=(inside, (2, 2, 2), (5, 6, 7)))
    assert found.fixed_mask.grid.size == (4, 4, 4)
    assert found.moving_mask is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"moving": torch.rand(8, 9)}, "the fixed image has 3 dimensions and the moving image 2"),
        ({"moving": Image(torch.rand(2, 8, 9, 10), IMAGE.grid)}, "moving image: an image of one value per voxel"),
        ({"fixed": torch.full((4, 4, 4), torch.nan)}, "fixed image"),
        ({"fixed": np.full((4, 4, 4), np.inf)}, "fixed image"),
        ({"fixed": 3}, "fixed image: a int is no image"),
        ({"fixed": "nowhere.nii"}, r"nowhere\.nii"),
        ({"fixed_mask": torch.zeros(8, 9, 10)}, "fixed mask: the mask is empty"),
        ({"moving_mask": torch.ones(8, 9)}, "moving mask: the mask has 2 dimensions"),
        ({"moving_mask": (torch.ones(4, 4, 4), (1, 1, 1), (900, 0, 0))}, "moving mask: .* no voxel in common"),
        ({"FixedImageDimension": 2}, r"map\.txt.*FixedImageDimension 2\), but the images have 3 dimensions"),
        ({"MovingImageDimension": 2}, "MovingImageDimension 2"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(given, message):
    with pytest.raises(ImageError, match=message) as error:
        case(**given)
    assert "\n" not in str(error.value)
