"""Where a linear transform starts: its centre of rotation and its first translation, as elastix chooses them.

Mirrors `itk::CenteredTransformInitializer` (Euler, similarity), `itk::CenteredTransformInitializer2` (affine) and
`itk::TranslationTransformInitializer`, with their different treatment of masks.
"""

import logging
import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from impactreg.components.samplers import grid_samples
from impactreg.components.setup import Setup
from impactreg.components.transforms.start_search import Start, find_start
from impactreg.errors import ParameterError, RegistrationError
from impactreg.images import sums
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.parameters import Once, Settings, WholeList

logger = logging.getLogger(__name__)
Point = Float[Tensor, " dim"]
Method = Literal["GeometricalCenter", "CenterOfGravity", "Origins", "GeometryTop", "Search"]


class InitializationSettings(Settings):
    """How a linear transform is placed before the first resolution."""

    automatic_transform_initialization: Annotated[bool, Once] = Field(
        False, description="Whether to align the images by a translation first; not done after an initial transform."
    )
    automatic_transform_initialization_method: Annotated[Method, Once] = Field(
        "GeometricalCenter",
        description="What to align: GeometricalCenter or CenterOfGravity; for affine also Origins or GeometryTop. "
        "Search looks for the best translation and rotation on coarse images, for pairs that overlap little.",
    )
    automatic_scales_estimation: Annotated[bool, Once] = Field(
        False, description="Whether to estimate the parameters' scales from the Jacobian at the start."
    )
    center_of_rotation: Annotated[tuple[int, ...], WholeList] = Field(
        (), description="Centre of rotation as voxel index of the fixed image, x y z; default: the image's centre."
    )
    center_of_rotation_point: Annotated[tuple[float, ...], WholeList] = Field(
        (), description="Centre of rotation in millimetres, x y z; default: the fixed image's centre."
    )
    number_of_samples_for_centered_transform_initialization: Annotated[int, Once] = Field(
        10000, ge=1, description="Voxels used for the centre of gravity of an affine transform."
    )
    center_of_gravity_uses_lower_threshold: Annotated[bool, Once] = Field(
        False, description="Whether only values above LowerThresholdForCenterGravity weigh (affine)."
    )
    lower_threshold_for_center_gravity: Annotated[float, Once] = Field(
        500.0, description="The threshold of CenterOfGravityUsesLowerThreshold, as an intensity."
    )


def initial_placement(transform: str, settings: InitializationSettings, setup: Setup) -> tuple[Point, Point]:
    """The centre of rotation and the translation (mm) that a transform of this elastix name starts with.

    The centre, if it is not given, is what `AutomaticTransformInitializationMethod` aligns, also where nothing is
    aligned.
    """
    given = given_centre(settings, setup.fixed)
    automatic = settings.automatic_transform_initialization and not setup.has_initial
    if settings.automatic_transform_initialization and not automatic:
        logger.warning("AutomaticTransformInitialization is not used after an initial transform")
    if given is None or automatic:
        centre, translation = _aligned(transform, settings, setup)
    if not automatic:
        translation = torch.zeros(setup.fixed.dimension, dtype=torch.float64)
    if given is not None:
        centre = given
    if setup.before is not None:
        centre = setup.before(centre[None].to(setup.fixed.data.device))[0].cpu()
    return centre, translation


def searched_placement(settings: InitializationSettings, setup: Setup, *, turns: bool) -> Start | None:
    """The start that a search finds, about the centre that is given; None where no search is asked for.

    The log says how much of the fixed image lies in the moving one before and after.
    """
    asked = settings.automatic_transform_initialization_method == "Search"
    if not asked or not settings.automatic_transform_initialization or setup.has_initial:
        return None
    start = find_start(setup, _simple_translations(setup), turns=turns)
    angle = math.degrees(math.acos(max(-1.0, min(1.0, _cosine(start.rotation)))))
    moves = ", ".join(f"{value:.1f}" for value in start.translation.tolist())
    logger.info(
        "The start was searched: the centre is moved by (%s) mm and turned by %.1f degrees; %.0f %% of the fixed image "
        "lay in the moving image before, %.0f %% do now",
        *(moves, angle, 100 * start.before, 100 * start.after),
    )
    given = given_centre(settings, setup.fixed)
    return start if given is None else start.about(given)


def _simple_translations(setup: Setup) -> Float[Tensor, "given dim"]:
    """Those that the other methods give."""
    centres = [_geometric_centre(setup.moving) - _geometric_centre(setup.fixed)]
    centres.append(_box_centre(setup.moving, setup.moving_mask) - _box_centre(setup.fixed, setup.fixed_mask))
    origins = [torch.tensor(i.grid.origin, dtype=torch.float64) for i in (setup.fixed, setup.moving)]
    # shares of the values above the lowest, which CT numbers are not
    weighted = [i.with_data(i.data - i.data.min()) for i in (setup.fixed, setup.moving)]
    if all(bool(i.data.max() > 0) for i in weighted):
        masses = zip(weighted, (setup.fixed_mask, setup.moving_mask), strict=True)
        fixed, moving = (_masked_gravity(image, mask) for image, mask in masses)
        centres.append(moving - fixed)
    return torch.stack([*centres, origins[1] - origins[0]])


def _cosine(rotation: Float[Tensor, "dim dim"]) -> float:
    n = len(rotation)
    return float(rotation.trace()) / 2 if n == 2 else (float(rotation.trace()) - 1) / 2


