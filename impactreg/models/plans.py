"""What `plans.json` and `dataset.json` of nnU-Net say of a network: its shape, its grid, its normalisation."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from impactreg.errors import ModelError
from impactreg.models.orientation import checked_letters
from impactreg.models.plan_architectures import architecture_of, topology_of
from impactreg.models.topology import Topology

Scheme = Literal[
    "CTNormalization", "ZScoreNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"
]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Axis = Annotated[int, Field(ge=0, le=2)]
Voxels = Annotated[int, Field(ge=1, le=1 << 16)]

# Far deeper than plans inherit; a longer chain is a circle.
LONGEST_CHAIN = 20


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ChannelIntensities(_Read):
    """Statistics of a channel's foreground in the training images, in their units."""

    mean: Finite
    std: Finite
    percentile_00_5: Finite
    percentile_99_5: Finite


@dataclass(frozen=True)
class Normalisation:
    """What is done to a channel: nnU-Net's scheme, whether only inside what is not 0, and the statistics for CT."""

    scheme: Scheme
    inside_mask: bool = False
    intensities: ChannelIntensities | None = None


@dataclass(frozen=True)
class Plan:
    """One configuration of a plans file.

    `spacing` (mm) and `patch_size` (voxels) lie along the axes that the network sees, which are the image's axes
    z, y, x taken in the order `transpose`; a network of two dimensions sees the last two of them. `orientation` is
    where the axes x, y, z of the training images come from, such as RPI; None where nobody said it. `slice_spacing`
    is the distance of the slices that a network of two dimensions was trained on, as far as it is known.
    """

    configuration: str
    topology: Topology
    spacing: tuple[float, ...]
    patch_size: tuple[int, ...]
    transpose: tuple[int, int, int]
    normalisations: tuple[Normalisation, ...]
    orientation: str | None
    outputs: tuple[str, ...]
    slice_spacing: float | None = None

    @property
    def image_axes(self) -> tuple[int, ...]:
        """For each axis of the network the axis of an image [z, y, x] that it is."""
        return self.transpose[3 - self.topology.dimension :]

    def voxel_size(self) -> tuple[float, ...]:
        """Voxel size (mm) along x, y, z, or along the two axes of a slice; `ImpactVoxelSize`."""
        return self._by_image(self.spacing)

    def patch(self) -> tuple[int, ...]:
        """Patch size (voxels) along x, y, z, or along the two axes of a slice; `ImpactPatchSize`."""
        return self._by_image(self.patch_size)

    def _by_image(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        pairs = sorted(zip(self.image_axes, values, strict=True), reverse=True)
        return tuple(value for _, value in pairs)


def read_plan(plans: bytes, dataset: bytes, configuration: str, where: str, orientation: str | None = None) -> Plan:
    """The plan of a configuration, of the contents of both files; `where` is the folder in messages.

    Plans before nnU-Net 2.4 and after are read, and `inherits_from` is followed. `orientation` is used instead of
    `image_orientation`. Raises `ModelError` for what is missing, makes no sense, or is no U-Net of nnU-Net.
    """
    plans_file = f"{where}/plans.json"
    known = _validated(_Plans, read_json(plans, plans_file), plans_file)
    data = _validated(_Dataset, read_json(dataset, f"{where}/dataset.json"), f"{where}/dataset.json")
    place = f"{plans_file}: {configuration}"
    raw = _inherited(known.configurations, configuration, plans_file)
    found = _validated(_Configuration, raw, place)
    if found.previous_stage is not None:
        raise ModelError(
            f"{place}: a network of a cascade needs the segmentation of {found.previous_stage} beside the image; "
            "take a configuration that stands alone, such as 3d_lowres or 3d_fullres"
        )
    try:
        topology = topology_of(architecture_of(raw, len(found.patch_size)), data.channels, data.outputs)
    except ModelError as error:
        raise ModelError(f"{place}: {error}") from None
    _check_lengths(found, topology, known, place)
    return Plan(
        configuration,
        topology,
        found.spacing,
        found.patch_size,
        known.transpose_forward,
        _normalisations(found, known, data.channels, place),
        _orientation(orientation or data.image_orientation, f"{where}/dataset.json"),
        data.output_names,
        known.slice_spacing if topology.dimension == 2 else None,
    )


def read_json(content: bytes, where: str) -> dict[str, Any]:
    """The object that a JSON file holds; raises `ModelError` where it holds none."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where}: this is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise ModelError(f"{where}: an object is needed, {{...}}, not a {type(found).__name__}")
    return found


class _Configuration(_Read):
    spacing: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=3)]
    patch_size: Annotated[tuple[Voxels, ...], Field(min_length=2, max_length=3)]
    normalization_schemes: tuple[Scheme, ...]
    use_mask_for_norm: tuple[bool, ...] | dict[str, bool] = ()
    previous_stage: str | None = None


class _Plans(_Read):
    configurations: dict[str, dict[str, Any]]
    transpose_forward: tuple[Axis, Axis, Axis] = (0, 1, 2)
    original_median_spacing_after_transp: tuple[Positive, ...] = ()
    foreground_intensity_properties_per_channel: dict[str, ChannelIntensities] | None = None
    foreground_intensity_properties_by_modality: dict[str, ChannelIntensities] | None = None

    @property
    def intensities(self) -> Mapping[str, ChannelIntensities]:
        newer, older = (
            self.foreground_intensity_properties_per_channel,
            self.foreground_intensity_properties_by_modality,
        )
        return newer or older or {}

    @property
    def slice_spacing(self) -> float | None:
        median = self.original_median_spacing_after_transp
        return median[0] if len(median) == 3 else None


class _Dataset(_Read):
    channel_names: dict[str, str] | None = None
    modality: dict[str, str] | None = None
    labels: dict[str, int | tuple[int, ...]]
    image_orientation: str | None = None

    @property
    def channels(self) -> int:
        return len(self.modality or self.channel_names or {})

    @property
    def output_names(self) -> tuple[str, ...]:
        """The regions where some label is several values, else the labels from the background on."""
        known = {name: _values(value) for name, value in self.labels.items() if name != "ignore"}
        if any(len(values) > 1 for values in known.values()):
            return tuple(name for name, values in known.items() if set(values) != {0})
        by_value = {values[0]: name for name, values in reversed(known.items()) if values}
        return tuple(by_value[value] for value in sorted(by_value))

    @property
    def outputs(self) -> int:
        return len(self.output_names)


_Model = TypeVar("_Model", bound=_Read)


def _validated(kind: type[_Model], raw: Any, where: str) -> _Model:
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        written = "" if first["type"] == "missing" else f" {first['input']!r:.60}"
        raise ModelError(f"{where}: ({key}{written}): {first['msg']}") from None


def _values(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)


def _inherited(configurations: Mapping[str, dict[str, Any]], name: str, where: str) -> dict[str, Any]:
    """A configuration over those that it `inherits_from`."""
    chain: list[dict[str, Any]] = []
    next_name: Any = name
    while next_name is not None:
        if not isinstance(next_name, str) or next_name not in configurations:
            raise ModelError(
                f"{where}: there is no configuration {next_name!s:.60}; there are {', '.join(configurations)}"
            )
        chain.append(configurations[next_name])
        if len(chain) > LONGEST_CHAIN:
            raise ModelError(f"{where}: {name} inherits from itself; mend inherits_from")
        next_name = chain[-1].get("inherits_from")
    return {key: value for one in reversed(chain) for key, value in one.items()}


def _check_lengths(found: _Configuration, topology: Topology, known: _Plans, place: str) -> None:
    for name, given in (("spacing", found.spacing), ("patch_size", found.patch_size)):
        if len(given) != topology.dimension:
            raise ModelError(f"{place}: {name} has {len(given)} numbers, but the network {topology.dimension} axes")
    if sorted(known.transpose_forward) != [0, 1, 2]:
        raise ModelError(f"{place}: transpose_forward names the axes 0, 1, 2 once, not {known.transpose_forward}")


def _normalisations(found: _Configuration, known: _Plans, channels: int, place: str) -> tuple[Normalisation, ...]:
    schemes = found.normalization_schemes
    if len(schemes) < channels:
        raise ModelError(f"{place}: {channels} normalization_schemes are needed, one a channel, not {len(schemes)}")
    masks = found.use_mask_for_norm
    given = list(masks.values() if isinstance(masks, dict) else masks) + [False] * channels
    result = []
    for number, scheme in enumerate(schemes[:channels]):
        intensities = known.intensities.get(str(number))
        if scheme == "CTNormalization" and intensities is None:
            raise ModelError(f"{place}: CTNormalization needs foreground_intensity_properties of channel {number}")
        result.append(Normalisation(scheme, given[number] and scheme == "ZScoreNormalization", intensities))
    return tuple(result)


def _orientation(letters: str | None, where: str) -> str | None:
    return None if letters is None else checked_letters(letters, f"{where}: image_orientation")
