"""The settings that belong to the run as a whole rather than to one component: what is chosen, read and written."""

from typing import Annotated, Literal

from pydantic import Field

from impactreg.parameters.complaints import Refused
from impactreg.parameters.reading import Once, WholeList
from impactreg.parameters.settings import Settings

OnceBool = Annotated[bool, Once]
OnceText = Annotated[str, Once]
Names = Annotated[tuple[str, ...], WholeList]


class RunSettings(Settings):
    """What the run reads. Defaults are elastix's; "" and () say that the user must choose."""

    registration: OnceText = Field(
        "MultiResolutionRegistration",
        description="The way to register: with one metric, or MultiMetricMultiResolutionRegistration with several.",
    )
    transform: OnceText = Field("", description="The transform; it has no default.")
    metric: Names = Field((), description="The metrics, one or more; they have no default.")
    optimizer: OnceText = Field("", description="The optimizer; it has no default.")
    image_sampler: Names = Field((), description="The samplers, one, or one for each metric; image metrics need one.")
    interpolator: Names = Field(("BSplineInterpolator",), description="The interpolators of the moving image.")
    fixed_image_pyramid: Names = Field(("FixedSmoothingImagePyramid",), description="The pyramids of the fixed image.")
    moving_image_pyramid: Names = Field(
        ("MovingSmoothingImagePyramid",), description="The pyramids of the moving image."
    )
    resample_interpolator: OnceText = Field("FinalBSplineInterpolator", description="The interpolator of the result.")
    resampler: OnceText = Field("DefaultResampler", description="The resampler of the result.")

    number_of_resolutions: Annotated[int, Once] = Field(3, ge=1, description="How many resolutions there are.")
    random_seed: Annotated[int, Once] = Field(121212, ge=0, description="Seed of all random numbers.")
    how_to_combine_transforms: Annotated[Literal["Compose", "Add"], Once] = Field(
        "Compose", description="How the transform follows the initial one: composed with it, or displacements added."
    )
    initial_transform_parameter_file_name: OnceText = Field(
        "", description="File of the initial transform; also NoInitialTransform."
    )
    initial_transform_parameters_file_name: OnceText = Field(
        "", description="Older spelling of InitialTransformParameterFileName."
    )
    use_relative_weights: OnceBool = Field(
        False, description="Whether metrics are weighted by the size of their gradients and Metric<i>RelativeWeight."
    )

    fixed_image_dimension: Annotated[int | None, Once] = Field(
        None, ge=2, le=4, description="Dimension of the fixed image, 2 or 3; what the image has when absent."
    )
    moving_image_dimension: Annotated[int | None, Once] = Field(
        None, ge=2, le=4, description="Dimension of the moving image, 2 or 3; what the image has when absent."
    )
    fixed_internal_image_pixel_type: OnceText = Field(
        "float",
        description="Pixel type of the image inside elastix, float or short; without effect in the PyTorch loop, where "
        "it is always float.",
    )
    moving_internal_image_pixel_type: OnceText = Field(
        "float",
        description="Pixel type of the image inside elastix, float or short; without effect in the PyTorch loop, where "
        "it is always float.",
    )
    use_direction_cosines: OnceBool = Field(
        True, description="Whether the images' directions count; without, axes are parallel to the world's."
    )
    erode_mask: bool = Field(True, description="Whether masks lose a rim that smoothing may have spoiled.")
    erode_fixed_mask: bool | None = Field(None, description="As ErodeMask, for fixed masks; ErodeMask when absent.")
    erode_moving_mask: bool | None = Field(None, description="As ErodeMask, for moving masks; ErodeMask when absent.")
    erode_numbered_fixed_mask: bool | None = Field(
        None, alias="ErodeFixedMask<i>", description="As ErodeFixedMask, for the mask of that number."
    )
    erode_numbered_moving_mask: bool | None = Field(
        None, alias="ErodeMovingMask<i>", description="As ErodeMovingMask, for the mask of that number."
    )

    write_result_image: OnceBool = Field(True, description="Whether the registered image is written.")
    result_image_name: OnceText = Field("result", description="First part of the names of result images.")
    result_image_format: OnceText = Field(
        "mhd",
        description="Ending of the names of images, which say the format: mhd, mha, nii, nii.gz, nrrd and others.",
    )
    result_image_pixel_type: OnceText = Field("short", description="Pixel type of result images.")
    compress_result_image: OnceBool = Field(False, description="Whether result images are compressed.")
    default_pixel_value: Annotated[float, Once] = Field(
        0.0, allow_inf_nan=True, description="Value of the result outside the moving image."
    )
    final_b_spline_interpolation_order: Annotated[int, Once] = Field(
        3,
        ge=0,
        le=5,
        alias="FinalBSplineInterpolationOrder",
        description="Order of the B-spline that makes the result.",
    )
    write_result_image_after_each_resolution: bool = Field(
        False, description="Whether the registered image is written after the resolution."
    )
    write_result_image_after_each_iteration: bool = Field(
        False, description="Whether the registered image is written after each iteration."
    )
    write_pyramid_images_after_each_resolution: bool = Field(
        False, description="Whether the images of the pyramids are written after the resolution."
    )
    write_final_transform_parameters: OnceBool = Field(True, description="Whether the final transform is written.")
    write_transform_parameters_each_resolution: OnceBool = Field(
        False, description="Whether the transform is written after each resolution."
    )
    write_transform_parameters_each_iteration: OnceBool = Field(
        False, description="Whether the transform is written after each iteration."
    )
    output_transform_parameter_file_format: Annotated[Literal["txt", "TOML"], Once] = Field(
        "txt", description="Whether transforms are written as .txt or .toml files."
    )
    itk_transform_output_file_name_extension: OnceText = Field(
        "",
        alias="ITKTransformOutputFileNameExtension",
        description="Ending (h5, tfm or itk.txt) of the ITK transform that is written too; none when empty.",
    )
    write_itk_composite_transform: OnceBool = Field(
        False,
        alias="WriteITKCompositeTransform",
        description="Whether the chain of all transforms is written as one ITK transform.",
    )
    write_inverse_transform: OnceBool = Field(
        False,
        description="Whether the inverse of the final transform is written too, as a file from moving to fixed space.",
    )
    write_iteration_info: OnceBool = Field(True, description="Whether the table of iterations is written.")

    use_multi_threading_for_metrics: bool = Field(
        True, description="Whether elastix computes metrics in threads; without effect in the PyTorch loop."
    )
    release_memory_before_resampling: OnceBool = Field(
        True,
        description="Whether elastix frees memory before the result is made; without effect in the PyTorch loop.",
    )
    show_progress_percentage: OnceBool = Field(
        False, description="Whether elastix tells how far a long step is; without effect in the PyTorch loop."
    )
    print_error_messages: OnceBool = Field(
        True, description="Whether elastix tells the keys that are absent; without effect in the PyTorch loop."
    )
    open_cl_device_type: OnceText = Field(
        "GPU", alias="OpenCLDeviceType", description="Device of elastix's OpenCL components, which are not here."
    )
    open_cl_device_id: OnceText = Field(
        "0", alias="OpenCLDeviceID", description="Number of the device of elastix's OpenCL components."
    )

    def check(self) -> None:
        """Only images of two and three dimensions."""
        for field in ("fixed_image_dimension", "moving_image_dimension"):
            if getattr(self, field) == 4:
                raise Refused(field, "images of 2 and 3 dimensions are registered, none of 4")
