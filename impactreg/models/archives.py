"""Archives from strangers are listed and checked before anybody reads what is in them."""

import os
import re
import stat
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import final

from impactreg.errors import ModelError


@final
@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most: `members`, `bytes` unpacked, and `ratio` of unpacked to packed bytes.

    Members of fewer than `small` bytes may be packed as tightly as they like.
    """

    members: int = 20_000
    bytes: int = 8 << 30
    ratio: float = 300.0
    small: int = 1 << 20


TORCHSCRIPT = Limits()
ADVICE = "a TorchScript file is needed, made with torch.jit.script or impactreg models export"


MOST_CODE = 32 << 20
"""More bytes of code than any network has."""

ENCRYPTED, PATCHED, STRONGLY_ENCRYPTED = 1 << 0, 1 << 5, 1 << 6
"""Flags of a member."""
FOLDER = 1 << 4
"""That of a folder among a member's attributes."""

ENDING = 56 + 20 + 22
"""Bytes of the three records at the end of a zip file, of which a small one has the last alone."""

# The ways of TorchScript (aten::save, aten::from_file), torchvision and torch.distributed to files and other machines.
# Wherever such a name stands, for the language has more ways to call a function than a search for calls would know.
OUTSIDE = re.compile(rb"\b(save|from_file|read_file|write_file|rpc_sync|rpc_async|rpc_remote)\b")
# getattr takes names as text, in which any letter may stand as its number.
HIDDEN = re.compile(rb"\\[0-7xuUN]")


def check_torchscript(path: Path, name: str) -> None:
    """Raises `ModelError` where a file is no TorchScript archive, or one that is not safe to hand to the loader.

    The list of members is checked, and that the code, some of which would run on loading, names none of the
    operators that read and write files. Nothing is unpacked or unpickled. `name` is the model's name in messages.
    """
    try:
        listed = members(path, TORCHSCRIPT, name)
    except zipfile.BadZipFile:
        raise ModelError(f"{name}: {path} is no TorchScript file, or a truncated one; {ADVICE}") from None
    top = {PurePosixPath(member.filename).parts[0] for member in listed}
    inside = {member.filename.partition("/")[2] for member in listed}
    if "constants.pkl" not in inside:
        what = "weights or a pickled module without code" if "data.pkl" in inside else "another kind of archive"
        raise ModelError(f"{name}: {path} holds {what}; {ADVICE}")
    if len(top) > 1:
        raise ModelError(f"{name}: {path} holds {len(top)} folders where TorchScript has one; {ADVICE}")
    if "model.json" in {part.lower() for part in inside}:
        raise ModelError(f"{name}: {path} has a form of old versions of PyTorch; {ADVICE}")
    missing = [part for part in ("data.pkl", "version") if part not in inside]
    if not any(part.startswith("code/") and part.endswith(".py") for part in inside):
        missing.append("code")
    if missing:
        raise ModelError(f"{name}: {path} is no whole TorchScript file: it has no {' and no '.join(missing)}; {ADVICE}")
    if wrong := _ambiguous(path, listed) or _wrong_code(path, [one for one in listed if _is_code(one.filename)]):
        raise ModelError(f"{name}: {path} is not loaded: {wrong}")


def members(path: Path, limits: Limits, name: str = "") -> tuple[zipfile.ZipInfo, ...]:
    """The members of a zip file, folders included, once nothing is wrong with any of them.

    Raises `ModelError` for paths that lead elsewhere, links, encrypted or repeated members, members that lie on top
    of each other and more than `limits` allow; and `zipfile.BadZipFile` for what is no zip file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            listed = tuple(archive.infolist())
    except (OSError, ValueError, NotImplementedError, UnicodeDecodeError) as error:
        raise zipfile.BadZipFile(str(error)) from None
    wrong = _wrong(listed, limits)
    if wrong:
        raise ModelError(f"{name or path.name}: {path} is not opened: {wrong}")
    return listed


def listed_where_told(path: Path) -> bool:
    """Whether the list of members lies where the end of a zip file tells, and not only where zipfile looks for it.

    PyTorch goes by what is told: a file in which these are two places shows it another archive than it shows zipfile.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - ENDING))
        tail = file.read().rjust(ENDING, b"\0")
    locator, record, end = tail[-42:-22], tail[:56], tail[-22:]
    length, start = struct.unpack("<LL", end[12:20])
    behind = size - 22
    if locator.startswith(b"PK\6\7"):
        behind = size - ENDING
        length, start = struct.unpack("<QQ", record[40:56])
        if not record.startswith(b"PK\6\6") or struct.unpack("<Q", locator[8:16]) != (behind,):
            return False
    return end.startswith(b"PK\5\6") and start + length == behind


