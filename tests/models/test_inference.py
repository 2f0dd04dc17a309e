"""Models over whole images: tiles, slices, labels, grids, files, memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from impactreg.errors import ImageError, ModelError, OutputError
from impactreg.images import Grid, Image, read_image, write_image
from impactreg.models import MIND, passes, reduction
from impactreg.models.extractor import Extractor
from impactreg.models.inference import features, output_path

OBLIQUE = np.array([[0.0, -1.0, 0.0], [0.8, 0.0, -0.6], [0.6, 0.0, 0.8]])


class Convolutions(nn.Module):
    """A layer at full resolution, and one of stride 2."""

    def __init__(self, dimension: int = 3, channels: int = 1) -> None:
        super().__init__()
        kind = {2: nn.Conv2d, 3: nn.Conv3d}[dimension]
        self.first = kind(channels, 4, 3, padding=1)
        self.second = kind(4, 6, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> list[Tensor]:
        first = torch.tanh(self.first(x))
        return [first, self.second(first)]


class Deep(nn.Module):
    """Down by 4 and up again, as networks for synthesis and segmentation are; one tensor."""

    def __init__(self, classes: int = 1) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv3d(1, 4, 2, stride=2), nn.Tanh(), nn.Conv3d(4, 8, 2, stride=2), nn.Tanh())
        self.up = nn.ConvTranspose3d(8, classes, 4, stride=4)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.down(x))


class Thresholds(nn.Module):
    """Scores of three classes: below 1, about 1 to 3, above 3."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([1 - x, 1 - (x - 2).abs(), x - 3], 1)


