from __future__ import annotations

from pathlib import Path

from impactreg.report.run_log import RunLog

OURS = """impactreg 0.1.0
command line: impactreg -f 'my fixed.nii' -m moving.nii -p rigid -p mind.txt -out out --models a b --debug
started: 2026-01-02 03:04:05 +0000
libraries: torch 2.13.0, numpy 2.4

Parameter map 0: /maps/rigid.txt
=============== start of ParameterMap ===============
(Metric "Other")
=============== end of ParameterMap ===============
parameter map /maps/rigid.txt:
(Metric "AdvancedMattesMutualInformation")
(NumberOfResolutions 2)

parameter map :
(Metric "Impact")

Stopping condition: first.
Stopping condition: second.
The transform is saved in out/TransformParameters.0.txt
Stopping condition: third.
The transform is saved in out/TransformParameters.1.txt
Results are in out; the registration took 72.6 s
"""
ELASTIX = """ELASTIX version: 5.3.1
Command line options from ElastixBase:
-f        /data/fixed.mha
-m        /data/moving.mha
-fMask    unspecified, so no fixed mask used
=============== start of ParameterMap: /maps/p0.txt ===============
(Metric "AdvancedMeanSquares")
=============== end of ParameterMap: /maps/p0.txt ===============
Total time elapsed: 12.5 s.
"""


def read(folder: Path, text: str) -> RunLog:
    (folder / "elastix.log").write_text(text, encoding="utf-8")
    return RunLog.read(folder / "elastix.log")


def test_our_log_tells_facts_maps_and_reasons_to_stop(tmp_path: Path) -> None:
    log = read(tmp_path, OURS)
    assert log.facts["impactreg"] == "0.1.0"
    assert log.facts["libraries"] == "torch 2.13.0, numpy 2.4"
    assert [each.get("Metric") for each in log.parameter_maps] == [("AdvancedMattesMutualInformation",), ("Impact",)]
    assert log.parameter_maps[0].source == Path("/maps/rigid.txt")
    assert log.stop_reasons == (("first.", "second."), ("third.",))
    assert log.seconds == 72.6


def test_the_head_of_our_log_tells_maps_where_messages_are_few(tmp_path: Path) -> None:
    log = read(tmp_path, OURS.partition("parameter map")[0])
    assert [each.get("Metric") for each in log.parameter_maps] == [("Other",)]
    assert log.parameter_maps[0].source == Path("/maps/rigid.txt")
    assert log.parameter_maps[0].name == "/maps/rigid.txt"


def test_flags_are_found_in_the_command_line(tmp_path: Path) -> None:
    log = read(tmp_path, OURS)
    assert log.given("-f") == ("my fixed.nii",)
    assert log.given("--models") == ("a", "b")
    assert log.given("-fMask") == ()


def test_a_numbered_flag_is_found_by_its_plain_name(tmp_path: Path) -> None:
    log = read(tmp_path, "impactreg 0.1.0\ncommand line: impactreg -f0 a.nii -f1 b.nii\n")
    assert log.given("-f") == ("a.nii",)


def test_the_log_of_elastix_itself_is_understood(tmp_path: Path) -> None:
    log = read(tmp_path, ELASTIX)
    assert log.given("-f") == ("/data/fixed.mha",)
    assert log.given("-fMask") == ()
    assert [each.get("Metric") for each in log.parameter_maps] == [("AdvancedMeanSquares",)]
    assert log.facts["elastix"] == "5.3.1"
    assert log.seconds == 12.5


def test_without_a_log_nothing_is_known(tmp_path: Path) -> None:
    assert RunLog.read(tmp_path / "elastix.log") == RunLog()


def test_a_damaged_log_is_no_error(tmp_path: Path) -> None:
    log = read(tmp_path, 'impactreg 0.1.0\ncommand line: impactreg -f "a\n\nparameter map x.txt:\n(Metric "unended\n')
    assert log.given("-f") == ('"a',)
    assert log.parameter_maps == ()
