"""Packages: made, checked, installed with a record, and hostile archives that leave nothing behind."""

import json
import stat
import warnings
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from impactreg.errors import ModelError, OutputError
from impactreg.models.names import ReleaseTag
from impactreg.models.package_checks import check
from impactreg.models.packages import RECORD, Provenance, install, pack, packages_folder
from impactreg.models.topology import Topology

TOPOLOGY = Topology(1, 2, (2, 3), ((3, 3, 3),) * 2, ((1, 1, 1), (2, 2, 2)), (1, 1), (1,))
TAG = ReleaseTag.parse("r20240915")
TRAINER = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def trained(training, tmp_path: Path) -> Path:
    """The folder of a training, with what should not be in a package."""
    folder: Path = training.write(tmp_path / "results", TOPOLOGY)
    (folder / "fold_0" / "checkpoint_best.pth").write_bytes(b"best")
    (folder / "fold_0" / "validation").mkdir()
    (folder / "fold_0" / "validation" / "case.nii.gz").write_bytes(b"image")
    (folder / "run.py").write_text("print('code')")
    return folder


@pytest.fixture
def package(trained: Path, tmp_path: Path) -> Path:
    return pack(trained, tmp_path / "made", name="model_seg_t2_unet3d", release=TAG).path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("IMPACTREG_CACHE", str(tmp_path / "cache"))
    return packages_folder()


def rewritten(package: Path, change: Callable[[zipfile.ZipFile], None], *, without: str = "") -> Path:
    """A copy of a package, of the same name in another folder, with something else in it."""
    path = package.parent / "changed" / package.name
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(path, "w") as new:
        for one in old.infolist():
            if not without or without not in one.filename:
                new.writestr(one, old.read(one))
        with warnings.catch_warnings(action="ignore"):
            change(new)
    return path


def test_a_package_holds_what_belongs_into_it_and_no_more(package: Path) -> None:
    assert package.name == "model_seg_t2_unet3d-r20240915.zip"
    with zipfile.ZipFile(package) as archive:
        assert archive.testzip() is None
        names = archive.namelist()
    inside = {"dataset.json", "dataset_fingerprint.json", "plans.json", "fold_0/checkpoint_final.pth"}
    inside |= {"fold_0/debug.json", "fold_0/training_log_2024_9_3_14_06_03.txt"}
    assert set(names) == {f"{TRAINER}/{name}" for name in inside}
    assert check(package) == ()


def test_the_same_training_makes_the_same_package(trained: Path, tmp_path: Path, package: Path) -> None:
    again = pack(trained.parent, tmp_path / "again", name="model_seg_t2_unet3d", release=TAG)
    assert again.path.read_bytes() == package.read_bytes()
    assert again.findings == ()


def test_an_orientation_is_written_into_the_package(training, tmp_path: Path) -> None:
    folder = training.write(tmp_path / "results", TOPOLOGY, dataset={"image_orientation": None})
    made = pack(folder, tmp_path, name="model_sc", release=TAG, orientation="lpi")
    with zipfile.ZipFile(made.path) as archive:
        assert json.loads(archive.read(f"{TRAINER}/dataset.json"))["image_orientation"] == "LPI"
    with pytest.raises(ModelError, match="three letters"):
        pack(folder, tmp_path, name="model_sc", release=TAG, orientation="up")


def test_only_whole_models_are_packed(training, trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="letters, digits"):
        pack(trained, tmp_path, name="../model", release=TAG)
    with pytest.raises(ModelError, match="no folder named <Trainer>__<Plans>__<configuration>"):
        pack(tmp_path / "results" / TRAINER / "fold_0", tmp_path, name="model_sc", release=TAG)
    training.write(tmp_path / "results" / "more", Topology(1, 2, (2, 3), ((3, 3),) * 2, ((1, 1), (2, 2)), (1, 1), (1,)))
    with pytest.raises(ModelError, match="there are several models"):
        pack(tmp_path / "results", tmp_path, name="model_sc", release=TAG)
    (trained / "fold_0" / "checkpoint_final.pth").unlink()
    with pytest.raises(ModelError, match="train to the end first"):
        pack(trained, tmp_path, name="model_sc", release=TAG)
    with pytest.raises(ModelError, match="no such file or folder"):
        pack(tmp_path / "nowhere", tmp_path, name="model_sc", release=TAG)
    assert not list(tmp_path.glob("*.zip"))


