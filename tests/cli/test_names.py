"""Names of one's own for results."""

from collections.abc import Callable
from pathlib import Path

import pytest

from impactreg.cli import main
from impactreg.cli.arguments import UsageError
from impactreg.cli.names import Names, filled
from impactreg.components.transforms.files import read_transform
from impactreg.images import read_image

IMAGES = {"fixed": "/data/tpl-MNI_T1w.nii.gz", "moving": "sub-01_ses-2_run-1_T2w.nii"}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("sub-{moving[sub]}_space-{fixed[tpl]}_{moving[suffix]}.nii.gz", "sub-01_space-MNI_T2w.nii.gz"),
        ("sub-{moving[sub]}/anat/{moving}.mha", "sub-01/anat/sub-01_ses-2_run-1_T2w.mha"),
        ("plain.nii", "plain.nii"),
    ],
)
def test_parts_of_the_names_of_images_are_put_in(template: str, expected: str) -> None:
    assert filled(template, IMAGES) == expected


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{moving[acq]}.nii", "has no acq-; its parts are sub, ses, run, suffix"),
        ("{subject}.nii", "there are {fixed}, {moving}"),
        ("{moving.__class__}.nii", "there are {fixed}, {moving}"),
        ("/etc/{fixed}.nii", "inside the output folder"),
        ("../{fixed}.nii", "inside the output folder"),
    ],
)
def test_what_cannot_be_filled_is_told(template: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        filled(template, IMAGES)
    assert told in str(caught.value)


def test_the_ending_must_be_one_that_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--image-name a.png: a name is needed that ends in .nii.gz"):
        Names.of("a.png", None, tmp_path, IMAGES)
    with pytest.raises(UsageError, match=r"--transform-name a.xyz: a name is needed"):
        Names.of(None, "a.xyz", tmp_path, IMAGES)
    with pytest.raises(UsageError, match=r"--transform-name a.npz: a name is needed"):
        Names.of(None, "a.npz", tmp_path, IMAGES)


@pytest.mark.parametrize(
    ("image", "transform", "told"),
    [
        ("a.nii.gz", "a.nii.gz", "a.nii.gz cannot be both"),
        ("result.0.nii.gz", None, "the registration has a file of this name"),
        (None, "TransformParameters.1.txt", "the registration has a file of this name"),
    ],
)
def test_one_file_is_one_thing(tmp_path: Path, image: str | None, transform: str | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Names.of(image, transform, tmp_path, IMAGES)
    assert Names.of("anat/result.0.nii", "field.nii", tmp_path, IMAGES).image == tmp_path / "anat" / "result.0.nii"


@pytest.mark.parametrize(
    ("flags", "keys", "code", "told"),
    [
        (["--image-name", "a.png"], {}, 2, "--image-name a.png: a name is needed that ends in .nii.gz"),
        (["--transform-name", "{moving[sub]}.h5"], {}, 2, "the name moving has no sub-"),
        (["--image-name", "a.nii"], {"WriteResultImage": False}, 1, 'map.txt says (WriteResultImage "false")'),
        (["--transform-name", "a.h5"], {"UseDirectionCosines": False}, 1, "says (UseDirectionCosines"),
    ],
)
def test_names_are_looked_at_before_anything_runs(
    tmp_path: Path,
    pair: tuple[str, str],
    write_map: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    flags: list[str],
    keys: dict[str, object],
    code: int,
    told: str,
) -> None:
    words = ["-f", pair[0], "-m", pair[1], "-p", str(write_map(**keys)), "--engine", "torch", *flags]
    for more in (["--check"], ["-out", str(tmp_path / "out")]):
        assert main([*words, *more]) == code
        assert told in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_field_is_written_where_no_result_image_is(
    tmp_path: Path, pair: tuple[str, str], write_map: Callable[..., Path]
) -> None:
    words = ["-f", pair[0], "-m", pair[1], "-p", str(write_map(WriteResultImage=False)), "--engine", "torch"]
    assert main([*words, "-out", str(tmp_path / "out"), "--transform-name", "field.nii.gz"]) == 0
    assert read_image(tmp_path / "out" / "field.nii.gz").grid.same_as(read_image(pair[0]).grid)


def test_results_are_written_under_these_names_too(
    tmp_path: Path, pair: tuple[str, str], write_map: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    words = ["-f", pair[0], "-m", pair[1], "-p", str(write_map()), "--engine", "torch", "-loglevel", "off"]
    names = ["--image-name", "anat/{moving}_space-{fixed}.nii", "--transform-name", "from-{fixed}_xfm.tfm"]
    assert main([*words, "-out", str(out), *names]) == 0
    assert read_image(out / "anat/moving_space-fixed.nii").grid.same_as(read_image(out / "result.0.nii.gz").grid)
    ours, own = read_transform(out / "from-fixed_xfm.tfm"), read_transform(out / "TransformParameters.0.txt")
    assert ours.parameters.tolist() == own.parameters.tolist()
