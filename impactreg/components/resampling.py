"""How the result image is made and written: resample interpolators, the resampler, and the grid that it fills."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from impactreg.components.component import Component
from impactreg.components.setup import PointMap
from impactreg.components.warping import warp
from impactreg.errors import ImageError, OutputError, TransformError
from impactreg.images.files import FORMATS, ITK_FORMATS
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.pixels import numpy_type
from impactreg.parameters import Once, ParameterMap, Refused, Settings

Written = dict[str, list[str | int | float]]


class ResampleInterpolator(Component, kind="ResampleInterpolator"):
    """How the moving image is evaluated for the result; chosen by `ResampleInterpolator`."""

    clamped: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def order(self) -> int:
        """The order of the B-spline; 0 is the nearest voxel, 1 is linear."""
        raise NotImplementedError

    def written(self) -> Written:
        """Its keys in a TransformParameters file."""
        return {"ResampleInterpolator": [self.names[0]]}


class FinalBSplineInterpolatorSettings(Settings):
    """What `FinalBSplineInterpolator` reads."""

    final_b_spline_interpolation_order: Annotated[int, Once] = Field(
        3,
        ge=0,
        alias="FinalBSplineInterpolationOrder",
        description="Order of the B-spline that makes the result image; 0 is the nearest voxel and 1 is linear.",
    )

    def check(self) -> None:
        """Orders above 3 are elastix's alone."""
        if self.final_b_spline_interpolation_order > 3:
            raise Refused(
                "final_b_spline_interpolation_order",
                "0, 1, 2 or 3 is needed; use 3, or elastix's own transformix for more",
            )


class FinalBSplineInterpolator(ResampleInterpolator, name="FinalBSplineInterpolator"):
    """B-splines of order 0 to 3 with a mirrored border (`itk::BSplineInterpolateImageFunction`)."""

    Settings = FinalBSplineInterpolatorSettings
    settings: FinalBSplineInterpolatorSettings

    @property
    def order(self) -> int:
        """`FinalBSplineInterpolationOrder`."""
        return self.settings.final_b_spline_interpolation_order

    def written(self) -> Written:
        """The name and the order."""
        return {**super().written(), "FinalBSplineInterpolationOrder": [self.order]}


class FinalBSplineInterpolatorFloat(FinalBSplineInterpolator, name="FinalBSplineInterpolatorFloat"):
    """As `FinalBSplineInterpolator`, which computes in single precision here anyway unless the image is in double."""


class FinalLinearInterpolator(ResampleInterpolator, name="FinalLinearInterpolator"):
    """Linear interpolation, constant beyond the outermost voxel centres (`itk::LinearInterpolateImageFunction`)."""

    clamped = True

    @property
    def order(self) -> int:
        """1."""
        return 1


class FinalNearestNeighborInterpolator(ResampleInterpolator, name="FinalNearestNeighborInterpolator"):
    """The nearest voxel: the choice for labels (`itk::NearestNeighborInterpolateImageFunction`)."""

    @property
    def order(self) -> int:
        """0."""
        return 0


class ResamplerSettings(Settings):
    """What `DefaultResampler` reads."""

    default_pixel_value: Annotated[float, Once] = Field(
        0.0, allow_inf_nan=True, description="Value of the result outside the moving image."
    )
    result_image_format: Annotated[str, Once] = Field(
        "mhd",
        description="Ending of the names of images, which say the format: mhd, mha, nii, nii.gz, nrrd and others.",
    )
    result_image_pixel_type: Annotated[str, Once] = Field("short", description="Pixel type of result images.")
    compress_result_image: Annotated[bool, Once] = Field(False, description="Whether result images are compressed.")

    def check(self) -> None:
        """Only formats and pixel types that can be written."""
        if self.result_image_format not in FORMATS + ITK_FORMATS:
            raise Refused("result_image_format", f"one of {', '.join(FORMATS + ITK_FORMATS)} is needed")
        try:
            pixel_type = numpy_type(self.result_image_pixel_type)
        except OutputError as error:
            raise Refused("result_image_pixel_type", str(error)) from None
        if self.result_image_format == "dcm" and (pixel_type.kind == "f" or pixel_type.itemsize > 2):
            raise Refused("result_image_pixel_type", 'a DICOM file takes "short" or "unsigned short"')


