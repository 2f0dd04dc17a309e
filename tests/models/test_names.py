"""Model names and release tags: the declared form, names that deviate from it, and what they are read as."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from impactreg.errors import ModelError
from impactreg.models.names import DEFAULTS, VOCABULARY, ModelName, ReleaseTag, split_release


def values(name: str) -> st.SearchStrategy[tuple[str, ...]]:
    chosen = st.lists(st.sampled_from(VOCABULARY[name]), min_size=1, max_size=3, unique=True).map(tuple)
    return st.one_of(st.just(DEFAULTS.get(name, ())), chosen)


names = st.builds(ModelName, **{name: values(name) for name in VOCABULARY})
KNOWN = {value.lower() for known in VOCABULARY.values() for value in known}


def canonical(name: ModelName) -> str:
    """A name in the declared order without what is the default."""
    parts = ["model"]
    for field in VOCABULARY:
        found = getattr(name, field)
        # A contrast in no vocabulary is only taken for one behind a pathology.
        told = field == "pathology" and bool(name.contrast) and name.contrast[0].lower() not in KNOWN
        if found and (found != DEFAULTS.get(field) or told):
            parts.append("-".join(found))
    return "_".join(parts) if len(parts) > 1 else f"model_{'-'.join(name.anatomy)}"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "model_seg_monkey_sc_t1_unet3d",
            {"task": "seg", "animal": "monkey", "contrast": "t1", "architecture": "unet3d"},
        ),
        (
            "model_seg_sc-gm-lesion_human_ms_exvivo_t2star",
            {
                "task": "seg",
                "anatomy": "sc gm lesion",
                "pathology": "ms",
                "condition": "exvivo",
                "contrast": "t2star",
            },
        ),
        (
            "model_seg_sc-gm_t1-t2_unet3d",
            {"task": "seg", "anatomy": "sc gm", "contrast": "t1 t2", "architecture": "unet3d"},
        ),
        ("model-spinal-rootlets-mp2rage", {"anatomy": "spinal rootlets", "contrast": "mp2rage"}),
        ("model_seg_ms_mp2rage", {"task": "seg", "pathology": "ms", "contrast": "mp2rage"}),
        ("model_find_filmcharley", {"task": "find", "architecture": "filmCharley"}),
        ("model_seg_ms_newcontrast", {"task": "seg", "pathology": "ms", "contrast": "newcontrast"}),
        ("Dataset820_gm-seg", {"task": "seg", "anatomy": "Dataset820 gm"}),
    ],
)
def test_published_names_are_read_by_vocabulary(text: str, found: dict[str, str]) -> None:
    assert ModelName.parse(text) == ModelName(**{field: tuple(words.split()) for field, words in found.items()})


@given(names)
def test_a_name_in_the_declared_order_is_read_back_without_a_remark(name: ModelName) -> None:
    read = ModelName.parse(canonical(name))
    assert read == name
    assert read.remarks == ()


@given(st.text(alphabet="_-abcemost12d3unhrilxvw ", min_size=1).filter(lambda text: text.strip("_- ")))
def test_any_text_has_a_canonical_name_that_means_the_same(text: str) -> None:
    try:
        name = ModelName.parse(text)
    except ModelError:
        return
    assert ModelName.parse(canonical(name)) == name


def test_deviations_are_told() -> None:
    assert ModelName.parse("model_seg_t2").remarks == ()
    (order,) = ModelName.parse("model_seg_monkey_sc_t1").remarks
    assert order == "sc (anatomy) stands behind the animal, but belongs before it"
    assert any(
        "multichannel is in no vocabulary" in one for one in ModelName.parse("model_unet3d-multichannel").remarks
    )
    assert any("mixes anatomy and contrast" in one for one in ModelName.parse("model_gm-t1").remarks)
    assert ModelName.parse("model_softseg").remarks == ("softseg is in no vocabulary; it is taken as anatomy",)
    for empty in ("model", "", "___"):
        with pytest.raises(ModelError, match="at least one word"):
            ModelName.parse(empty)


@given(st.dates(date(1000, 1, 1)))
def test_a_release_tag_is_a_day(day: date) -> None:
    assert ReleaseTag.parse(str(ReleaseTag(day))) == ReleaseTag(day)


def test_only_real_days_are_tags() -> None:
    assert str(ReleaseTag.parse("r20210401_v2")) == "r20210401_v2"
    for wrong in ("v0.4", "r20241301", "r2024091", "20240915", "r20230229"):
        with pytest.raises(ModelError, match="rYYYYMMDD"):
            ReleaseTag.parse(wrong)


def test_a_file_name_is_a_model_and_a_release() -> None:
    tag = ReleaseTag(date(2024, 9, 15))
    assert split_release("model_seg_sc-r20240915") == ("model_seg_sc", tag)
    assert split_release("model-spinal-rootlets-mp2rage-r20240915") == ("model-spinal-rootlets-mp2rage", tag)
    assert split_release("Dataset820_gm-seg") == ("Dataset820_gm-seg", None)
    assert split_release("model-r20249999") == ("model-r20249999", None)
