from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch

from impactreg.errors import ImageError, MissingExtra, OutputError
from impactreg.images import Image
from impactreg.report import NAME, write_report
from impactreg.report.verdict import Number

SECTIONS = ("verdict", "pictures", "deformation", "features", "optimisation", "settings")
VOID = {"meta", "link", "input", "line", "path", "br"}


class Page(HTMLParser):
    """The elements of a page, and whether every one that is opened is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def with_tag(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def data_of(text: str) -> Any:
    """What the page's script draws from."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, flags=re.DOTALL)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def page(finished: Path) -> str:
    return write_report(finished).read_text(encoding="utf-8")


def test_the_page_is_written_into_the_folder_of_the_run(finished: Path) -> None:
    assert write_report(finished) == finished / NAME


def test_the_page_is_well_formed_and_has_every_section(page: str) -> None:
    ids = [attributes.get("id") for attributes in Page(page).with_tag("section")]
    assert tuple(ids) == SECTIONS


def test_the_page_refers_to_nothing_outside_itself(page: str) -> None:
    for _, attributes in Page(page).elements:
        for key in ("src", "href", "data", "action"):
            assert re.match(r"data:|#|$", attributes.get(key) or ""), attributes
    assert not re.search(r"@import|url\(|https?://", re.sub(r'"uri": ?"[^"]*"', "", page))
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page


def test_the_page_is_small(page: str) -> None:
    assert len(page) < 5_000_000


def test_every_picture_and_slider_has_a_name(page: str) -> None:
    found = Page(page)
    assert len(found.with_tag("canvas")) == 27
    assert all(attributes.get("aria-label") for attributes in found.with_tag("canvas") + found.with_tag("svg"))
    assert page.count('type="range"') == 9


def test_the_planes_have_the_letters_of_radiology(page: str) -> None:
    edges = re.findall(r'class="edge (\w+)" aria-hidden="true">(\w)<', page)
    assert edges[:4] == [("left", "R"), ("right", "L"), ("top", "A"), ("bottom", "P")]


def test_pictures_of_everything_are_in_the_page(page: str) -> None:
    for plane in data_of(page)["planes"]:
        assert set(plane["images"]) == {"fixed", "moving", "result"}
        assert plane["field"]["uri"].startswith("data:image/png;base64,")
        assert plane["images"]["result"]["uri"].startswith("data:image/jpeg;base64,")
        assert len(plane["features"]) == 1


def test_models_are_told_with_their_checksums(page: str) -> None:
    assert "MIND/R1D1_3D.pt" in page
    assert re.search(r"<code>[0-9a-f]{64}</code>", page)


def test_the_command_line_and_parameter_map_are_told(page: str, pair: Path) -> None:
    assert f"impactreg -f {pair}" in page
    assert "(FinalGridSpacingInPhysicalUnits 16)" in page
    assert "Maximum number of iterations has been reached" in page


def test_given_numbers_are_on_the_page(finished: Path) -> None:
    page = write_report(finished, numbers={"Dice of the liver": (0.5, 0.875)}).read_text(encoding="utf-8")
    assert "Dice of the liver" in page
    assert "0.875" in page


