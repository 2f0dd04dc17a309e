from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from impactreg.images import read_image
from impactreg.parameters import ParameterMap
from impactreg.report.deformation import Deformation
from impactreg.report.feature_maps import colours, used_models, uses_models
from impactreg.report.planes import planes_of
from impactreg.report.run_folder import RunFolder
from impactreg.report.windows import shown


def test_models_are_listed_with_resolutions_and_checksums(finished: Path) -> None:
    (model,) = used_models(RunFolder.read(finished), (), 3)
    assert (model.written, model.levels) == ("MIND/R1D1_3D.pt", (0, 1))
    assert model.file is not None
    assert model.sha256 == hashlib.sha256(model.file.read_bytes()).hexdigest()


def test_equal_images_have_equal_colours(finished: Path, pair: Path) -> None:
    fixed = shown(read_image(pair / "fixed.nii.gz"))
    (found,) = colours(RunFolder.read(finished), fixed, fixed, ())
    assert found.name == "MIND/R1D1_3D.pt, layer 0, 12 channels of 2 x 2 x 2 mm"
    torch.testing.assert_close(found.fixed.data, found.moving.data)
    assert found.fixed.channels == 3


def test_pictures_are_colours_of_each_slice(finished: Path, pair: Path) -> None:
    fixed, moving = (shown(read_image(pair / f"{name}.nii.gz")) for name in ("fixed", "moving"))
    run = RunFolder.read(finished)
    (found,) = colours(run, fixed, moving, ())
    from impactreg.components.transforms.files import read_transform

    deformation = Deformation.of(read_transform(run.transform_file), planes_of(fixed.grid))
    for field in deformation.fields:
        for picture in found.pictures(field):
            assert picture.shape[-1] == 3
            assert picture.dtype == torch.uint8
            assert float(picture.float().std()) > 1


def test_a_map_that_names_models_uses_them() -> None:
    assert uses_models(ParameterMap.from_dict({"ImpactModelsPath0": "a.pt"}))
    assert not uses_models(ParameterMap.from_dict({"Metric": "AdvancedMeanSquares"}))
    assert not uses_models(None)


def test_a_lost_model_leaves_the_maps_out(finished: Path, pair: Path, tmp_path: Path) -> None:
    run = RunFolder.read(finished)
    (tmp_path / "elastix.log").write_text(
        (finished / "elastix.log").read_text("utf-8").replace("MIND/R1D1_3D.pt", "lost.pt"), encoding="utf-8"
    )
    for name in ("TransformParameters.0.txt", "IterationInfo.0.R0.txt"):
        (tmp_path / name).write_text((finished / name).read_text("utf-8"), encoding="utf-8")
    fixed = shown(read_image(pair / "fixed.nii.gz"))
    lost = RunFolder.read(tmp_path)
    assert len(run.stages) == len(lost.stages)
    assert colours(lost, fixed, fixed, ()) == []
    assert [(model.written, model.file, model.sha256) for model in used_models(lost, (), 3)] == [("lost.pt", None, "")]
