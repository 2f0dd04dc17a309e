"""Archives from strangers: what is wrong with them is told before anything is read."""

import stat
import struct
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from impactreg.errors import ModelError
from impactreg.models import archives
from impactreg.models.archives import Limits, check_torchscript, is_safe, members
from impactreg.models.extractor import Extractor, torchscript

WHOLE = {"net/data.pkl": "x", "net/constants.pkl": "x", "net/version": "3", "net/code/__torch__.py": "x"}


def made(path, content, **options):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **options) as archive:
        warnings.simplefilter("ignore", UserWarning)
        for name, text in content:
            archive.writestr(name, text)
    return path


@pytest.fixture
def net(tmp_path):
    def write(extra=(), without=(), **options):
        whole = [(name, text) for name, text in WHOLE.items() if name not in without]
        return made(tmp_path / "net.pt", [*whole, *extra], **options)

    return write


def refused(path):
    with pytest.raises(ModelError) as error:
        check_torchscript(path, "net.pt")
    assert str(error.value).startswith("net.pt: ")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_of_torchscript_is_listed_without_complaint(tmp_path, model_bytes):
    (tmp_path / "a.pt").write_bytes(model_bytes)
    check_torchscript(tmp_path / "a.pt", "a.pt")
    assert len(members(tmp_path / "a.pt", Limits())) > 5


def test_the_least_that_a_file_must_hold_is_enough(net):
    check_torchscript(net(), "net.pt")


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "net/../../x", "net/./x", "net//x", r"net\..\x", "C:/x", "net/C:x", "net/a\nb", "net/\x1b"],
)
def test_names_that_lead_elsewhere_are_refused(net, name):
    assert "has a name that leads elsewhere" in refused(net([(name, "x")]))


def test_names_of_two_members_are_refused(net):
    assert "it has two members 'net/data.pkl'" in refused(net([("net/data.pkl", "other")]))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_are_refused(net, kind):
    link = zipfile.ZipInfo("net/link")
    link.external_attr = (kind | 0o777) << 16
    assert "is a link or a device" in refused(net([(link, "/etc/passwd")]))


@pytest.mark.parametrize("attributes", [0x10, (stat.S_IFDIR | 0o755) << 16])
def test_files_that_claim_to_be_folders_are_refused(net, attributes):
    file = zipfile.ZipInfo("net/code/a.py")
    file.external_attr = attributes
    assert "claims to be a folder" in refused(net([(file, "x")]))


