"""A whole Learn2Reg task."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, map_coordinates

from impactreg.errors import ImageError, PointsError, TransformError
from impactreg.evaluation import evaluate_dataset
from impactreg.evaluation.table import content_of, rows_of, write_results
from impactreg.evaluation.task import Pair, Task
from impactreg.parameters import ParameterMap

SHAPE = (14, 12, 15)
AFFINE = np.array([[-1.5, 0, 0, 9], [0, -1.25, 0, 8], [0, 0, 2.0, -7], [0, 0, 0, 1]])
METHODS: list[dict[str, Any]] = [
    {"name": "LogJacDetStd", "metric": "sdlogj"},
    {"name": "DSC", "metric": "dice", "labels": [1, 2]},
    {"name": "HD95", "metric": "hd95", "labels": [1, 2]},
    {"name": "TRE_lm", "metric": "tre", "dest": "landmarks"},
]


@pytest.fixture
def task(tmp_path: Path, rng: np.random.Generator) -> Path:
    """The folder of a task of two pairs with its fields, one in each format."""
    for folder in ("imagesTr", "labelsTr", "masksTr", "landmarksTr", "fields"):
        (tmp_path / folder).mkdir()
    pairs = []
    for subject in ("0001", "0002"):
        for modality in ("0000", "0001"):
            name = f"Task_{subject}_{modality}"
            labels = np.digitize(gaussian_filter(rng.normal(size=SHAPE), 2), [-0.05, 0.05]).astype(np.uint8)
            save(rng.random(SHAPE).astype(np.float32), tmp_path / "imagesTr" / f"{name}.nii.gz")
            save(labels, tmp_path / "labelsTr" / f"{name}.nii.gz")
            save((rng.random(SHAPE) > 0.3).astype(np.uint8), tmp_path / "masksTr" / f"{name}.nii.gz")
            points = rng.uniform(0, 1, (7, 3)) * (np.array(SHAPE) - 1)
            np.savetxt(tmp_path / "landmarksTr" / f"{name}.csv", points, delimiter=",")
        field = np.stack([gaussian_filter(rng.normal(size=SHAPE), 1.5) for _ in range(3)], axis=-1) * 6
        if subject == "0001":
            save(field, tmp_path / "fields" / "disp_0001_0001.nii.gz")
        else:
            np.savez(tmp_path / "fields" / "disp_0002_0000_0002_0001.npz", field.astype(np.float32))
        images = [f"./imagesTr/Task_{subject}_{modality}.nii.gz" for modality in ("0000", "0001")]
        pairs.append({"fixed": images[0], "moving": images[1]})
    write = {"task_name": "Task", "evaluation_methods": METHODS, "expected_shape": [*SHAPE, 3], "eval_pairs": pairs}
    (tmp_path / "config.json").write_text(json.dumps({**write, "masked_evaluation": True}))
    dataset = {"name": "Task", "tensorImageShape": {"0": SHAPE}, "registration_val": pairs}
    (tmp_path / "Task_dataset.json").write_text(json.dumps(dataset))
    return tmp_path


@pytest.fixture
def rewrite(task: Path) -> Callable[..., Path]:
    """Writes the configuration with some keys changed; None leaves a key out."""

    def write(**changes: object) -> Path:
        content = {**json.loads((task / "config.json").read_text()), **changes}
        kept = {key: value for key, value in content.items() if value is not None}
        (task / "other.json").write_text(json.dumps(kept))
        return task / "other.json"

    return write


def save(values: np.ndarray, path: Path) -> None:
    nibabel.Nifti1Image(values, AFFINE).to_filename(path)


def load(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).get_fdata())


def test_a_case_has_the_published_figures(task: Path) -> None:
    found = evaluate_dataset(task / "config.json", task / "fields").cases["0001_0000<--0001_0001"]
    field = load(task / "fields" / "disp_0001_0001.nii.gz")
    rows = [np.stack(np.gradient(field[..., k]), axis=-1) for k in range(3)]
    determinants = np.linalg.det(np.stack(rows, axis=-2) + np.eye(3))[2:-2, 2:-2, 2:-2]
    inside = load(task / "masksTr/Task_0001_0000.nii.gz")[2:-2, 2:-2, 2:-2] == 1
    assert found["LogJacDetStd"].mean == pytest.approx(np.log(determinants + 3)[inside].std(), abs=1e-6)
    fixed, moving = (load(task / f"labelsTr/Task_0001_000{k}.nii.gz") for k in (0, 1))
    warped = map_coordinates(moving, np.indices(SHAPE) + field.transpose(3, 0, 1, 2), order=0)
    pairs = [(fixed == label, warped == label) for label in (1, 2)]
    dice = [2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in pairs]
    assert found["DSC"].detailed == pytest.approx(dice)
    points, others = (np.loadtxt(task / f"landmarksTr/Task_0001_000{k}.csv", delimiter=",") for k in (0, 1))
    moved = points + np.stack([map_coordinates(field[..., k], points.T) for k in range(3)], axis=1)
    tre = np.linalg.norm((moved - others) * [1.5, 1.25, 2.0], axis=1)
    assert found["TRE_lm"].detailed == pytest.approx(tre, abs=1e-6)
    assert found["TRE_lm"].mean == pytest.approx(tre.mean(), abs=1e-6)


def test_a_dataset_is_evaluated_by_what_lies_in_its_folders(task: Path) -> None:
    whole = evaluate_dataset(task / "Task_dataset.json", task / "fields")
    asked = evaluate_dataset(task / "config.json", task / "fields")
    assert whole == asked


def test_results_are_laid_out_as_learn2reg_has_them(task: Path) -> None:
    result = evaluate_dataset(task / "config.json", task / "fields")
    write_results(result, task / "out")
    content = json.loads((task / "out" / "evaluation.json").read_text())
    assert content == content_of(result)
    assert set(content["cases"]["0002_0000<--0002_0001"]) == {*(each["name"] for each in METHODS), "num_foldings"}
    assert set(content["aggregates"]["DSC"]) == {"mean", "std", "30"}
    lines = (task / "out" / "evaluation.csv").read_text().splitlines()
    assert len(lines) == 1 + len(rows_of(result))
    assert lines[0] == "case,convention,measure,label,before,after,unit"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expected_shape": [1, 2, 3, 3]}, r"disp_0001_0001.nii.gz: the field has shape \(14, 12, 15, 3\), not"),
        ({"evaluation_methods": [*METHODS, METHODS[0]]}, "other.json: the names of evaluation_methods must differ"),
        ({"evaluation_methods": [{"name": "x", "metric": "ssim"}]}, r'there is no metric "ssim": Learn2Reg has sdlogj'),
        ({"evaluation_methods": None}, "no Learn2Reg task: 'evaluation_methods' is missing"),
        ({"eval_pairs": []}, "the task has no pairs"),
        ({"eval_pairs": None}, "no Learn2Reg task: 'registration_val' is missing"),
        ({"eval_pairs": [{"fixed": "a.nii", "moving": "b.nii"}]}, "images are named TASK_0001_0000.nii.gz"),
    ],
)
def test_a_task_that_does_not_fit_is_one_line(
    rewrite: Callable[..., Path], task: Path, changes: dict[str, object], message: str
) -> None:
    with pytest.raises((ImageError, TransformError), match=message) as caught:
        evaluate_dataset(rewrite(**changes), task / "fields")
    assert "\n" not in str(caught.value)


def test_missing_files_are_told(task: Path) -> None:
    (task / "landmarksTr/Task_0001_0001.csv").write_text("1,2,3\n")
    with pytest.raises(PointsError, match=r"Task_0001_0001.csv: it has 1 landmarks, but .*0000.csv has 7"):
        evaluate_dataset(task / "config.json", task / "fields")
    (task / "fields" / "disp_0001_0001.nii.gz").unlink()
    with pytest.raises(TransformError, match=r"1 of 2 fields .* are missing: disp_0001_0001 or disp_0001_0000_0001"):
        evaluate_dataset(task / "config.json", task / "fields")
    with pytest.raises(ImageError, match=r"nowhere\.json: cannot be read: No such file"):
        evaluate_dataset(task / "nowhere.json", task / "fields")
    (task / "config.json").write_text("[1")
    with pytest.raises(ImageError, match="this is no JSON file"):
        evaluate_dataset(task / "config.json", task / "fields")


def shift(path: Path, voxels: int, **keys: object) -> None:
    """Writes a translation by some voxels along the first axis."""
    path.parent.mkdir(exist_ok=True)
    content = {"Transform": "TranslationTransform", "TransformParameters": [1.5 * voxels, 0, 0], **keys}
    ParameterMap.from_dict(content).write(path)


def constant(voxels: int) -> np.ndarray:
    """The field of such a translation."""
    return np.broadcast_to(np.array([voxels, 0, 0], np.float32), (*SHAPE, 3))


def test_transform_files_and_output_folders_serve_as_fields(task: Path) -> None:
    save(constant(2), task / "fields" / "disp_0001_0001.nii.gz")
    np.savez(task / "fields" / "disp_0002_0000_0002_0001.npz", constant(-1))
    expected = evaluate_dataset(task / "config.json", task / "fields")
    shift(task / "transforms" / "disp_0001_0001.txt", 2)
    folder = task / "transforms" / "disp_0002_0002"
    folder.mkdir()
    shift(folder / "TransformParameters.2.txt", 7)
    shift(folder / "TransformParameters.10.txt", -1)
    shift(folder / "TransformParameters.10.R3.txt", 5)
    found = evaluate_dataset(task / "config.json", task / "transforms")
    for case, figures in expected.cases.items():
        for name, figure in figures.items():
            assert found.cases[case][name].detailed == pytest.approx(figure.detailed, abs=1e-6), name


def test_transforms_are_taken_in_the_frame_they_were_made_in(task: Path) -> None:
    for modality in ("0000", "0001"):
        image = nibabel.load(task / "imagesTr" / f"Task_0001_{modality}.nii.gz")
        turned = nibabel.Nifti1Image(np.asarray(image.dataobj), np.abs(AFFINE))
        turned.to_filename(task / "imagesTr" / f"Task_0001_{modality}.nii.gz")
    save(constant(2), task / "fields" / "disp_0001_0001.nii.gz")
    expected = evaluate_dataset(task / "config.json", task / "fields").cases["0001_0000<--0001_0001"]
    (task / "fields" / "disp_0001_0001.nii.gz").unlink()
    for directions, is_same in (("false", True), ("true", False)):
        shift(task / "fields" / "disp_0001_0001.txt", 2, UseDirectionCosines=directions)
        found = evaluate_dataset(task / "config.json", task / "fields").cases["0001_0000<--0001_0001"]
        assert (found["TRE_lm"].mean == pytest.approx(expected["TRE_lm"].mean, abs=1e-6)) is is_same


def test_a_transform_that_is_no_field_of_3d_is_told(task: Path) -> None:
    (task / "fields" / "disp_0001_0001.nii.gz").unlink()
    keys = {"Transform": "TranslationTransform", "TransformParameters": [1, 2]}
    ParameterMap.from_dict(keys).write(task / "fields" / "disp_0001_0001.txt")
    with pytest.raises(TransformError, match=r"disp_0001_0001.txt: the transform is 2D, but Learn2Reg's images are 3D"):
        evaluate_dataset(task / "config.json", task / "fields")


def test_pairs_of_other_modalities_have_long_names_and_landmarks_of_their_own(tmp_path: Path) -> None:
    pair = Pair("./imagesTr/Lung_0011_0002.nii.gz", "./imagesTr/Lung_0011_0000.nii.gz")
    content = {
        "task_name": "Lung",
        "evaluation_methods": [{"name": "TRE", "metric": "tre", "dest": "keypoints"}],
        "eval_pairs": [{"fixed": pair.fixed, "moving": pair.moving}],
    }
    (tmp_path / "config.json").write_text(json.dumps(content))
    task = Task.read(tmp_path / "config.json")
    assert (pair.name, pair.long_name) == ("0011_0002<--0011_0000", "disp_0011_0002_0011_0000")
    assert task.landmark_folder(task.methods[0], pair) == "keypoints00000002"
    (tmp_path / "keypoints02Tr").mkdir()
    (tmp_path / "keypoints02Tr" / "Lung_0011_0002.csv").touch()
    assert task.landmark_folder(task.methods[0], pair) == "keypoints02"
