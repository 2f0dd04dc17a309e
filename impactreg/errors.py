"""What a user can do wrong, as one tree of exceptions; each message is one line that says where, what and what to do.

ImpactregError
├── ParameterError      a parameter file or one of its values
├── ImageError          an image, a mask or their geometry
├── PointsError         a point file
├── ModelError          a feature extractor: its file or its contract
├── TransformError      a transform or its parameter file
├── RegistrationError   a run that cannot go on: no overlap, not-a-number values
├── OutputError         a result that cannot be written
└── MissingExtra        an optional package that is not installed
"""


class ImpactregError(Exception):
    """Something that the user can mend; the command line prints its message as one line and exits with 1."""


class ParameterError(ImpactregError):
    """A parameter file, a key or a value in it."""


class ImageError(ImpactregError):
    """An image or mask: unreadable, of the wrong dimension, of the wrong grid, or with values that are not numbers."""


class PointsError(ImpactregError):
    """A point set: unreadable, of the wrong dimension or of the wrong length."""


class ModelError(ImpactregError):
    """A feature extractor: its file is missing, or it breaks the TorchScript contract."""


class TransformError(ImpactregError):
    """A transform: unknown, incomplete, or not usable where it was asked for."""


class RegistrationError(ImpactregError):
    """A registration that cannot go on, such as one whose samples map outside the moving image."""


class OutputError(ImpactregError):
    """A result that cannot be written where it was asked for."""


class MissingExtra(ImpactregError):
    """An optional package is needed; the message names the extra that installs it."""