def test_lost_images_are_told_with_what_to_give(finished: Path, pair: Path, tmp_path: Path) -> None:
    folder = tmp_path / "moved"
    shutil.copytree(finished, folder)
    log = (folder / "elastix.log").read_text(encoding="utf-8")
    (folder / "elastix.log").write_text(log.replace("moving.nii.gz", "gone.nii.gz"), encoding="utf-8")
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Not found: the moving image (" in page
    assert f"impactreg report {folder} -f {pair / 'fixed.nii.gz'} -m MOVING" in page
    assert Page(page).with_tag("canvas")


def test_without_log_tables_and_result_the_page_shows_what_the_transform_does(made_up: Callable[..., Path]) -> None:
    image = Image.of(torch.rand(10, 12, 14) * 1000)
    page = write_report(made_up(image), fixed=image, moving=image).read_text(encoding="utf-8")
    assert "it was made from the transform" in page
    assert "There are no tables of iterations" in page


def test_a_2d_pair_has_one_plane_and_no_slider(made_up: Callable[..., Path]) -> None:
    image = Image.of(torch.rand(20, 30) * 100)
    page = write_report(made_up(image), fixed=image, moving=image).read_text(encoding="utf-8")
    assert [plane["name"] for plane in data_of(page)["planes"]] == ["Image"]
    assert 'type="range"' not in page


@pytest.mark.parametrize(
    "values",
    [
        torch.full((8, 9, 10), 7.0),
        torch.full((8, 9, 10), 1e30),
        torch.full((8, 9, 10), float("nan")),
        torch.rand(8, 9, 10).masked_fill(torch.rand(8, 9, 10) > 0.5, float("inf")),
        torch.rand(8, 9, 10) * 1e30,
        torch.randint(-1024, 3000, (8, 9, 10), dtype=torch.int16),
        torch.rand(1, 9, 10),
    ],
    ids=["constant", "huge-constant", "no-number", "infinite", "huge", "ct", "one-slice"],
)
def test_images_of_any_contents_can_be_shown(made_up: Callable[..., Path], values: torch.Tensor) -> None:
    image = Image.of(values)
    page = write_report(made_up(image), fixed=image, moving=image).read_text(encoding="utf-8")
    assert len(data_of(page)["planes"]) == 3


def test_vectors_are_shown_by_their_lengths(made_up: Callable[..., Path]) -> None:
    image = Image.of(torch.rand(8, 9, 10))
    vectors = image.with_data(torch.rand(3, 8, 9, 10))
    assert write_report(made_up(image), fixed=vectors, moving=vectors).exists()


def test_names_are_escaped(made_up: Callable[..., Path], tmp_path: Path) -> None:
    image = Image.of(torch.rand(8, 9, 10))
    page = write_report(made_up(image), fixed=image, moving=image, numbers={"</script><b>": 1.0}).read_text("utf-8")
    assert "<b>" not in page


HOSTILE = "<img src=x onerror=alert(1)> $(id);'\""


def test_names_in_files_and_logs_are_escaped(pair: Path, made_up: Callable[..., Path], tmp_path: Path) -> None:
    image = Image.of(torch.rand(8, 9, 10))
    made = made_up(image)
    folder = made.rename(made.with_name(HOSTILE))
    shutil.copy(pair / "fixed.nii.gz", folder / f"{HOSTILE}.nii.gz")
    (folder / "elastix.log").write_text(
        f"impactreg {HOSTILE}\ncommand line: impactreg -f {shlex.quote(HOSTILE)}.nii.gz -m {shlex.quote(HOSTILE)}gone\n"
        f'device: {HOSTILE}\n\nparameter map {HOSTILE}:\n(Metric "{HOSTILE[:-1]}")\n'
        f"({HOSTILE.split()[0][1:]} 1)\nStopping condition: {HOSTILE}\nThe transform is saved in {HOSTILE}\n",
        encoding="utf-8",
    )
    (folder / "IterationInfo.0.R0.txt").write_text(f"1:ItNr\t2:Metric{HOSTILE}\t2:Metric\n0\t1\t2\n1\t1\t1\n")
    (folder / "evaluation.csv").write_text(f"case,measure,label,before,after\n,TRE mean,,{HOSTILE},1\n")
    numbers: dict[str, Number] = {HOSTILE: HOSTILE}
    text = write_report(folder, numbers=numbers).read_text("utf-8")
    assert not Page(text).with_tag("img")
    assert not any(key.startswith("on") for _, attributes in Page(text).elements for key in attributes)
    advice = html.unescape(text.split('<pre id="advice">')[1].split("</pre>")[0])
    words = ["impactreg", "report", str(folder), "-f", str(folder / f"{HOSTILE}.nii.gz"), "-m", "MOVING"]
    assert shlex.split(advice) == words


@pytest.mark.skipif(sys.platform != "linux", reason="names are text there")
def test_names_that_are_no_text_are_shown_as_far_as_they_are(made_up: Callable[..., Path]) -> None:
    image = Image.of(torch.rand(8, 9, 10))
    made = made_up(image)
    folder = made.rename(os.fsdecode(os.fsencode(made.parent) + b"/caf\xe9"))
    assert "caf?" in write_report(folder, fixed=image, moving=image).read_text("utf-8")


def test_sides_are_those_of_the_patient_without_direction_cosines(made_up: Callable[..., Path]) -> None:
    image = Image.of(torch.rand(8, 9, 10), direction=[[-1, 0, 0], [0, 0, 1], [0, 1, 0]], origin=(5, 6, 70))
    folder = made_up(image)
    first = write_report(folder, fixed=image, moving=image).read_text(encoding="utf-8")
    file = folder / "TransformParameters.0.txt"
    file.write_text(file.read_text().replace('Cosines "true"', 'Cosines "false"').replace("s 1 2 0", "s -1 0 2"))
    second = write_report(folder, fixed=image, moving=image).read_text(encoding="utf-8")
    letters = [re.findall(r'class="edge (\w+)" aria-hidden="true">(\w)<', page) for page in (first, second)]
    assert letters[0] == letters[1]
    for before, after in zip(data_of(first)["planes"], data_of(second)["planes"], strict=True):
        assert before == after


def test_a_folder_without_a_registration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"TransformParameters\.0\.txt .*give the output folder"):
        write_report(tmp_path)
    with pytest.raises(OutputError, match="there is no such folder"):
        write_report(tmp_path / "none")


def test_an_image_of_another_dimension_is_refused(made_up: Callable[..., Path]) -> None:
    image = Image.of(torch.rand(8, 9, 10))
    with pytest.raises(ImageError, match="it is 2D, but the transform is 3D"):
        write_report(made_up(image), fixed=image, moving=Image.of(torch.rand(8, 9)))


@pytest.mark.parametrize(("module", "name"), [("jinja2", "jinja2"), ("PIL.Image", "pillow")])
def test_a_missing_package_is_named_with_its_extra(
    finished: Path, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtra, match=rf"needs {name}: pip install impactreg\[report\]"):
        write_report(finished)
