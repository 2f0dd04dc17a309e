"""What is registered: grids, images, masks and points."""

from impactreg.images.conversion import as_image
from impactreg.images.files import read_image, write_image
from impactreg.images.grid import Grid
from impactreg.images.image import Image
from impactreg.images.masks import Mask
from impactreg.images.points import PointSet, read_points, write_points

__all__ = ["Grid", "Image", "Mask", "PointSet", "as_image", "read_image", "read_points", "write_image", "write_points"]