def test_a_package_is_installed_with_its_record(package: Path, cache: Path) -> None:
    first = install(package)
    assert first.new
    assert first.path == cache / "model_seg_t2_unet3d-r20240915"
    record = Provenance.read(first.path / RECORD)
    assert record == first.provenance
    assert (record.name, record.release, record.source) == ("model_seg_t2_unet3d", "r20240915", str(package))
    assert (record.size, record.folder, record.left_out) == (package.stat().st_size, TRAINER, ())
    assert len(record.sha256) == 64
    assert record.date.endswith("+00:00")
    assert (first.path / TRAINER / "fold_0" / "checkpoint_final.pth").is_file()
    assert not install(package).new
    (first.path / TRAINER / "fold_0" / "checkpoint_final.pth").unlink()
    assert install(package).new
    assert [path.name for path in cache.iterdir()] == ["model_seg_t2_unet3d-r20240915"]


def test_code_is_left_out_and_told(package: Path, cache: Path) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        archive.writestr(f"{TRAINER}/trainer_class.py", "raise SystemExit('run')\ndef get_trainer_class(): ...\n")
        archive.writestr(f"{TRAINER}/weights.pkl", b"pickle")
        archive.writestr("README.md", "text")
        archive.writestr("__MACOSX/._README.md", "text")

    path = rewritten(package, add)
    found = install(path)
    assert found.provenance.left_out == (f"{TRAINER}/trainer_class.py", f"{TRAINER}/weights.pkl")
    assert not list(found.path.rglob("*.py"))
    assert not list(found.path.rglob("*.pkl"))
    assert (found.path / "README.md").read_text() == "text"
    findings = check(path)
    assert any("trainer_class.py: nnUNetTrainer is nnU-Net's own trainer" in one for one in findings)
    assert any("weights.pkl: does not belong into a package, whose code nobody can trust" in one for one in findings)


def test_a_package_within_another_folder_is_found(package: Path, tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "Dataset820_gm-seg.zip"
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(path, "w") as new:
        for one in old.infolist():
            new.writestr(f"Dataset820_gm-seg/{one.filename}", old.read(one))
    found = install(path)
    assert found.path == cache / "Dataset820_gm-seg"
    assert found.provenance.release == ""
    assert (found.path / TRAINER / "plans.json").is_file()
    assert any("lies in another one" in one for one in check(path))


def test_another_checksum_is_not_installed(package: Path, cache: Path) -> None:
    with pytest.raises(ModelError, match=r"is [0-9a-f]{64}, not 00; it is not installed"):
        install(package, sha256="00")
    assert not cache.exists()


@pytest.fixture
def server(package: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(package.parent))) as running:
        thread = Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_package_is_installed_from_an_address(package: Path, cache: Path, server: str) -> None:
    found = install(f"{server}/{package.name}")
    assert found.provenance.source == f"{server}/{package.name}"
    assert found.path == cache / package.stem
    with pytest.raises(ModelError, match="cannot be downloaded"):
        install(f"{server}/nothing.zip")
    for wrong in ("file:///etc/passwd", f"{server}/{package.name}?x=1", "ftp://host/a.zip"):
        with pytest.raises(ModelError, match="an address is http"):
            install(wrong)


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(name)
    made.external_attr = mode << 16
    made.compress_type = zipfile.ZIP_DEFLATED
    return made


