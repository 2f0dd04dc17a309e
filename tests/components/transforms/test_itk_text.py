"""ITK's transform files."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch

from impactreg.components.transforms.displacement import DeformationFieldTransform
from impactreg.components.transforms.files import read_transform, write_itk
from impactreg.components.transforms.itk_text import ItkTransform, composite_to_itk, from_itk, read_itk_text, to_itk
from impactreg.components.transforms.transform import Combination
from impactreg.errors import OutputError, TransformError
from impactreg.images import Grid, Image


def mapped_by_simpleitk(path, points):
    read = sitk.ReadTransform(str(path))
    return torch.tensor([read.TransformPoint(p) for p in points.tolist()], dtype=torch.float64)


def test_simpleitk_maps_points_as_we_do(transform, sample, tmp_path):
    write_itk(tmp_path / "t.tfm", [to_itk(transform)])
    points = sample(transform.dimension)
    expected = transform(points)
    assert not torch.allclose(expected, points)
    assert torch.allclose(mapped_by_simpleitk(tmp_path / "t.tfm", points), expected, rtol=0, atol=1e-9)
    assert torch.equal(read_transform(tmp_path / "t.tfm")(points), expected)


def test_what_simpleitk_writes_is_read(transform, sample, tmp_path):
    write_itk(tmp_path / "ours.tfm", [to_itk(transform)])
    sitk.WriteTransform(sitk.ReadTransform(str(tmp_path / "ours.tfm")), str(tmp_path / "theirs.txt"))
    points = sample(transform.dimension)
    assert torch.allclose(read_transform(tmp_path / "theirs.txt")(points), transform(points), rtol=0, atol=1e-9)


def test_a_chain_becomes_a_composite_that_applies_its_members_in_the_same_order(transforms, sample, tmp_path):
    first, shift = transforms["euler"], transforms["translation"]
    chain = Combination(first, Combination(shift))
    write_itk(tmp_path / "c.tfm", composite_to_itk(chain))
    points = sample(3)
    assert torch.allclose(mapped_by_simpleitk(tmp_path / "c.tfm", points), chain(points), rtol=0, atol=1e-9)
    assert torch.allclose(read_transform(tmp_path / "c.tfm")(points), chain(points), rtol=0, atol=1e-12)
    with pytest.raises(TransformError, match='"Add"'):
        composite_to_itk(Combination(first, shift, compose=False))


def test_a_displacement_field_goes_to_itk_and_back(sample, tmp_path):
    grid = Grid.of((5, 6, 7), (5, 4, 3.5), (-11, -12, -9))
    transform = DeformationFieldTransform(Image(torch.randn(3, *grid.shape, dtype=torch.float64), grid), 1)
    write_itk(tmp_path / "f.tfm", [to_itk(transform)])
    points = sample(3)
    assert torch.allclose(mapped_by_simpleitk(tmp_path / "f.tfm", points), transform(points), rtol=0, atol=1e-9)
    assert torch.allclose(read_transform(tmp_path / "f.tfm")(points), transform(points), rtol=0, atol=1e-12)
    with pytest.raises(TransformError, match="linearly"):
        to_itk(DeformationFieldTransform(transform.field, 0))


def test_other_rigid_classes_of_itk_are_understood(sample, tmp_path):
    points = sample(3)
    versor = sitk.VersorRigid3DTransform((0.2, 0.5, 1), 0.3, (1, 2, 3), (4, 5, 6))
    for number, each in enumerate((versor, sitk.Transform(3, sitk.sitkIdentity))):
        sitk.WriteTransform(each, str(tmp_path / f"{number}.tfm"))
        expected = np.array([each.TransformPoint(p) for p in points.tolist()])
        assert np.allclose(read_transform(tmp_path / f"{number}.tfm")(points).numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("#Insight Transform File V1.0\n", "holds no transform"),
        (
            "#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\nParameters: 1 x\n",
            r"t\.tfm:3: a number",
        ),
        ("#Insight Transform File V1.0\nnonsense\n", r"t\.tfm:2: .*is needed"),
        ("#Insight Transform File V1.0\nTransform: AffineTransform_double_3_3\nParameters: 1 2\n", "needed"),
        (
            "#Insight Transform File V1.0\nTransform: Odd_double_3_3\nParameters: 1 2\n",
            "Odd_double_3_3 is not supported",
        ),
        ("#Insight Transform File V1.0\nTransform: CompositeTransform_double_3_3\n", "must have members"),
        (
            "#Insight Transform File V1.0\nTransform: BSplineTransform_double_3_3\nParameters: 1\nFixedParameters: 1\n",
            "18",
        ),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path, text, message):
    (tmp_path / "t.tfm").write_text(text)
    with pytest.raises(TransformError, match=message) as error:
        read_transform(tmp_path / "t.tfm")
    assert "\n" not in str(error.value)
    assert "t.tfm" in str(error.value)


def test_several_transforms_without_a_composite_are_refused():
    with pytest.raises(TransformError, match="not one composite"):
        from_itk([ItkTransform("TranslationTransform_double_2_2", (1, 2), ())] * 2, "x.tfm")


def test_a_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "t.tfm").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TransformError, match="cannot be read"):
        read_itk_text(tmp_path / "t.tfm")


@pytest.mark.itk
def test_h5_files_are_written_and_read_by_itk(transforms, sample, tmp_path):
    points = sample(3)
    chain = Combination(transforms["spline 3"], Combination(transforms["euler zyx"], Combination(transforms["affine"])))
    write_itk(tmp_path / "one.h5", [to_itk(chain.current)])
    write_itk(tmp_path / "all.h5", composite_to_itk(chain))
    for name, expected in (("one", chain.current(points)), ("all", chain(points))):
        assert torch.allclose(mapped_by_simpleitk(tmp_path / f"{name}.h5", points), expected, rtol=0, atol=1e-9)
        assert torch.allclose(read_transform(tmp_path / f"{name}.h5")(points), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("content", [b"", b"no such file", b"\x89HDF\r\n\x1a\n" + bytes(32) + b"\xff" * 4 + bytes(4)])
def test_a_damaged_h5_file_is_refused_before_the_library_complains_at_length(content, tmp_path):
    (tmp_path / "bad.h5").write_bytes(content)
    with pytest.raises(TransformError, match=r"bad\.h5: the transform cannot be read: this is no HDF5 file"):
        read_transform(tmp_path / "bad.h5")


@pytest.mark.parametrize("ending", ["tfm", "h5"])
def test_composites_of_simpleitk_apply_their_last_member_first(sample, tmp_path, ending):
    shift = sitk.TranslationTransform(3, (10, 0, 0))
    turn = sitk.Euler3DTransform((1, 2, 3), 0.3, -0.2, 0.5, (4, 5, 6))
    scale = sitk.AffineTransform(3)
    scale.Scale((1.2, 0.8, 1.1))
    composite = sitk.CompositeTransform([scale, turn, shift])
    sitk.WriteTransform(composite, str(tmp_path / f"c.{ending}"))
    expected = np.array([composite.TransformPoint(p) for p in sample(3).tolist()])
    read = read_transform(tmp_path / f"c.{ending}")
    assert [type(each.current).__name__ for each in read.chain()] == [
        "TranslationTransform",
        "EulerTransform",
        "AffineTransform",
    ]
    assert np.allclose(read(sample(3)).numpy(), expected, rtol=0, atol=1e-9)
    write_itk(tmp_path / "again.tfm", composite_to_itk(read))
    assert np.allclose(mapped_by_simpleitk(tmp_path / "again.tfm", sample(3)).numpy(), expected, rtol=0, atol=1e-9)


@pytest.mark.itk
def test_composites_of_itk_are_read_and_itk_reads_ours(transforms, sample, tmp_path):
    import itk

    composite = itk.CompositeTransform[itk.D, 3].New()
    for vector in ((1, 2, 3), (4, 5, 6)):
        member = itk.AffineTransform[itk.D, 3].New()
        member.Rotate(0, 1, 0.1 * vector[0])
        member.Translate(vector)
        composite.AddTransform(member)
    itk.transformwrite([composite], str(tmp_path / "theirs.h5"))
    expected = np.array([list(composite.TransformPoint(p)) for p in sample(3).tolist()])
    assert np.allclose(read_transform(tmp_path / "theirs.h5")(sample(3)).numpy(), expected, rtol=0, atol=1e-9)
    chain = Combination(transforms["similarity"], Combination(transforms["affine"]))
    write_itk(tmp_path / "ours.h5", composite_to_itk(chain))
    (read,) = itk.transformread(str(tmp_path / "ours.h5"))
    found = np.array([list(read.TransformPoint(p)) for p in sample(3).tolist()])
    assert np.allclose(found, chain(sample(3)).numpy(), rtol=0, atol=1e-9)


@pytest.mark.itk
def test_what_itk_cannot_write_or_read_is_one_clear_line(transforms, tmp_path):
    with pytest.raises(OutputError, match=r"cannot be written.*use tfm"):
        write_itk(tmp_path / "t.h5", [to_itk(transforms["spline 2"])])
    assert not list(tmp_path.iterdir())
    (tmp_path / "t.h5").write_bytes(b"nothing")
    with pytest.raises(TransformError, match=r"t\.h5: .*cannot be read") as error:
        read_transform(tmp_path / "t.h5")
    assert "\n" not in str(error.value)