class Resampler(Component, kind="Resampler"):
    """How the result image is made; chosen by `Resampler`."""

    Settings = ResamplerSettings

    def __init__(self, settings: ResamplerSettings) -> None:
        self.settings = settings

    def resample(self, moving: Image, transform: PointMap, grid: Grid, interpolator: ResampleInterpolator) -> Image:
        """The moving image at T(x) for every voxel x of a grid, not yet cast to `ResultImagePixelType`."""
        raise NotImplementedError

    def written(self) -> Written:
        """Its keys in a TransformParameters file."""
        asked = self.settings
        return {
            "Resampler": [self.names[0]],
            "DefaultPixelValue": [asked.default_pixel_value],
            "ResultImageFormat": [asked.result_image_format],
            "ResultImagePixelType": [asked.result_image_pixel_type],
            "CompressResultImage": [str(asked.compress_result_image).lower()],
        }


class DefaultResampler(Resampler, name="DefaultResampler"):
    """Interpolated inside the moving image, `DefaultPixelValue` elsewhere (`itk::ResampleImageFilter`)."""

    def resample(self, moving: Image, transform: PointMap, grid: Grid, interpolator: ResampleInterpolator) -> Image:
        """As `Resampler.resample`."""
        default = self.settings.default_pixel_value
        return warp(moving, transform, grid, order=interpolator.order, default=default, clamped=interpolator.clamped)


@dataclass(frozen=True)
class Output:
    """The grid of all that transformix makes, with the resampler and interpolator that a parameter file chooses.

    With `(UseDirectionCosines "false")` everything is computed along the world's axes and gets the grid's direction
    back at the end.
    """

    grid: Grid
    interpolator: ResampleInterpolator
    resampler: Resampler
    use_direction_cosines: bool = True

    @classmethod
    def of(cls, parameter_map: ParameterMap, grid: Grid | None = None) -> "Output":
        """What a parameter file asks for, on a grid or on its own; raises `TransformError` without either."""
        interpolator, resampler = choose(parameter_map)
        return cls(
            grid or grid_of(parameter_map),
            interpolator,
            resampler,
            parameter_map.first("UseDirectionCosines", "true") != "false",
        )

    @property
    def working_grid(self) -> Grid:
        """The grid on which the transform is evaluated."""
        return self.grid if self.use_direction_cosines else self.grid.without_direction()

    def seen(self, image: Image) -> Image:
        """An image as the transform sees it."""
        return image if self.use_direction_cosines else Image(image.data, image.grid.without_direction())

    def finished(self, image: Image) -> Image:
        """An image on the working grid, put where it belongs."""
        return Image(image.data, self.grid)

    def resample(self, moving: Image, transform: PointMap) -> Image:
        """The moving image at T(x) for every voxel x of the grid."""
        return self.finished(
            self.resampler.resample(self.seen(moving), transform, self.working_grid, self.interpolator)
        )

    def written(self) -> tuple[Written, Written]:
        """The keys of interpolator and resampler in a TransformParameters file."""
        return self.interpolator.written(), self.resampler.written()


def choose(parameter_map: ParameterMap) -> tuple[ResampleInterpolator, Resampler]:
    """What a parameter file names to make its result; raises `ParameterError` for what is unknown or not allowed."""
    interpolator = ResampleInterpolator.named(
        parameter_map.first("ResampleInterpolator", "FinalBSplineInterpolator"),
        parameter_map.where("ResampleInterpolator"),
    )
    resampler = Resampler.named(parameter_map.first("Resampler", "DefaultResampler"), parameter_map.where("Resampler"))
    settings = resampler.Settings.read(parameter_map, label="Resampler0")
    return (
        interpolator(interpolator.Settings.read(parameter_map, label="ResampleInterpolator0")),
        resampler(settings),
    )


def grid_of(parameter_map: ParameterMap) -> Grid:
    """The fixed image's grid in a TransformParameters file; raises `TransformError` where it is missing or wrong."""
    given = {key: parameter_map.numbers(key) for key in ("Size", "Spacing", "Origin", "Direction")}
    n = len(given["Size"])
    for key, values in given.items():
        needed = n * n if key == "Direction" else n
        if n not in (2, 3) or len(values) != needed:
            what = f"{needed} numbers" if n in (2, 3) else "2 or 3 numbers"
            raise TransformError(
                f"{parameter_map.where(key)}: ({key} ...) with {what} is needed to know the fixed image's grid"
            )
    # elastix writes the direction column by column
    rows = [[given["Direction"][c * n + r] for c in range(n)] for r in range(n)]
    first = parameter_map.numbers("Index") or (0.0,) * n
    spacing, size = given["Spacing"], [int(s) for s in given["Size"]]
    origin = [o + sum(rows[r][c] * spacing[c] * first[c] for c in range(n)) for r, o in enumerate(given["Origin"])]
    try:
        return Grid.of(size, spacing, origin, rows)
    except ImageError as error:
        raise TransformError(f"{parameter_map.where('Size')}: {error}") from error
