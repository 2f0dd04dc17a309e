"""The settings of the IMPACT metric: lists over models and layers in the file, models and layers in Python.

The keys that describe models end in the number of the resolution (`ImpactModelsPath0`, `ImpactModelsPath1`, ...).
Their values are lists: one path and one mask a model, as many patch and voxel sizes as each model has dimensions, and
one distance, weight, subset and PCA a selected layer. A list that is too short is filled with its first value.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_pascal

from impactreg.parameters.complaints import Refused
from impactreg.parameters.parameter_map import ParameterMap
from impactreg.parameters.reading import ImageDimension, LevelSuffix
from impactreg.parameters.settings import Settings

Distance = Literal["L1", "L2", "NCC", "Cosine", "L1Cosine", "DotProduct", "Dice"]
Texts = Annotated[tuple[str, ...], LevelSuffix]
Dimensions = Annotated[tuple[Annotated[int, Field(ge=2, le=3)], ...], LevelSuffix]
Counts = Annotated[tuple[Annotated[int, Field(ge=0)], ...], LevelSuffix]
Channels = Annotated[tuple[Annotated[int, Field(ge=1)], ...], LevelSuffix]
Sizes = Annotated[tuple[Annotated[float, Field(gt=0)], ...], LevelSuffix]


class ModelSettings(NamedTuple):
    """How one model is used for one image.

    `path` as written; `dimension` (2 or 3) and `channels` of its input; `patch_size` in voxels, x first, 0 being the
    whole axis; `voxel_size` in mm, x first, for each axis of the image (Static) or of the model (Jacobian);
    `layers_mask`, whether each output of the model is used.
    """

    path: str
    dimension: int
    channels: int
    patch_size: tuple[int, ...]
    voxel_size: tuple[float, ...]
    layers_mask: tuple[bool, ...]


class LayerSettings(NamedTuple):
    """How one selected layer counts.

    `subset_features`: how many channels an iteration draws, 0 being all; `pca`: to how many principal components the
    channels are reduced first, 0 being none; `weight`: its factor in the sum; `distance`: how features are compared.
    """

    subset_features: int
    pca: int
    weight: float
    distance: Distance


class ImpactSettings(Settings):
    """What the `Impact` metric reads (elastix, `ImpactMetric`; Boussot et al. 2025).

    `fixed` and `moving` are the models for each image, `layers` all layers that they select, in order.
    """

    model_config = ConfigDict(alias_generator=lambda name: f"Impact{to_pascal(name)}")

    image_dimension: Annotated[int, ImageDimension] = Field(3, description="Dimension of the images.")
    mode: Literal["Static", "Jacobian"] = Field(
        "Jacobian",
        description="Static: features are extracted once a resolution; Jacobian: from patches in each iteration.",
    )
    models_path: Texts = Field((), description="TorchScript files of the models, one or more.")
    dimension: Dimensions = Field((), description="Dimension of each model's input; by default that of the images.")
    number_of_channels: Channels = Field((1,), description="Number of input channels of each model.")
    patch_size: Counts = Field(
        (),
        description="Patch size in voxels for each dimension of each model; 0, the default of Static, is a whole axis.",
    )
    voxel_size: Sizes = Field(
        (),
        description="Voxel size in mm of what the model sees, for each dimension of the images (Jacobian: the model).",
    )
    layers_mask: Texts = Field(("1",), description="A 1 or 0 for each output of the model: whether that layer is used.")
    fixed_models_path: Texts = Field((), description="As ImpactModelsPath, for the fixed image only.")
    fixed_dimension: Dimensions = Field((), description="As ImpactDimension, for the fixed image only.")
    fixed_number_of_channels: Channels = Field((), description="As ImpactNumberOfChannels, for the fixed image only.")
    fixed_patch_size: Counts = Field((), description="As ImpactPatchSize, for the fixed image only.")
    fixed_voxel_size: Sizes = Field((), description="As ImpactVoxelSize, for the fixed image only.")
    fixed_layers_mask: Texts = Field((), description="As ImpactLayersMask, for the fixed image only.")
    moving_models_path: Texts = Field((), description="As ImpactModelsPath, for the moving image only.")
    moving_dimension: Dimensions = Field((), description="As ImpactDimension, for the moving image only.")
    moving_number_of_channels: Channels = Field((), description="As ImpactNumberOfChannels, for the moving image only.")
    moving_patch_size: Counts = Field((), description="As ImpactPatchSize, for the moving image only.")
    moving_voxel_size: Sizes = Field((), description="As ImpactVoxelSize, for the moving image only.")
    moving_layers_mask: Texts = Field((), description="As ImpactLayersMask, for the moving image only.")
    subset_features: Counts = Field((0,), description="How many channels of each layer an iteration draws; 0 is all.")
    pca: Counts = Field(
        (0,),
        alias="ImpactPCA",
        description="Number of principal components that each layer is reduced to; 0 is no PCA.",
    )
    layers_weight: Annotated[tuple[float, ...], LevelSuffix] = Field((1.0,), description="Weight of each layer.")
    distance: Annotated[tuple[Distance, ...], LevelSuffix] = Field(
        ("L2",), description="How the features of each layer are compared."
    )
    device_index: int = Field(-1, ge=-1, alias="ImpactGPU", description="Number of the CUDA device; -1 is the CPU.")
    use_mixed_precision: bool = Field(False, description="Whether models run in half precision where that is faster.")
    evaluation: Literal["Auto", "Patches", "Dense"] = Field(
        "Auto",
        description="Jacobian: Patches shows a model each sample's own patch; Dense shows it tiles that patches share; "
        "Auto takes what costs less. All give the same features, and no more is shown than they depend on.",
    )
    batch_size: int = Field(
        0, ge=0, description="Jacobian: patches that go through a model together; 0 is what the device has room for."
    )
    features_map_update_interval: int = Field(
        -1, ge=-1, description="Static: extract moving features anew after this many iterations; -1 is never."
    )
    write_feature_maps: str = Field("false", description="Static: folder to write feature maps to; false writes none.")
    feature_map_output_directory: str = Field(
        "", description="Static: folder to write feature maps to; newer spelling."
    )

    @classmethod
    def read_level(cls, parameters: ParameterMap, level: int, image_dimension: int, label: str = "Metric0") -> Self:
        """Read the settings for one resolution; ParameterError when a value or the whole does not fit."""
        return cls.read(parameters, level=level, label=label, dimension=image_dimension)

    @cached_property
    def fixed(self) -> tuple[ModelSettings, ...]:
        """The models for the fixed image."""
        return self._models("fixed")

    @cached_property
    def moving(self) -> tuple[ModelSettings, ...]:
        """The models for the moving image."""
        return self._models("moving")

    @cached_property
    def layers(self) -> tuple[LayerSettings, ...]:
        """The layers that the masks select, model by model."""
        count = _selected(self.fixed)
        lists = (self.subset_features, self.pca, self.layers_weight, self.distance)
        return tuple(LayerSettings(*values) for values in zip(*(_fill(each, count) for each in lists), strict=True))

    @property
    def feature_map_directory(self) -> str:
        """The folder to write feature maps to, by either key; "" for none."""
        return self.feature_map_output_directory or self.write_feature_maps.removeprefix("false")

    def check(self) -> None:
        """Hold what must fit together: dimensions, sizes, masks, and as many moving as fixed layers."""
        if self.image_dimension not in (2, 3):
            raise Refused("models_path", f"images of 2 or 3 dimensions are needed, not of {self.image_dimension}")
        for name in ("number_of_channels", "layers_mask", "subset_features", "pca", "layers_weight", "distance"):
            if not getattr(self, name):
                raise Refused(name, "at least one value is needed")
        if self.mode == "Jacobian" and len(self.fixed) != len(self.moving):
            reason = f"Jacobian mode needs as many moving as fixed models, not {len(self.moving)} and {len(self.fixed)}"
            raise Refused(self._field("moving", "models_path"), reason)
        fixed, moving = _selected(self.fixed), _selected(self.moving)
        if fixed != moving:
            reason = f"the masks must select as many moving as fixed layers, not {moving} and {fixed}"
            raise Refused(self._field("moving", "layers_mask"), reason)

    def _models(self, side: str) -> tuple[ModelSettings, ...]:
        paths = self._values(side, "models_path")
        if not paths:
            raise Refused("models_path", 'a model is needed, such as (ImpactModelsPath0 "MIND/R1D2_3D.pt")')
        dimensions = self._dimensions(side, len(paths))
        axes = [self.image_dimension] * len(paths) if self.mode == "Static" else dimensions
        channels = _fill(self._values(side, "number_of_channels"), len(paths))
        patches, voxels = _group(self._patch_size(side), dimensions), _group(self._voxel_size(side), axes)
        masks = self._masks(side, len(paths))
        return tuple(map(ModelSettings, paths, dimensions, channels, patches, voxels, masks))

    def _field(self, side: str, name: str) -> str:
        """Name the field that counts for one image: its own, or that of both images when it has none."""
        return f"{side}_{name}" if getattr(self, f"{side}_{name}") else name

    def _values(self, side: str, name: str) -> tuple[Any, ...]:
        return tuple(getattr(self, self._field(side, name)))

    def _dimensions(self, side: str, count: int) -> tuple[int, ...]:
        dimensions = _fill(self._values(side, "dimension") or (self.image_dimension,), count)
        for place, dimension in enumerate(dimensions):
            if dimension > self.image_dimension:
                reason = f"at most {self.image_dimension} is needed, the dimension of the images"
                raise Refused(self._field(side, "dimension"), reason, place)
        return dimensions

    def _patch_size(self, side: str) -> tuple[int, ...]:
        sizes = self._values(side, "patch_size") or (0,)
        if self.mode == "Jacobian" and 0 in sizes:
            reason = "Jacobian mode needs the size of a patch in voxels, more than 0, such as (ImpactPatchSize0 5 5 5)"
            raise Refused(self._field(side, "patch_size"), reason)
        return sizes

    def _voxel_size(self, side: str) -> tuple[float, ...]:
        sizes = self._values(side, "voxel_size")
        if not sizes:
            reason = "the size in mm of the voxels that the model sees is needed, such as (ImpactVoxelSize0 2 2 2)"
            raise Refused("voxel_size", reason)
        return sizes

    def _masks(self, side: str, count: int) -> list[tuple[bool, ...]]:
        masks = _fill(self._values(side, "layers_mask"), count)
        for place, mask in enumerate(masks):
            if not re.fullmatch("0*1[01]*", mask):
                reason = 'a 1 or 0 for each output of the model is needed, and a 1 at least once, such as "01"'
                raise Refused(self._field(side, "layers_mask"), reason, place)
        return [tuple(char == "1" for char in mask) for mask in masks]


def _selected(models: Sequence[ModelSettings]) -> int:
    """Count the layers that the masks of some models select."""
    return sum(sum(model.layers_mask) for model in models)


def _fill(values: Sequence[Any], count: int) -> tuple[Any, ...]:
    """Take so many values, the first one standing in for those that are missing."""
    return (*values[:count], *[values[0]] * (count - len(values)))


def _group(values: Sequence[Any], sizes: Sequence[int]) -> list[tuple[Any, ...]]:
    """Cut a list into groups of the given sizes, the first value standing in for those that are missing."""
    filled = iter(_fill(values, sum(sizes)))
    return [tuple(next(filled) for _ in range(size)) for size in sizes]
