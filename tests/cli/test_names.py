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
