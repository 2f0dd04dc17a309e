"""MetaImage (.mha, .mhd) and NRRD (.nrrd) files, written with every pixel type and in full precision."""

import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.pixels import Array, cast
from impactreg.images.storage import slabs
from impactreg.images.whole import whole_file

_META_TYPES = {
    "int8": "MET_CHAR",
    "uint8": "MET_UCHAR",
    "int16": "MET_SHORT",
    "uint16": "MET_USHORT",
    "int32": "MET_INT",
    "uint32": "MET_UINT",
    "int64": "MET_LONG_LONG",
    "uint64": "MET_ULONG_LONG",
    "float32": "MET_FLOAT",
    "float64": "MET_DOUBLE",
}


def write_metaimage(image: Image, path: Path, pixel_type: "np.dtype[np.generic]", *, compress: bool) -> None:
    """Writes .mha, or .mhd with its voxels beside it in a .raw (compressed: .zraw) file; whole or not at all."""
    # The header tells the length of compressed voxels, so these are held in memory; others are written slab by slab.
    voxels = [zlib.compress(b"".join(_pieces(image, pixel_type)), 2)] if compress else _pieces(image, pixel_type)
    length = len(voxels[0]) if isinstance(voxels, list) else None
    if path.suffix.lower() == ".mha":
        header = _meta_header(image, pixel_type, "LOCAL", length)
        with whole_file(path) as draft:
            _write(draft, header, voxels)
        return
    beside = path.with_suffix(".zraw" if compress else ".raw")
    header = _meta_header(image, pixel_type, beside.name, length)
    with whole_file(path) as draft:
        draft.write_bytes(header)
        with whole_file(beside) as raw:
            _write(raw, b"", voxels)


def write_nrrd(image: Image, path: Path, pixel_type: "np.dtype[np.generic]", *, compress: bool) -> None:
    """Writes .nrrd with attached voxels; whole or not at all."""
    header = _nrrd_header(image.grid, image.channels, pixel_type, "gzip" if compress else "raw")
    pieces = _pieces(image, pixel_type)
    with whole_file(path) as draft:
        _write(draft, header, _gzipped(pieces) if compress else pieces)


def _write(path: Path, header: bytes, voxels: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.write(header)
        file.writelines(voxels)


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(2, wbits=zlib.MAX_WBITS | 16)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _pieces(image: Image, pixel_type: "np.dtype[np.generic]") -> Iterator[bytes]:
    """The voxels in their order in a file, channels first: an image may be larger than memory."""
    data = image.data.detach()
    for part in slabs(data.shape[1], data[:, 0].numel() * pixel_type.itemsize):
        values: Array = data[:, part].cpu().movedim(0, -1).contiguous().numpy()
        yield cast(values, pixel_type).astype(pixel_type.newbyteorder("<"), copy=False).tobytes()


def _meta_header(
    image: Image, pixel_type: "np.dtype[np.generic]", data_file: str, compressed_size: int | None
) -> bytes:
    grid = image.grid
    lines = {
        "ObjectType": "Image",
        "NDims": str(grid.dimension),
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": "False",
        "CompressedData": str(compressed_size is not None),
        **({} if compressed_size is None else {"CompressedDataSize": str(compressed_size)}),
        "TransformMatrix": _numbers(np.array(grid.direction).T.ravel()),
        "Offset": _numbers(grid.origin),
        "CenterOfRotation": _numbers([0.0] * grid.dimension),
        "ElementSpacing": _numbers(grid.spacing),
        "DimSize": " ".join(map(str, grid.size)),
        **({} if image.channels == 1 else {"ElementNumberOfChannels": str(image.channels)}),
        "ElementType": _META_TYPES[pixel_type.name],
        "ElementDataFile": data_file,
    }
    return "".join(f"{key} = {value}\n" for key, value in lines.items()).encode()


def _nrrd_header(grid: Grid, channels: int, pixel_type: "np.dtype[np.generic]", encoding: str) -> bytes:
    vector = channels > 1
    steps = [f"({','.join(repr(float(v)) for v in column)})" for column in grid.matrix.T]
    lines = {
        "type": {"float32": "float", "float64": "double"}.get(pixel_type.name, pixel_type.name),
        "dimension": str(grid.dimension + vector),
        **({"space": "left-posterior-superior"} if grid.dimension == 3 else {"space dimension": "2"}),
        "sizes": " ".join(map(str, ([channels] if vector else []) + list(grid.size))),
        "space directions": " ".join((["none"] if vector else []) + steps),
        "kinds": " ".join((["vector"] if vector else []) + ["domain"] * grid.dimension),
        "endian": "little",
        "encoding": encoding,
        "space origin": f"({','.join(repr(v) for v in grid.origin)})",
    }
    return ("NRRD0004\n" + "".join(f"{key}: {value}\n" for key, value in lines.items()) + "\n").encode()


def _numbers(values: "Array | tuple[float, ...] | list[float]") -> str:
    return " ".join(repr(float(v)) for v in values)