class Smooth(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(x, 3, 1, 1)


class Standardised(nn.Module):
    """Sees the whole tile at once."""

    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean([2, 3, 4], keepdim=True)


def image(*size: int, spacing=None, direction=None, seed: int = 0) -> Image:
    values = torch.rand((1, *size[::-1]), generator=torch.Generator().manual_seed(seed))
    return Image(values, Grid.of(size, spacing, [5.0, 6.0, 7.0][: len(size)], direction))


def same(found: Image, expected: Image, tolerance: float = 1e-5) -> None:
    assert found.grid == expected.grid
    torch.testing.assert_close(found.data, expected.data, rtol=0, atol=tolerance)


@pytest.mark.parametrize("size", [(40, 32, 24), (41, 33, 27)])
@pytest.mark.parametrize(
    ("model", "patch"), [(Convolutions(), 16), (Convolutions(), (20, 12, 0)), (MIND(3, 1, 2), 24), (Deep(), 16)]
)
def test_tiles_equal_one_pass_everywhere(model, patch, size):
    if isinstance(model, Deep):
        size = tuple(each // 4 * 4 for each in size)
    given = image(*size)
    for whole, tiled in zip(features(given, model, patch=0), features(given, model, patch=patch), strict=True):
        same(tiled, whole)


@pytest.mark.parametrize("overlap", [5, 0.5, (6, 7, 8), None])
def test_any_overlap_that_covers_the_field_of_view_gives_the_same(overlap):
    given, model = image(40, 36, 30), Convolutions()
    (whole,) = features(given, model, layers="10", patch=0)
    (tiled,) = features(given, model, layers="10", patch=16, overlap=overlap)
    same(tiled, whole)


def test_tiles_start_where_the_coarser_grids_of_a_network_start():
    given, model = image(40, 44, 36), Deep()
    (whole,) = features(given, model, patch=0)
    (tiled,) = features(given, model, patch=16, overlap=7)  # a step of 9 voxels, if it were not for the network
    same(tiled, whole)


def test_a_network_that_wants_multiples_gets_its_ends_continued():
    given, model = image(34, 34, 34), Deep()
    (found,) = features(given, model, patch=16)
    assert found.grid == given.grid
    with torch.no_grad():
        continued = nn.functional.pad(given.data[None], [0, 2] * 3, mode="replicate")
        torch.testing.assert_close(found.data, model(continued)[0, :, :34, :34, :34], rtol=0, atol=1e-5)


def test_tiles_of_a_model_that_sees_everything_are_blended_without_seams():
    given = image(64, 4, 4).with_data(torch.linspace(0, 1, 64).expand(1, 4, 4, 64))
    (found,) = features(given, Standardised(), patch=(16, 0, 0))
    assert float(found.data[0, 2, 2].diff().abs().max()) < 0.1  # tiles side by side would have steps of 0.2


@pytest.mark.parametrize(("axis", "dimension"), [("x", 3), ("y", 2), ("z", 1)])
@pytest.mark.parametrize("patch", [0, 12])
def test_a_2d_model_sees_slices_along_any_axis(axis, dimension, patch):
    given = image(14, 20, 16, spacing=(1.0, 2.0, 3.0), direction=OBLIQUE)
    (found,) = features(given, Smooth(), axis=axis, patch=patch, dimension=2)
    slices = given.data.movedim(dimension, 0)
    expected = Smooth()(slices).movedim(0, dimension)
    same(found, given.with_data(expected))
    assert found.data.is_contiguous()


def test_an_axis_along_which_nothing_is_cut_is_told(caplog):
    given = image(8, 8, 6)
    features(given, Smooth(), axis="x", dimension=2)
    assert caplog.text == ""
    features(given, Convolutions(), axis="x", dimension=3)
    assert "axis x has no effect: the model sees the image whole, not in slices" in caplog.text


def test_layers_that_are_not_wanted_are_not_measured(monkeypatch):
    monkeypatch.setattr(passes, "measure", None)
    given, model = image(12, 10, 8), Convolutions()
    (found,) = features(given, model, layers="10")
    with torch.no_grad():
        same(found, given.with_data(model(given.data[None])[0][0]))


def test_strided_slices_along_x_have_their_exact_grid():
    given = image(7, 24, 20, spacing=(4.0, 1.0, 2.0))
    found = features(given, Convolutions(dimension=2), axis="x", layers="01", dimension=2)[0]
    assert found.grid == Grid.of((7, 12, 10), (4.0, 2.0, 4.0), given.grid.origin)


def test_dimension_channels_and_layers_are_found(load):
    given = image(16, 16, 6)
    found = features(given, load(Convolutions(dimension=2, channels=3)))
    assert [each.channels for each in found] == [4, 6]
    assert [each.grid.size for each in found] == [(16, 16, 6), (8, 8, 6)]


def test_labels_are_the_highest_channels_as_whole_numbers():
    given = image(12, 10, 8).with_data(4 * image(12, 10, 8).data)
    (found,) = features(given, Thresholds(), labels=True, patch=6)
    assert found.data.dtype == torch.uint8
    expected = Thresholds()(given.data[None])[0].argmax(0, keepdim=True)
    assert torch.equal(found.data.long(), expected)


def test_labels_come_back_to_the_grid_of_the_image():
    ramp = torch.linspace(0, 4, 30).expand(1, 8, 9, 30)
    given = image(30, 9, 8).with_data(ramp)
    (found,) = features(given, Thresholds(), labels=True, voxel=1.5, grid="image")
    assert found.grid == given.grid
    wrong = found.data.long() != Thresholds()(given.data[None])[0].argmax(0, keepdim=True)
    assert float(wrong.float().mean()) < 0.04  # one voxel in 30 beside each border


def test_the_model_sees_the_voxel_size_asked_for():
    given = image(20, 18, 16, spacing=(1.0, 1.0, 2.0))
    (found,) = features(given, Standardised(), voxel=(2.0, 1.0, 1.0))
    assert found.grid == Grid.of((10, 18, 32), (2.0, 1.0, 1.0), given.grid.origin)


def test_principal_components_are_those_of_the_whole_map():
    given, model = image(20, 20, 20), Convolutions()
    (whole,) = features(given, model, layers="10")
    (found,) = features(given, model, layers="10", pca=2)
    expected = reduction.project(whole.data, reduction.fit(whole.data, 2))
    same(found, whole.with_data(expected))


def test_progress_counts_tiles():
    seen = []
    features(image(24, 24, 8), Standardised(), patch=(16, 16, 0), progress=lambda *pair: seen.append(pair))
    assert seen[-1] == (4, 4)
    assert seen == sorted(seen)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mha", "a.nrrd"])
def test_each_layer_is_written_on_its_grid(tmp_path, name):
    found = features(image(16, 12, 10, spacing=(1.0, 2.0, 1.5)), Convolutions(), output=tmp_path / name)
    assert sorted(each.name for each in tmp_path.iterdir()) == [name.replace("a.", f"a.L{k}.") for k in (1, 2)]
    if "nii" in name:
        for number, layer in enumerate(found, start=1):
            again = read_image(output_path(tmp_path / name, number))
            assert again.grid.same_as(layer.grid)
            assert torch.equal(again.data, layer.data)


def test_a_single_layer_has_the_name_asked_for(tmp_path):
    features(image(8, 8), Smooth(), output=tmp_path / "a.nii")
    assert [each.name for each in tmp_path.iterdir()] == ["a.nii"]


@pytest.mark.parametrize("model", [Convolutions(), Convolutions(dimension=2)])
def test_results_on_the_disk_are_the_same(tmp_path, model):
    given = image(30, 24, 20)
    write_image(given, tmp_path / "in.nii")
    options = {"patch": 12, "voxel": 1.2, "axis": "y"}
    kept = features(given, model, **options)
    stored = features(tmp_path / "in.nii", model, **options, memory=0, output=tmp_path / "out.nii")
    for one, other in zip(kept, stored, strict=True):
        assert one.grid.same_as(other.grid)
        torch.testing.assert_close(other.data, one.data, rtol=0, atol=1e-5)
    assert torch.equal(read_image(tmp_path / "out.L2.nii").data, stored[1].data)
    assert len(list(tmp_path.iterdir())) == 3


LARGE = """
import resource, sys
from pathlib import Path
import torch
from torch import nn
from impactreg.models.inference import features

class Copies(nn.Module):
    def forward(self, x):
        return torch.cat([x + number for number in range(8)], 1)

folder = Path(sys.argv[1])
torch.set_num_threads(1)
features(folder / "small.nii", Copies(), output=folder / "warm.nrrd")
held = int(next(line for line in open("/proc/self/status") if line.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 84 * 2**20,) * 2)
features(folder / "large.nii", Copies(), patch=64, memory=0.001, output=folder / "out.nrrd")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux bounds the memory of a process")
def test_a_result_larger_than_the_memory_is_written(tmp_path):
    write_image(image(8, 8, 8), tmp_path / "small.nii")
    write_image(image(208, 128, 128), tmp_path / "large.nii")
    command = [sys.executable, "-c", LARGE, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert (tmp_path / "out.nrrd").stat().st_size > 8 * 4 * 208 * 128 * 128


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "001"}, "returns 2 layers; 3 are asked for"),
        ({"layers": "00"}, 'layers are a 1 for each one wanted and a 0 for each other, such as "01"'),
        ({"patch": (4, 4)}, "a patch size of 3 numbers from 0 on is needed, not 4 4"),
        ({"patch": 4000}, "a patch of 4000 x 4000 x 4000 voxels is more than a model can take"),
        ({"patch": 8, "overlap": 8}, "an overlap of 8 8 8 does not go with a patch of 8 8 8"),
        ({"voxel": 0}, r"a voxel size of 3 positive numbers \(mm\) is needed"),
        ({"pca": 5}, "layer 1 of 2: PCA can keep 1 to 4 of 4 feature channels, not 5"),
        ({"pca": 1, "labels": True}, "exclude each other"),
        ({"grid": "other"}, 'grid "other" is not known'),
        ({"axis": "t"}, 'axis "t" is not known'),
        ({"dimension": 4}, "a model has dimension 2 or 3, not 4"),
        ({"channels": 2}, "no 3D or 2D image of 2 channels is taken: "),
        ({"device": "abacus"}, 'device "abacus" is not known'),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(load, options, message):
    with pytest.raises(ModelError, match=message) as error:
        features(image(9, 9, 9), load(Convolutions()), **options)
    assert "\n" not in str(error.value)


def test_labels_of_one_channel_are_refused():
    with pytest.raises(ModelError, match=r"Standardised: layer 1 of 1 has one channel; labels are the highest"):
        features(image(4, 4, 4), Standardised(), labels=True)


def test_an_unknown_model_or_image_is_told():
    with pytest.raises(ModelError, match="there is no such model file"):
        features(image(4, 4), "nowhere.pt")
    with pytest.raises(ImageError, match="there is no such file or folder"):
        features("nowhere.nii", Smooth())


def test_an_output_that_cannot_be_written_is_told_before_the_model_runs(tmp_path):
    for path in (tmp_path / "a.txt", tmp_path / "no" / "a.nii"):
        with pytest.raises(OutputError):
            features(image(4, 4), "nowhere.pt", output=path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_is_an_output_error(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"GiB of temporary room cannot be had: No space left on device"):
        features(image(16, 16, 16), Standardised(), patch=8, memory=0, output=tmp_path / "a.nii")
    assert list(tmp_path.iterdir()) == []


def test_values_that_are_not_numbers_are_told():
    given = image(24, 8, 8)
    given.data[..., -1] = float("nan")
    with pytest.raises(ModelError, match=r"layer 1 of 1 has values that are not finite numbers, as has its input"):
        features(given, Convolutions(), layers="1", patch=8)


def test_an_extractor_is_taken_as_it_is(load):
    extractor = load(Convolutions())
    assert isinstance(extractor, Extractor)
    assert len(features(image(12, 12, 12), extractor)) == 2
