"""elastix.log, which begins when there is something to tell."""

import logging
from pathlib import Path

import pytest

from impactreg.cli.log import header, log_file, told_maps
from impactreg.errors import OutputError
from impactreg.parameters import ParameterMap

logger = logging.getLogger("impactreg.somewhere")


def test_a_log_that_was_never_begun_leaves_the_one_of_before(tmp_path: Path) -> None:
    path = tmp_path / "elastix.log"
    path.write_text("of before")
    with log_file(path, "header", "info"):
        logger.info("a message")
    assert path.read_text() == "of before"


def test_a_log_holds_what_was_told_before_it_began(tmp_path: Path) -> None:
    path = tmp_path / "elastix.log"
    with log_file(path, "header", "info") as file:
        logger.info("first")
        file.begin()
        file.begin()
        logger.debug("second")
    logger.warning("too late")
    assert path.read_text() == "header\nfirst\nsecond\n"


def test_the_level_holds_for_the_log_too(tmp_path: Path) -> None:
    with log_file(tmp_path / "elastix.log", "header", "warning") as file:
        file.begin()
        logger.info("a message")
        logger.warning("a warning")
    assert (tmp_path / "elastix.log").read_text() == "header\na warning\n"


def test_a_log_that_cannot_be_written_is_an_output_error(tmp_path: Path) -> None:
    with log_file(tmp_path / "nowhere" / "elastix.log", "header", "info") as file, pytest.raises(OutputError):
        file.begin()


def test_the_header_tells_what_a_run_depended_on() -> None:
    lines = header(["-f", "a b.nii"], {"device": "cpu"}).splitlines()
    assert lines[0].startswith("impactreg ")
    assert lines[1] == "command line: impactreg -f 'a b.nii'"
    assert any(line.startswith("libraries: torch ") for line in lines)
    assert lines[-1] == "device: cpu"


def test_maps_are_told_as_elastix_does() -> None:
    told = told_maps([ParameterMap.from_dict({"A": 1}, "a.txt")])
    start, end = (f"=============== {word} of ParameterMap ===============" for word in ("start", "end"))
    assert told == f"\nParameter map 0: a.txt\n{start}\n(A 1)\n{end}"
