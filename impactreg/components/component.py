"""Component: a class that a parameter file chooses by name, and the database of all of them.

A class that names its `kind` opens a room: `class Metric(Component, kind="Metric")`. A class that gives a `name` moves
in: `class Impact(Metric, name="Impact")`. This mirrors elastix's component database (`elx::ComponentDatabase`).
Packages add their own through the entry-point group `impactreg.components`.
"""

import difflib
from functools import cache
from importlib.metadata import entry_points
from typing import ClassVar, Self, cast

from impactreg.errors import ParameterError
from impactreg.parameters import Settings

AnySettings = Settings
"""The settings of some component, for signatures inside classes whose own `Settings` hides the name."""

_database: dict[str, dict[str, "type[Component]"]] = {}


class NoSettings(Settings):
    """The settings of a component that has none."""


class Component:
    """A choice of a parameter file. Subclasses give a `kind` (abstract) or a `name`, a string or a tuple of them
    (final).
    """

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = ()
    Settings: ClassVar[type[Settings]] = NoSettings
    needs_points: ClassVar[tuple[str, ...]] = ()
    """Of which images it needs landmarks: "fixed", "moving"."""

    def __init_subclass__(cls, *, kind: str = "", name: str | tuple[str, ...] = (), **rest: object) -> None:
        super().__init_subclass__(**rest)
        if kind:
            cls.kind = kind
            _database.setdefault(kind, {})
        cls.names = (name,) if isinstance(name, str) else name
        for one in cls.names:
            taken = _database[cls.kind].setdefault(one, cls)
            if taken is not cls:
                raise TypeError(f"the {cls.kind} name {one!r} of {cls.__qualname__} is taken by {taken.__qualname__}")

    @classmethod
    def named(cls, name: str, where: str = "") -> type[Self]:
        """The component of this kind that a parameter file calls `name`.

        Raises `ParameterError`, with `where` (file:line) in front and the nearest known name behind, when there is
        none.
        """
        known = available(cls.kind)
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"
            raise ParameterError(f'{where + ": " if where else ""}({cls.kind} "{name}"): no such {cls.kind}{hint}')
        return cast(type[Self], known[name])


def available(kind: str) -> dict[str, type[Component]]:
    """All components of a kind by name, those of other packages included."""
    _load_entry_points()
    return dict(_database.get(kind, {}))


def kinds() -> tuple[str, ...]:
    """Every kind of component, such as `Metric` and `Transform`."""
    return tuple(_database)


@cache
def _load_entry_points() -> None:
    for entry in entry_points(group="impactreg.components"):
        entry.load()
