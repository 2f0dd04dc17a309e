"""Names of one's own for the results of a registration, such as those of BIDS derivatives, from a template.

`{fixed}` and `{moving}` stand for the names of the images without folder and ending; `{moving[sub]}` for what stands
behind `sub-` in a name such as `sub-01_ses-2_T1w.nii.gz`, and `{moving[suffix]}` for its last part, `T1w`.
"""

import re
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from impactreg.cli.arguments import UsageError, numbered

if TYPE_CHECKING:
    from impactreg.parameters import ParameterMap
    from impactreg.registration.results import Result

FIELD = re.compile(r"\{(?P<image>fixed|moving)(?:\[(?P<entity>\w+)\])?\}")
IMAGE_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd")
OWN = re.compile(r"(?:Initial|Inverse)?TransformParameters\.\d.*|IterationInfo\.\d.*|result\.\d+\.[a-z.]+")
"""What a registration itself writes into its output folder."""


@dataclass(frozen=True)
class Names:
    """The files that are written beside elastix's own: the result image and the whole transform; None for neither."""

    image: Path | None = None
    transform: Path | None = None

    @classmethod
    def asked(cls, options: Namespace, last_map: "ParameterMap") -> "Names":
        """Those that the flags of a registration ask for, if its last parameter map allows them.

        Raises `UsageError` as `of` does, and `OutputError` where there will be nothing to write.
        """
        from impactreg.errors import OutputError

        images = {name: numbered(options, name)[0] for name in ("fixed", "moving")}
        names = cls.of(options.image_name, options.transform_name, options.output or Path(), images)
        if names.image is not None and last_map.first("WriteResultImage", "true") == "false":
            raise OutputError(f'--image-name {names.image.name}: {last_map.name} says (WriteResultImage "false")')
        if names.transform is not None and last_map.first("UseDirectionCosines", "true") == "false":
            raise OutputError(
                f'--transform-name {names.transform.name}: {last_map.name} says (UseDirectionCosines "false"), which '
                "other files than its own cannot tell: use impactreg convert-transform with both images afterwards"
            )
        return names

    @classmethod
    def of(cls, image: str | None, transform: str | None, folder: Path, images: Mapping[str, str]) -> "Names":
        """The names that templates make of the names of the `fixed` and the `moving` image.

        Raises `UsageError` for a template that cannot be filled, an ending of no kind of file, one name for both, or a
        name that the registration itself gives.
        """
        from impactreg.components.transforms.writing import ENDINGS

        # Learn2Reg's fields need the moving image's grid, too
        fitting = tuple(each for each in ENDINGS if each != ".npz")
        made = [None if t is None else folder / filled(t, images) for t in (image, transform)]
        for path, endings, flag in zip(made, (IMAGE_ENDINGS, fitting), ("image", "transform"), strict=True):
            if path is not None and not path.name.endswith(endings):
                raise UsageError(f"--{flag}-name {path.name}: a name is needed that ends in {', '.join(endings)}")
            if path is not None and path.parent == folder and OWN.fullmatch(path.name):
                raise UsageError(f"--{flag}-name {path.name}: the registration has a file of this name: choose another")
        if made[0] is not None and made[0] == made[1]:
            raise UsageError(f"--image-name and --transform-name: {made[0].name} cannot be both: choose another name")
        return cls(*made)

    def write(self, result: "Result", last_map: "ParameterMap") -> None:
        """Writes what is asked for; raises `OutputError` or `TransformError`."""
        from impactreg.components.resampling import grid_of
        from impactreg.components.transforms.writing import write_transform
        from impactreg.images import write_image
        from impactreg.registration.results import prepare_directory

        if self.image is not None and result.image is not None:
            prepare_directory(self.image.parent)
            write_image(result.image, self.image, pixel_type=last_map.first("ResultImagePixelType", "short"))
        if self.transform is not None:
            prepare_directory(self.transform.parent)
            write_transform(result.transform, self.transform, fixed=grid_of(result.transform_parameter_maps[-1]))


def filled(template: str, images: Mapping[str, str]) -> str:
    """A template with the names of the images put in; raises `UsageError` for a field that there is not."""
    rest = FIELD.sub("", template)
    if "{" in rest or "}" in rest:
        raise UsageError(f"{template}: there are {{fixed}}, {{moving}} and parts such as {{moving[sub]}}")
    name = FIELD.sub(lambda field: _value(field, images, template), template)
    if not name or name.startswith("/") or ".." in name.split("/"):
        raise UsageError(f"{template}: a name inside the output folder is needed")
    return name


def _value(field: re.Match[str], images: Mapping[str, str], template: str) -> str:
    name = _stem(images[field["image"]])
    if field["entity"] is None:
        return name
    parts = dict(part.split("-", 1) for part in name.split("_") if "-" in part)
    parts["suffix"] = name.rpartition("_")[2]
    if field["entity"] not in parts:
        known = ", ".join(parts)
        raise UsageError(f"{template}: the name {name} has no {field['entity']}-; its parts are {known}")
    return parts[field["entity"]]


def _stem(file: str) -> str:
    """The name of a file or folder without its ending."""
    name = Path(file).name or Path(file).resolve().name
    ending = next((e for e in IMAGE_ENDINGS if name.lower().endswith(e)), Path(name).suffix)
    return name[: len(name) - len(ending)]
