"""Model cards: what is known of each family of models, from TOML files; a field that nobody could verify is absent."""

import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

import impactreg
from impactreg.errors import ModelError

MOST_BYTES = 1_000_000
"""A TOML file larger than this is no card."""

Count = Annotated[int, Field(gt=0)]
PerAxis = Count | tuple[Count, ...]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


class _Card(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardLayer(_Card):
    """One layer of feature maps; lists of numbers stand along x, y and z of the model's own axes.

    `stride` is in voxels of the input. `field_of_view` is how many voxels along each axis the convolutions of one
    feature see: the least patch for `(ImpactMode "Jacobian")`.
    """

    channels: Count
    stride: PerAxis | None = None
    field_of_view: PerAxis | None = None
    differentiable: bool = True


class CardFile(_Card):
    """One model file: its path as parameter files write it, what it takes and what it makes.

    In `older_names`, `{n}` stands for 1 to the number of layers. `patch_size` is what published parameter files use
    where a model has no field of view of its own (transformers). `weights` is where the weights come from.
    """

    path: str = Field(pattern=r"^\w[\w.-]*(/\w[\w.-]*)+\.pt$")
    title: str | None = None
    dimension: Literal[2, 3]
    input_channels: Count = 1
    layers: tuple[CardLayer, ...] = Field(min_length=1)
    older_names: tuple[str, ...] = ()
    patch_size: PerAxis | None = None
    voxel_size: float | None = Field(default=None, gt=0, description="millimetres along each axis in training")
    modality: str | None = None
    normalisation: str | None = None
    orientation: str | None = None
    weights: str | None = None
    sha256: Sha256 | None = None
    size: Count | None = None
    revision: str | None = Field(default=None, pattern="^[0-9a-f]{40}$")

    @property
    def names(self) -> tuple[str, ...]:
        """The path and all older names, written out."""
        counts = range(1, len(self.layers) + 1)
        older = [name.format(n=n) for name in self.older_names for n in counts]
        return (self.path, *dict.fromkeys(older))

    @property
    def field_of_view(self) -> PerAxis | None:
        """That of the deepest layer of which it is known."""
        return next((layer.field_of_view for layer in reversed(self.layers) if layer.field_of_view), None)


class ModelCard(_Card):
    """What is known of a family of models: where it comes from, its licence, its files, and who said so.

    Files of one architecture share an entry of `networks`: a file with `network = "NAME"` has all its fields, and
    its own `layers` come behind those of the network.
    """

    family: str
    title: str
    description: str
    citation: str
    licence: str | None = None
    source: Literal["built-in", "hub", "file"]
    repository: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$", description="on the Hugging Face hub")
    evidence: tuple[str, ...] = ()
    files: tuple[CardFile, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _with_networks(cls, card: Any) -> Any:
        if not isinstance(card, Mapping) or not isinstance(card.get("files"), list):
            return card
        rest = {key: value for key, value in card.items() if key != "networks"}
        return rest | {"files": [_completed(file, card.get("networks")) for file in card["files"]]}

    @model_validator(mode="after")
    def _has_a_source(self) -> "ModelCard":
        if self.source == "hub" and self.repository is None:
            raise ValueError("source 'hub' needs a repository")
        return self

    @classmethod
    def read(cls, path: Path) -> "ModelCard":
        """The card of a TOML file; raises `ModelError` with the file, the key and what is wrong with it."""
        try:
            return cls.model_validate(tomllib.loads(_text(path)))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
            raise ModelError(f"{path}: the model card cannot be read: {error}") from None
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"])) or "card"
            written = f" {first['input']!r}" if first["loc"] else ""
            raise ModelError(f"{path}: ({key}{written}): {first['msg']}") from None


def cards() -> tuple[ModelCard, ...]:
    """The cards that come with the package, by file name."""
    package = Path(impactreg.__file__).parent
    folders = (package / "shipped" / "models", package.parent / "models")
    folder = next((folder for folder in folders if folder.is_dir()), None)
    return _read(folder) if folder else ()


def known(written: str) -> tuple[ModelCard, CardFile] | None:
    """The card and file that a written model path or name means: by its last two parts, with or without `.pt`."""
    name = "/".join(parts(written)[-2:])
    return _by_name().get(name.removesuffix(".pt").lower())


def names() -> Iterator[str]:
    """All paths and older names of all cards."""
    for card in cards():
        for file in card.files:
            yield from file.names


def parts(written: str) -> tuple[str, ...]:
    """The parts of a path without its root and steps upwards, which lead nowhere in another folder."""
    found = PurePosixPath(written.strip().replace("\\", "/")).parts
    return tuple(part for part in found if part not in ("/", "//", "..", "~"))


@cache
def _read(folder: Path) -> tuple[ModelCard, ...]:
    return tuple(map(ModelCard.read, sorted(folder.glob("*.toml"))))


@cache
def _by_name() -> dict[str, tuple[ModelCard, CardFile]]:
    pairs = [(card, file) for card in cards() for file in card.files]
    return {name.removesuffix(".pt").lower(): (card, file) for card, file in pairs for name in file.names}


def _completed(file: Any, networks: Any) -> Any:
    if not isinstance(file, Mapping) or "network" not in file:
        return file
    name = file["network"]
    if not isinstance(networks, Mapping) or not isinstance(networks.get(name), Mapping):
        raise ValueError(f"there is no network {name!r} in the card")
    network = networks[name]
    own = {key: value for key, value in file.items() if key != "network"}
    return {**network, **own, "layers": [*network.get("layers", []), *own.get("layers", [])]}


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise ModelError(f"{path}: the model card cannot be read: it has more than {MOST_BYTES} bytes")
    return content.decode("utf-8")