def given_centre(settings: InitializationSettings, fixed: Image) -> Point | None:
    """The centre of rotation that the parameter map gives, None where it gives none; raises `ParameterError` for a
    wrong number of coordinates.
    """
    index, point = settings.center_of_rotation, settings.center_of_rotation_point
    for key, given in (("CenterOfRotation", index), ("CenterOfRotationPoint", point)):
        if len(given) not in (0, fixed.dimension):
            raise ParameterError(f"({key} ...) needs {fixed.dimension} numbers, but has {len(given)}")
    if index:
        return fixed.grid.index_to_world(torch.tensor([index], dtype=torch.float64))[0]
    return torch.tensor(point, dtype=torch.float64) if point else None


def _geometric_centre(image: Image) -> Point:
    return torch.tensor(image.grid.centre, dtype=torch.float64)


def _aligned(transform: str, settings: InitializationSettings, setup: Setup) -> tuple[Point, Point]:
    method = settings.automatic_transform_initialization_method
    if transform == "AffineTransform":
        return _aligned_affine(method, settings, setup)
    if method in ("Origins", "GeometryTop"):
        logger.warning("%s aligns geometrical centres: %s is for AffineTransform alone", transform, method)
    if transform == "TranslationTransform":
        return _aligned_translation(method, setup)
    if method == "CenterOfGravity":
        fixed, moving = (_centre_of_gravity(i.grid.points(), i.scalar.reshape(-1)) for i in (setup.fixed, setup.moving))
        return fixed, moving - fixed
    centre = _geometric_centre(setup.fixed)
    return centre, _geometric_centre(setup.moving) - centre


def _aligned_translation(method: str, setup: Setup) -> tuple[Point, Point]:
    """elastix takes index + size / 2 for the geometric centre here, half a voxel beyond the middle."""
    pairs = ((setup.fixed, setup.fixed_mask), (setup.moving, setup.moving_mask))
    if method == "CenterOfGravity":
        fixed, moving = (_masked_gravity(image, mask) for image, mask in pairs)
    else:
        fixed, moving = (_box_centre(image, mask, half_voxel=0.5) for image, mask in pairs)
    return _geometric_centre(setup.fixed), moving - fixed


def _aligned_affine(method: str, settings: InitializationSettings, setup: Setup) -> tuple[Point, Point]:
    if method == "CenterOfGravity":
        fixed = _sampled_gravity(setup.fixed, setup.fixed_mask, settings)
        return fixed, _sampled_gravity(setup.moving, setup.moving_mask, settings) - fixed
    if method == "Origins":
        origins = [torch.tensor(i.grid.origin, dtype=torch.float64) for i in (setup.fixed, setup.moving)]
        translation = origins[1] - origins[0]
        return _box_centre(setup.moving, setup.moving_mask) - translation, translation
    fixed = _box_centre(setup.fixed, setup.fixed_mask)
    moving = _box_centre(setup.moving, setup.moving_mask)
    if method == "GeometryTop":
        if setup.fixed.dimension < 3:
            raise RegistrationError(
                '(AutomaticTransformInitializationMethod "GeometryTop") needs 3D images; use "GeometricalCenter"'
            )
        (centre, top), (_, other) = _top(setup.fixed, setup.fixed_mask), _top(setup.moving, setup.moving_mask)
        return centre, other - top
    return fixed, moving - fixed


def _box(image: Image, mask: Mask | None) -> tuple[Tensor, Tensor]:
    """First and last index (x, y, z) of the image or of its mask's bounding box, on the mask's own grid."""
    if mask is None:
        last = torch.tensor(image.grid.size, dtype=torch.float64) - 1
        return torch.zeros_like(last), last
    inside = mask.inside.nonzero().flip(1).double()
    return inside.min(dim=0).values, inside.max(dim=0).values


def _box_centre(image: Image, mask: Mask | None, half_voxel: float = 0.0) -> Point:
    first, last = _box(image, mask)
    grid = image.grid if mask is None else mask.grid
    return grid.index_to_world(((first + last) / 2 + half_voxel).cpu()[None])[0]


def _top(image: Image, mask: Mask | None) -> tuple[Point, Point]:
    """Centre of the world box around all voxels and one more a side, as elastix counts, and of its upper side."""
    first, last = _box(image, mask)
    grid = image.grid if mask is None else mask.grid
    corners = grid.index_to_world(torch.cartesian_prod(*torch.stack([first, last + 1], dim=1).cpu().unbind()))
    centre = (corners.amin(dim=0) + corners.amax(dim=0)) / 2
    top = centre.clone()
    top[2] = corners[:, 2].max()
    return centre, top


def _masked_gravity(image: Image, mask: Mask | None) -> Point:
    points, values = image.grid.points(), image.scalar.reshape(-1).cpu()
    if mask is not None:
        inside = mask.contains(points.to(image.data.device)).cpu()
        points, values = points[inside], values[inside]
    return _centre_of_gravity(points, values)


def _sampled_gravity(image: Image, mask: Mask | None, settings: InitializationSettings) -> Point:
    samples = grid_samples(image, mask, settings.number_of_samples_for_centered_transform_initialization)
    values = samples.values
    if settings.center_of_gravity_uses_lower_threshold:
        values = torch.where(values >= settings.lower_threshold_for_center_gravity, 1.0, 0.0)
    return _centre_of_gravity(samples.points.cpu(), values.cpu())


def _centre_of_gravity(points: Float[Tensor, "points dim"], values: Float[Tensor, " points"]) -> Point:
    mass = values.double().cpu()
    total = float(sums.total(mass))
    if total == 0:
        raise RegistrationError(
            "the image has no mass, so that it has no centre of gravity; "
            'use (AutomaticTransformInitializationMethod "GeometricalCenter")'
        )
    return (points * mass[:, None]).sum(dim=0) / total