HOSTILE = {
    "climbing": (lambda z: z.writestr("../../evil.txt", "x"), "leads elsewhere"),
    "climbing within": (lambda z: z.writestr(f"{TRAINER}/../../evil.txt", "x"), "leads elsewhere"),
    "absolute": (lambda z: z.writestr("/tmp/evil.txt", "x"), "leads elsewhere"),
    "drive": (lambda z: z.writestr("C:/evil.txt", "x"), "leads elsewhere"),
    "backslash": (lambda z: z.writestr("..\\evil.txt", "x"), "leads elsewhere"),
    "link": (lambda z: z.writestr(member(f"{TRAINER}/fold_1", stat.S_IFLNK | 0o777), "/etc"), "is a link"),
    "device": (lambda z: z.writestr(member("tty", stat.S_IFCHR | 0o666), ""), "is a link or a device"),
    "bomb": (lambda z: z.writestr(member(f"{TRAINER}/debug.json"), bytes(1 << 25)), "unpacks .* bytes to 33554432"),
    "twice": (lambda z: z.writestr(f"{TRAINER}/plans.json", "{}"), "has two members"),
    "twice but for capitals": (lambda z: z.writestr("readme.md", "") or z.writestr("README.md", ""), "are one file"),
    "file as folder": (lambda z: z.writestr(f"{TRAINER}/dataset.json/fold_0/debug.json", ""), None),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line_and_leaves_nothing(package: Path, cache: Path, kind: str) -> None:
    change, said = HOSTILE[kind]
    path = rewritten(package, change)
    before = {file for file in path.parents[2].rglob("*") if cache not in file.parents}
    if said is None:
        assert not (install(path).path / TRAINER / "dataset.json").is_dir()
        return
    with pytest.raises(ModelError, match=said) as caught:
        install(path)
    assert "\n" not in str(caught.value)
    assert path.name in str(caught.value)
    assert not cache.exists() or not list(cache.iterdir())
    after = {file for file in path.parents[2].rglob("*") if cache not in file.parents}
    assert after - {cache, cache.parent} == before
    assert not Path("/tmp/evil.txt").exists()
    if "capitals" not in kind:
        assert any(said.split(" .*")[0] in finding for finding in check(path))


def test_a_changed_byte_is_noticed_and_nothing_is_left(package: Path, cache: Path) -> None:
    content = bytearray(package.read_bytes())
    with zipfile.ZipFile(package) as archive:
        (weights,) = [one for one in archive.infolist() if one.filename.endswith(".pth")]
    content[weights.header_offset + 300] ^= 1
    package.write_bytes(content)
    with pytest.raises(ModelError, match=r"checkpoint_final\.pth cannot be unpacked: Bad CRC-32"):
        install(package)
    assert not list(cache.iterdir())


def test_files_that_are_no_packages_are_refused(package: Path, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "text.zip").write_text("no zip")
    (tmp_path / "half.zip").write_bytes(package.read_bytes()[:2000])
    for name in ("text.zip", "half.zip"):
        with pytest.raises(ModelError, match=f"{name}: this is no zip file"):
            install(tmp_path / name)
    with pytest.raises(ModelError, match="a zip file is installed, not a folder"):
        install(tmp_path)
    with pytest.raises(ModelError, match="this is no whole model"):
        install(rewritten(package, lambda _: None, without="checkpoint_final"))
    assert not cache.exists()


def test_a_folder_that_cannot_be_written_is_told(package: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        install(package, folder=tmp_path / "file")


def test_what_is_no_package_is_never_replaced(package: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "mine.txt").write_text("text")
    with pytest.raises(OutputError, match="no installed package, and is not replaced"):
        install(package, folder=tmp_path, name="letters")
    assert (tmp_path / "letters" / "mine.txt").read_text() == "text"


def test_a_package_that_fails_leaves_the_older_one_in_place(package: Path, cache: Path) -> None:
    first = install(package)
    broken = rewritten(package, lambda z: z.writestr("a.txt", ""))
    content = broken.read_bytes()
    with zipfile.ZipFile(broken) as archive:
        (weights,) = [one for one in archive.infolist() if one.filename.endswith(".pth")]
    at = weights.header_offset + 300
    broken.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    with pytest.raises(ModelError, match="Bad CRC"):
        install(broken)
    assert Provenance.read(first.path / RECORD) == first.provenance
    assert [path.name for path in cache.iterdir()] == [first.path.name]


@pytest.mark.parametrize(
    ("change", "without", "said"),
    [
        (None, "dataset_fingerprint", "dataset_fingerprint.json is missing"),
        (None, "plans.json", "plans.json is missing"),
        (None, "checkpoint_final", "there is no fold_<N>/checkpoint_final.pth"),
        (("dataset.json", '{"channel_names": {"0": "a"}, "labels": {"background": 0}}'), "/dataset.json", "RPI"),
        (("dataset.json", "[]"), "/dataset.json", "an object is needed"),
        (("plans.json", "{}"), "plans.json", "configurations"),
        (("fold_0/checkpoint_best.pth", ""), "", "of which only checkpoint_final.pth is used; leave it out"),
        (("trainer_class.py", "def f("), "", "this is no Python"),
        (("trainer_class.py", "-" * 200_000 + "1"), "", "this is no Python"),
        (("trainer_class.py", "x = 1"), "", "no function get_trainer_class"),
        (("run.py", ""), "", "whose code nobody can trust"),
    ],
)
def test_what_is_wrong_with_a_package_is_told(
    package: Path, change: tuple[str, str] | None, without: str, said: str
) -> None:
    def add(archive: zipfile.ZipFile) -> None:
        if change:
            archive.writestr(f"{TRAINER}/{change[0]}", change[1])

    findings = check(rewritten(package, add, without=without))
    assert any(said in finding for finding in findings)
    assert not any("\n" in finding for finding in findings)


def test_names_of_packages_are_checked(package: Path, trained: Path) -> None:
    assert any("end it with -rYYYYMMDD.zip" in one for one in check(package.rename(package.with_name("model_sc.zip"))))
    assert not any("rYYYYMMDD" in one for one in check(trained))
    other = trained.rename(trained.with_name("MyTrainer__nnUNetPlans__3d_fullres"))
    assert any("a trainer is named nnUNetTrainer" in one for one in check(other))
    assert any("checkpoint_best" in one for one in check(other))
