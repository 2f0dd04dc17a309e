"""The command lines that nipype 1.11's elastix interfaces make, with `impactreg` as their command."""

from collections.abc import Callable
from pathlib import Path

import pytest

from impactreg.cli import main


@pytest.mark.itk
def test_nipype_finds_the_files_that_it_expects(
    pair: tuple[str, str], write_map: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    map_ = str(write_map(WriteResultImage="true"))
    # Registration, whose output_path is ./ unless another is given
    line = ["-f", pair[0], "-m", pair[1], "-threads", "1", "-out", "./", "-p", map_, "-p", map_]
    assert main(line) == 0
    for number in (0, 1):
        assert (tmp_path / f"TransformParameters.{number}.txt").is_file()
        assert (tmp_path / f"result.{number}.nii.gz").is_file()
    transform = str(tmp_path / "TransformParameters.1.txt")
    # ApplyWarp
    assert main(["transformix", "-in", pair[1], "-threads", "1", "-out", str(tmp_path), "-tp", transform]) == 0
    # AnalyzeWarp
    every = ["-def", "all", "-jac", "all", "-jacmat", "all"]
    assert main(["transformix", *every, "-threads", "1", "-out", str(tmp_path), "-tp", transform]) == 0
    # PointsWarp
    (tmp_path / "points.vtk").write_text(
        "# vtk DataFile Version 2.0\nx\nASCII\nDATASET POLYDATA\nPOINTS 1 float\n3 4 0\n"
    )
    points = ["-def", str(tmp_path / "points.vtk")]
    assert main(["transformix", "-threads", "1", "-out", str(tmp_path), *points, "-tp", transform]) == 0
    for name in ("result", "deformationField", "spatialJacobian", "fullSpatialJacobian"):
        assert (tmp_path / f"{name}.nii.gz").is_file()
    assert (tmp_path / "outputpoints.vtk").is_file()