def is_safe(member: str) -> bool:
    """Whether a name in an archive stays below the folder that it is unpacked to, on any system."""
    names = member.removesuffix("/").split("/")
    odd = any(part in ("", ".", "..") or re.match("[A-Za-z]:", part) for part in names)
    return not odd and "\\" not in member and member.isprintable()


def _ambiguous(path: Path, listed: Sequence[zipfile.ZipInfo]) -> str:
    """What PyTorch would read in another way than zipfile does: it goes by other places, and takes a for A."""
    twice = [name for name, count in Counter(one.filename.lower() for one in listed).items() if count > 1]
    if twice:
        return f"two of its members are named {twice[0][:100]!r} but for capital letters"
    return "" if listed_where_told(path) else "its list of members is not where it says"


def _is_code(name: str) -> bool:
    return name.lower().endswith(".py")


def _wrong_code(path: Path, sources: Sequence[zipfile.ZipInfo]) -> str:
    if sum(member.file_size for member in sources) > MOST_CODE:
        return f"it has more than {MOST_CODE} bytes of code"
    try:
        with zipfile.ZipFile(path) as archive:
            for member in sources:
                code = archive.read(member)
                if found := OUTSIDE.search(code):
                    return f"its code names {found[0].decode()}, by which a model can reach files or other machines"
                if b"getattr" in code and HIDDEN.search(code):
                    return f"its code {member.filename[:100]} writes names as numbers"
    # zipfile lets through what its decompressors raise.
    except Exception:
        return "its code is damaged"
    return ""


def _wrong(listed: Sequence[zipfile.ZipInfo], limits: Limits) -> str:
    """What is wrong with a list of members; nothing where all is well."""
    if len(listed) > limits.members:
        return f"it has {len(listed)} members, more than {limits.members}"
    for member in listed:
        if wrong := _wrong_member(member, limits):
            return f"its member {member.filename[:100]!r} {wrong}"
    unpacked = sum(member.file_size for member in listed)
    if unpacked > limits.bytes:
        return f"it would unpack to {unpacked} bytes, more than {limits.bytes}"
    twice = [name for name, count in Counter(member.filename for member in listed).items() if count > 1]
    if twice:
        return f"it has two members {twice[0][:100]!r}"
    return "its members lie on top of each other" if _overlap(listed) else ""


def _wrong_member(member: zipfile.ZipInfo, limits: Limits) -> str:
    kind = stat.S_IFMT(member.external_attr >> 16)
    # zipfile gives some members another name than they have in the file.
    if not is_safe(member.filename) or member.orig_filename != member.filename:
        return "has a name that leads elsewhere"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or a device"
    # PyTorch does not read such a file, and takes what happens to be in the memory for its content.
    if (kind == stat.S_IFDIR or member.external_attr & FOLDER) and not member.is_dir():
        return "is a file that claims to be a folder"
    if member.flag_bits & (ENCRYPTED | STRONGLY_ENCRYPTED):
        return "is encrypted"
    if member.flag_bits & PATCHED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in an unusual way"
    if member.file_size > max(limits.small, limits.ratio * member.compress_size):
        return f"unpacks {member.compress_size} bytes to {member.file_size}"
    return ""


def _overlap(listed: Iterable[zipfile.ZipInfo]) -> bool:
    ordered = sorted(listed, key=lambda member: member.header_offset)
    ends = ((first.header_offset + first.compress_size, second.header_offset) for first, second in pairwise(ordered))
    return any(end > start for end, start in ends)
