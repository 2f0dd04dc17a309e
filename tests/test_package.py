"""The package as a whole: what an import costs, how the source is cut, what is installed."""

from __future__ import annotations

import ast
import configparser
import re
import statistics
import subprocess
import sys
from pathlib import Path

import impactreg

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "impactreg"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST_MODULE, LONGEST_BODY = 320, 60


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def body_lengths(path: Path) -> dict[str, int]:
    """Lines of each function of a file from its first statement to its last; the docstring does not count."""
    lengths = {}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node, clean=False) is not None else node.body
            lengths[f"{name_of(path)}:{node.lineno} {node.name}"] = (
                (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            )
    return lengths


def options(name: str) -> configparser.SectionProxy:
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg", encoding="utf-8")
    return setup[name]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=120, check=False
    )


def test_help_imports_neither_torch_nor_itk() -> None:
    ended = run(
        "-c",
        "import sys\nfrom impactreg.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "found = {'torch', 'itk', 'nibabel', 'matplotlib'} & set(sys.modules)\nassert not found, found\n",
    )
    assert ended.returncode == 0, ended.stderr
    assert "impactreg" in ended.stdout


def test_the_package_runs_as_a_module() -> None:
    ended = run("-m", "impactreg", "--help")
    assert ended.returncode == 0, ended.stderr
    assert "usage" in ended.stdout.lower()


def test_the_version_is_a_number() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\w*", impactreg.__version__)


def test_all_that_the_face_promises_is_there_and_sorted() -> None:
    assert list(impactreg.__all__) == sorted(impactreg.__all__)
    assert [name for name in impactreg.__all__ if not hasattr(impactreg, name)] == []


def test_every_module_has_a_caption() -> None:
    captions = {name_of(path): (ast.get_docstring(tree_of(path)) or "").splitlines()[:1] for path in MODULES}
    assert [name for name, caption in captions.items() if not caption] == []


def test_every_module_is_short() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_MODULE} == {}


def test_no_function_is_long() -> None:
    lengths = {where: length for path in MODULES for where, length in body_lengths(path).items()}
    assert {where: length for where, length in lengths.items() if length > LONGEST_BODY} == {}


def test_functions_are_mostly_short() -> None:
    lengths = [length for path in MODULES for length in body_lengths(path).values()]
    assert statistics.median(lengths) < 10
    assert sum(length < 30 for length in lengths) >= 0.9 * len(lengths)


def test_nothing_below_the_command_line_prints() -> None:
    prints = [
        f"{name_of(path)}:{node.lineno}"
        for path in MODULES
        if path.parent != PACKAGE / "cli"
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert prints == []


def test_every_package_is_installed() -> None:
    found = {name_of(path.parent).replace("/", ".") for path in PACKAGE.rglob("__init__.py")}
    named = set(options("options")["packages"].split())
    assert {name for name in named if not name.startswith("impactreg.shipped.")} == found


def test_every_shipped_folder_is_there() -> None:
    mapping = dict(re.findall(r"^(\S+) = (\S+)$", options("options")["package_dir"], flags=re.MULTILINE))
    assert mapping.keys() == {name for name in options("options")["packages"].split() if ".shipped." in name}
    assert [folder for folder in mapping.values() if not (REPOSITORY / folder).is_dir()] == []


def test_the_readme_names_only_files_that_exist() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/.-])((?:tools|tests|models|parameter_maps|impactreg)/[\w./-]*\w)", text))
    assert {"tools/demo", "tools/test"} <= named
    assert sorted(name for name in named if not (REPOSITORY / name).exists()) == []


def test_the_readme_uses_only_verbs_that_the_help_names() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    verbs = set(re.findall(r"^(?:\$ )?impactreg ([a-z][\w-]*)", text, flags=re.MULTILINE))
    help_text = run("-m", "impactreg", "--help").stdout
    assert sorted(verb for verb in verbs if verb not in help_text) == []
