"""What a caller hands in: devices, images and masks, checked before anything runs."""

import numpy as np
import pytest
import torch

from impactreg.errors import ImageError, ParameterError, PointsError, RegistrationError
from impactreg.images import Grid, Image
from impactreg.parameters import ParameterMap
from impactreg.registration.preparation import Inputs, choose_device, device_of_level, make_case

CPU = torch.device("cpu")
IMAGE = Image.of(torch.rand(8, 9, 10).double(), (1, 2, 3), (4, 5, 6))


def maps(**keys):
    return [ParameterMap.from_dict(keys, "map.txt")]


INPUTS = ("fixed_mask", "moving_mask", "fixed_points", "moving_points")


def case(fixed=IMAGE, moving=IMAGE, seed=None, **keys):
    inputs = Inputs(fixed, moving, **{name: keys.pop(name) for name in INPUTS if name in keys})
    return make_case(inputs, maps(**keys), CPU, seed, ())


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
        ({"fixed": [IMAGE, 3]}, "fixed image 1: a int is no image"),
        ({"moving": []}, "moving image: at least one is needed"),
        ({"moving": [IMAGE, torch.rand(8, 9)]}, "the fixed image has 3 dimensions and the moving image 1 2"),
        ({"fixed": [IMAGE] * 3, "fixed_mask": [IMAGE] * 2}, "fixed mask: there are 2 for 3 images"),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(given, message):
    with pytest.raises(ImageError, match=message) as error:
        case(**given)
    assert "\n" not in str(error.value)


def test_lists_give_images_and_masks_to_each_metric():
    found = case(fixed=[IMAGE, IMAGE], fixed_mask=[IMAGE.with_data(IMAGE.data + 1)] * 2)
    assert (len(found.fixed_images), len(found.moving_images)) == (2, 1)
    assert [mask.name for mask in found.fixed_masks] == ["fixed mask", "fixed mask 1"]
    assert found.moving_masks == ()


def test_points_are_read_from_files_and_arrays(tmp_path):
    (tmp_path / "points.txt").write_text("index\n1\n1 2 3\n")
    found = case(fixed_points=tmp_path / "points.txt", moving_points=np.array([[1, 2, 3], [4, 5, 6]]))
    assert found.further.fixed_points.tolist() == [[5.0, 9.0, 15.0]]
    assert found.further.moving_points.tolist() == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]


def test_voxels_stay_voxels_where_directions_are_left_out(tmp_path):
    turned = Image(IMAGE.data, Grid.of((10, 9, 8), (1, 2, 3), (4, 5, 6), ((0, -1, 0), (1, 0, 0), (0, 0, 1))))
    (tmp_path / "voxels.txt").write_text("index\n1\n1 2 3\n")
    (tmp_path / "points.txt").write_text("point\n1\n1 2 3\n")
    found = case(turned, turned, fixed_points=tmp_path / "voxels.txt", moving_points=tmp_path / "points.txt")
    assert found.further.fixed_points.tolist() == [[0.0, 6.0, 15.0]]
    straight = found.without_direction().further
    assert straight.fixed_points.tolist() == [[5.0, 9.0, 15.0]]
    assert straight.moving_points.tolist() == [[1.0, 2.0, 3.0]]


@pytest.mark.parametrize("given", [[[1, 2, 3], [4]], [["a", "b", "c"]], {"x": 1}, object()])
def test_what_are_no_points_is_told(given):
    with pytest.raises(PointsError, match=r"moving points: a .* of numbers is needed"):
        case(moving_points=given)


def test_points_of_another_dimension_are_refused():
    with pytest.raises(PointsError, match="fixed points: they have 2 coordinates, but the images 3"):
        case(fixed_points=torch.rand(4, 2))


def test_each_resolution_may_have_its_own_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    (asked,) = maps(ImpactGPU=[-1, 1, 5])
    found = [device_of_level(asked, level, torch.device("meta")) for level in range(4)]
    assert found == [CPU, torch.device("cuda", 1), CPU, CPU]
    assert device_of_level(*maps(), 0, torch.device("cuda", 1)) == torch.device("cuda", 1)
