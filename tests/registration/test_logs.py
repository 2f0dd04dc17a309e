"""elastix.log."""

import logging
import threading

import pytest

from impactreg.errors import OutputError
from impactreg.registration.logs import log_file

logger = logging.getLogger("impactreg.registration.some_module")


def test_the_log_holds_what_the_package_says_while_it_is_open(tmp_path):
    with log_file(tmp_path):
        logger.info("Resolution: %d", 0)
        logger.debug("too much")
        logging.getLogger("another").info("not ours")
    logger.info("too late")
    assert (tmp_path / "elastix.log").read_text() == "Resolution: 0\n"


def test_other_handlers_hear_no_more_than_before_and_the_logger_is_put_back(tmp_path, caplog):
    package = logging.getLogger("impactreg")
    before = (package.level, package.propagate, list(package.handlers))
    with log_file(tmp_path):
        logger.info("quiet")
        logger.warning("loud")
    assert [record.message for record in caplog.records] == ["loud"]
    assert (package.level, package.propagate, list(package.handlers)) == before


def test_it_is_closed_after_an_error(tmp_path):
    before = list(logging.getLogger("impactreg").handlers)
    with pytest.raises(ValueError, match="x"), log_file(tmp_path):
        raise ValueError("x")
    assert logging.getLogger("impactreg").handlers == before


def test_parallel_runs_do_not_mix(tmp_path):
    folders = [tmp_path / name for name in "ab"]
    gate = threading.Barrier(2)

    def run(folder):
        folder.mkdir()
        with log_file(folder):
            gate.wait()
            logger.info(folder.name)
            gate.wait()

    threads = [threading.Thread(target=run, args=(folder,)) for folder in folders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(f / "elastix.log").read_text() for f in folders] == ["a\n", "b\n"]


def test_without_a_folder_nothing_happens_and_a_bad_one_is_told(tmp_path):
    with log_file(None):
        logger.info("nowhere")
    with pytest.raises(OutputError, match=r"elastix\.log: cannot be written"), log_file(tmp_path / "missing"):
        pass
