"""Tensors in memory and in files."""

from pathlib import Path

import numpy as np
import pytest
import torch

from impactreg.errors import OutputError
from impactreg.images import Grid, Image, read_image, write_image
from impactreg.images.nifti import to_nibabel
from impactreg.images.storage import SLAB_BYTES, Storage, slabs


def test_tensors_beyond_the_bound_lie_in_nameless_files_and_keep_their_numbers(tmp_path: Path) -> None:
    storage = Storage(1000, tmp_path)
    small, large = storage.zeros((10, 10)), storage.zeros((20, 30), torch.int16)
    assert not storage.exceeded_by(600)
    assert storage.exceeded_by(601)
    large += 3
    storage.release()
    assert int(large.sum()) == 1800
    assert small.sum() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="of temporary room cannot be had: No such file or directory"):
        Storage(0, tmp_path / "none").zeros((4, 4))


def test_slabs_cover_an_axis_in_order() -> None:
    parts = list(slabs(10, SLAB_BYTES // 4))
    assert [index for part in parts for index in range(10)[part]] == list(range(10))
    assert len(parts) == 3
    assert len(list(slabs(3, 10 * SLAB_BYTES))) == 3


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint16", "float64"])
@pytest.mark.parametrize(("slope", "inter"), [(1.0, 0.0), (0.5, -3.0)])
def test_a_file_that_stays_on_the_disk_has_the_same_numbers(
    tmp_path: Path, dtype: str, slope: float, inter: float
) -> None:
    values = torch.arange(4 * 5 * 6, dtype=torch.float64).reshape(1, 4, 5, 6)
    stored = to_nibabel(Image(values, Grid.of((6, 5, 4), (1.0, 2.0, 3.0))), np.dtype(dtype))
    stored.header.set_slope_inter(slope, inter)
    stored.to_filename(tmp_path / "a.nii")
    kept = read_image(tmp_path / "a.nii")
    for storage in (Storage(0, tmp_path), Storage(None)):
        found = read_image(tmp_path / "a.nii", storage=storage)
        assert torch.equal(found.data, kept.data)
        assert (found.data.dtype, found.grid) == (kept.data.dtype, kept.grid)


def test_a_vector_file_on_the_disk_has_the_same_numbers(tmp_path: Path) -> None:
    image = Image(torch.rand(3, 4, 5, 6), Grid.of((6, 5, 4)))
    write_image(image, tmp_path / "a.nii")
    assert torch.equal(read_image(tmp_path / "a.nii", storage=Storage(0, tmp_path)).data, image.data)
