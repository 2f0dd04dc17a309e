"""Numbers and file names out of TransformParameters files."""

import pytest
import torch

from impactreg.components.transforms.reading import existing_file, floats, parameters_of
from impactreg.errors import TransformError
from impactreg.parameters import ParameterMap


def given(**keys):
    return ParameterMap.from_dict(keys, "t.txt")


def test_numbers_of_a_key_are_floats():
    assert floats(given(Spacing=[1, "2.5"]), "Spacing") == (1.0, 2.5)


@pytest.mark.parametrize("keys", [{}, {"Other": [1]}])
def test_a_key_that_must_be_there_is_asked_for(keys):
    with pytest.raises(TransformError, match=r"^t\.txt.*a transform needs \(Spacing \.\.\.\), which is missing"):
        floats(given(**keys), "Spacing")


def test_parameters_are_float64():
    found = parameters_of(given(TransformParameters=[1, 2], NumberOfParameters=2), 2)
    assert found.dtype == torch.float64
    assert found.tolist() == [1, 2]


@pytest.mark.parametrize("odd", ["inf", "-1e999"])
def test_parameters_are_finite(odd):
    with pytest.raises(TransformError, match=r"TransformParameters must be finite numbers"):
        parameters_of(given(TransformParameters=[odd, 2]), 2)


@pytest.mark.parametrize("written", [{}, {"NumberOfParameters": 3}])
def test_the_number_of_parameters_is_what_is_needed(written):
    keys = {"TransformParameters": [1, 2, 3], **written}
    assert len(parameters_of(given(**keys), 3)) == 3
    with pytest.raises(TransformError, match="3 TransformParameters are given where 4 are needed"):
        parameters_of(given(**keys), 4)


def test_the_number_of_parameters_is_what_is_written():
    with pytest.raises(TransformError, match="3 TransformParameters are given where"):
        parameters_of(given(TransformParameters=[1, 2, 3], NumberOfParameters=2), 3)


def test_a_file_is_found_as_written_or_beside_the_map(tmp_path, monkeypatch):
    (tmp_path / "beside").mkdir()
    (tmp_path / "here").mkdir()
    for folder in ("beside", "here"):
        (tmp_path / folder / "field.mha").touch()
    given(File="field.mha").write(tmp_path / "beside/t.txt")
    parameter_map = ParameterMap.read(tmp_path / "beside/t.txt")
    monkeypatch.chdir(tmp_path)
    assert existing_file(parameter_map, "File").resolve() == tmp_path / "beside/field.mha"
    monkeypatch.chdir(tmp_path / "here")
    assert existing_file(parameter_map, "File").resolve() == tmp_path / "here/field.mha"
    assert existing_file(parameter_map, "File", beside_first=True) == tmp_path / "beside/field.mha"


@pytest.mark.parametrize("written", ["/old/place/field.mha", "C:\\old\\field.mha"])
def test_a_file_that_has_moved_along_is_taken_with_a_warning(tmp_path, caplog, written):
    (tmp_path / "field.mha").touch()
    (tmp_path / "t.txt").write_text(f'(File "{written}")\n')
    assert existing_file(ParameterMap.read(tmp_path / "t.txt"), "File") == tmp_path / "field.mha"
    assert "does not exist; the file of that name beside it is taken" in caplog.text


def test_a_file_that_is_nowhere_is_told():
    with pytest.raises(TransformError, match=r'^t\.txt.*\(File "gone\.mha"\): there is no such file'):
        existing_file(given(File="gone.mha"), "File")
    with pytest.raises(TransformError, match=r"a transform needs \(File \.\.\.\), which is missing"):
        existing_file(given(), "File")