def test_a_zip_bomb_is_refused(net):
    path = net([("net/data/0", bytes(20 << 20))], compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "to 20971520" in refused(path)


def test_a_bomb_of_many_members_is_refused(tmp_path):
    path = made(tmp_path / "a.zip", [(f"{number}", "") for number in range(30)])
    with pytest.raises(ModelError, match="it has 30 members, more than 20"):
        members(path, Limits(members=20))


def test_what_unpacks_to_more_than_is_allowed_is_refused(tmp_path):
    path = made(tmp_path / "a.zip", [(f"{number}", "x" * 100) for number in range(30)])
    with pytest.raises(ModelError, match=r"a\.zip: .* it would unpack to 3000 bytes, more than 2000"):
        members(path, Limits(bytes=2000))


def test_members_on_top_of_each_other_are_refused(net):
    path = net()
    content = bytearray(path.read_bytes())
    # The second entry of the list points to the first member, which is how overlapping bombs are built.
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    struct.pack_into("<I", content, second + 42, 0)
    struct.pack_into("<I", content, second + 20, 50)
    path.write_bytes(content)
    assert "on top of each other" in refused(path) or "is no TorchScript file" in refused(path)


def listed_twice(path, told, seen):
    """A file that tells of the list of members of one file, behind which lies that of another, where zipfile looks."""
    (start, first), (begin, second) = (
        (int.from_bytes(content[-6:-2], "little"), content) for content in (told.read_bytes(), seen.read_bytes())
    )
    assert len(first) - start == len(second) - begin
    entries = bytearray(second[begin:-22])
    place = 0
    while (place := entries.find(b"PK\x01\x02", place)) >= 0:
        offset = struct.unpack_from("<I", entries, place + 42)[0] + start - begin
        struct.pack_into("<I", entries, place + 42, offset)
        place += 46
    path.write_bytes(first[:-22] + second[:begin] + bytes(entries) + first[-22:])
    return path


def test_a_second_list_of_members_is_refused(net, tmp_path):
    told = net([("net/code/__torch__/a.py", "save(x)  ")]).rename(tmp_path / "told.pt")
    path = listed_twice(tmp_path / "two.pt", told, net([("net/code/__torch__/a.py", "harmless")]))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("net/code/__torch__/a.py") == b"harmless"
    assert "its list of members is not where it says" in refused(path)


@pytest.mark.parametrize("place", [8, 40, 48])
def test_a_list_of_members_that_is_told_of_in_another_place_is_refused(tmp_path, model_bytes, place):
    content = bytearray(model_bytes)
    assert content[-98:-94] == b"PK\6\6"
    at = {8: -42 + 8, 40: -98 + 40, 48: -98 + 48}[place]
    content[at] ^= 1
    (tmp_path / "a.pt").write_bytes(content)
    message = refused(tmp_path / "a.pt")
    assert "is not where it says" in message or "is no TorchScript file" in message


def test_what_stands_before_an_archive_or_behind_it_is_refused(tmp_path, model_bytes):
    (tmp_path / "a.pt").write_bytes(b"more" + model_bytes)
    assert "its list of members is not where it says" in refused(tmp_path / "a.pt")


def test_members_that_differ_by_capitals_alone_are_refused(net):
    assert "two of its members are named 'net/data.pkl' but for capital" in refused(net([("net/DATA.pkl", "x")]))


def test_names_that_the_reader_changed_are_refused(net):
    path = net([("net/code/b.py_and_more", "x")])
    path.write_bytes(path.read_bytes().replace(b"b.py_and_more", b"b.py\0and_more"))
    assert "has a name that leads elsewhere" in refused(path)


def test_the_form_of_old_versions_is_refused(net):
    assert "has a form of old versions of PyTorch" in refused(net([("net/MODEL.json", "{}")]))


@pytest.mark.parametrize(("flag", "message"), [(1, "is encrypted"), (64, "is encrypted"), (32, "in an unusual way")])
def test_encrypted_members_are_refused(net, flag, message):
    path = net()
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= flag
    path.write_bytes(content)
    assert message in refused(path)


def test_unusual_packing_is_refused(net):
    assert "is packed in an unusual way" in refused(net(compression=zipfile.ZIP_BZIP2))


@pytest.mark.parametrize("missing", ["data.pkl", "version", "code/__torch__.py"])
def test_a_part_that_is_missing_is_named(net, missing):
    assert f"it has no {missing.partition('/')[0]}" in refused(net(without=[f"net/{missing}"]))


def test_more_than_one_folder_is_refused(net):
    assert "holds 2 folders where TorchScript has one" in refused(net([("other/x", "x")]))


def test_old_kinds_of_files_are_refused(tmp_path):
    torch.save({"weight": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert "is no TorchScript file, or a truncated one" in refused(tmp_path / "old.pt")
    torch.save({"weight": torch.ones(2)}, tmp_path / "new.pt")
    assert "holds weights or a pickled module without code" in refused(tmp_path / "new.pt")


class Writer(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        torch.save(x, "written")
        return [x]


class Reader(nn.Module):
    def forward(self, x: Tensor) -> list[Tensor]:
        return [x + torch.from_file("/etc/passwd", False, 1, dtype=torch.uint8)]


class Waking(nn.Module):
    """Acts as soon as it is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.number = 1

    @torch.jit.export
    def __getstate__(self) -> tuple[int, bool]:
        return self.number, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[int, bool]) -> None:
        self.number = state[0]
        self.training = state[1]
        torch.save([self.number], "written")

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x]


@pytest.mark.parametrize("module", [Writer(), Reader(), Waking()], ids=lambda module: type(module).__name__)
def test_code_that_reaches_files_is_never_loaded(tmp_path, monkeypatch, module):
    monkeypatch.chdir(tmp_path)
    with torchscript():
        torch.jit.script(module).save("net.pt")
    with pytest.raises(ModelError, match=r"net\.pt is not loaded: its code names (save|from_file), by which") as error:
        Extractor.load(Path("net.pt"))
    assert "\n" not in str(error.value)
    assert not Path("written").exists()


@pytest.mark.parametrize(
    "code",
    [
        "ops.aten.save(x, '')",
        "t = torch\nt.save(x, '')",
        "torch . save(x)",
        "(torch. # here\n save)(x)",
        "x.save('')",
        'getattr(torch, "save")(x)',
        r'getattr(torch, "\163ave")(x)',
        r'getattr(torch, "\x73ave")(x)',
        "ops.image.write_file(x)",
        "rpc_sync(x)",
    ],
)
def test_other_spellings_are_refused_too(net, code):
    message = refused(net([("net/code/__torch__/a.py", code)]))
    assert "its code names" in message or "writes names as numbers" in message


def test_code_is_searched_whatever_the_capitals_of_its_name(net):
    # PyTorch looks for a.py and takes a.PY.
    assert "its code names save" in refused(net([("net/code/__torch__/a.PY", "torch.save(x, '')")]))


@pytest.mark.parametrize("code", ["self.saved(x)", "torch.unsave_x(x)", r'getattr(self, "0")(x, "a\n")', "é"])
def test_usual_code_is_not(net, code):
    check_torchscript(net([("net/code/__torch__/a.py", code)]), "net.pt")


def test_too_much_code_is_refused(net, monkeypatch):
    monkeypatch.setattr(archives, "MOST_CODE", 100)
    assert "more than 100 bytes of code" in refused(net([("net/code/a.py", "x" * 200)]))


def test_damaged_code_is_refused(net):
    path = net()
    content = bytearray(path.read_bytes())
    place = content.index(b"net/code/__torch__.py") + len("net/code/__torch__.py")
    content[place] ^= 1
    path.write_bytes(content)
    assert "its code is damaged" in refused(path)


def test_an_extractor_is_not_loaded_from_what_was_refused(net):
    with pytest.raises(ModelError, match="has a name that leads elsewhere"):
        Extractor.load(net([("../x", "x")]))


@pytest.mark.parametrize("name", ["net/data/0", "net/.data/serialization_id", "net v1.2/x", "é/ü", "net 1:2/x", "net/"])
def test_usual_names_are_safe(name):
    assert is_safe(name)


@given(st.text(max_size=30))
def test_a_safe_name_stays_in_its_folder(name):
    import posixpath

    if is_safe(name):
        assert posixpath.normpath(posixpath.join("/folder", name)).startswith("/folder/")


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("bytes") / "a.pt"
    path.write_bytes(b"PK\x05\x06" + content)
    refused(path)
