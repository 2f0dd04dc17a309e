"""The process in which itk-elastix runs one stage: `python elastix_worker.py FOLDER`.

A process of its own, because itk-elastix holds Python's global lock for a whole registration: inside the process
that asks for it nothing could show progress, neither Ctrl-C nor a callback could end it, and its crash would be
everything's.

The folder holds `job.json` (number of dimensions, grids of the images of each role, names of the point files, the
initial transform's file), each image as `<role><number>.npy` and the parameter map as `parameters.txt`; elastix's own
files come to lie there too. This file is run as a script and imports nothing of the package, so that it starts without
torch.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Runs the registration that a folder describes, and leaves elastix's files there."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    method = _method(job["dimension"])
    adders = {
        "fixed": method.AddFixedImage,
        "moving": method.AddMovingImage,
        "fixed_mask": method.AddFixedMask,
        "moving_mask": method.AddMovingMask,
    }
    for role, grids in job["images"].items():
        for number, grid in enumerate(grids):
            adders[role](_image(folder / f"{role}{number}.npy", grid))
    for side, setter in (("fixed", method.SetFixedPointSetFileName), ("moving", method.SetMovingPointSetFileName)):
        if side in job["points"]:
            setter(str(folder / job["points"][side]))
    if job["initial"]:
        method.SetInitialTransformParameterFileName(job["initial"])
    method.SetParameterObject(_parameters(folder / "parameters.txt"))
    method.SetOutputDirectory(str(folder))
    method.SetLogToConsole(False)
    method.SetLogToFile(True)
    method.UpdateLargestPossibleRegion()


def _method(dimension: int) -> Any:
    """The filter for float images, taken from its own module: through `itk` itself all of ITK is loaded, in 20 s."""
    from itk import itkElastixRegistrationMethodPython

    return getattr(itkElastixRegistrationMethodPython, f"itkElastixRegistrationMethodIF{dimension}IF{dimension}").New()


def _parameters(file: Path) -> Any:
    from itk import elxParameterObjectPython

    parameters = elxParameterObjectPython.elastixParameterObject.New()
    parameters.ReadParameterFile(str(file))
    return parameters


def _image(file: Path, grid: dict[str, Any]) -> Any:
    import itk
    import numpy as np

    image = itk.image_from_array(np.load(file))
    image.SetSpacing(grid["spacing"])
    image.SetOrigin(grid["origin"])
    image.SetDirection(itk.matrix_from_array(np.array(grid["direction"])))
    return image


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    # All files are closed by now, and taking ITK's modules down would last a second or two.
    os._exit(0)
