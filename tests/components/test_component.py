"""The component database: names in, classes out, and one line where there is none."""

import importlib.metadata

import pytest

from impactreg.components import component as components
from impactreg.components.component import Component, NoSettings, available, kinds
from impactreg.components.interpolators import BSplineInterpolator, Interpolator
from impactreg.components.metrics.metric import Metric
from impactreg.components.transforms.bspline import BSplineTransform
from impactreg.components.transforms.transform import Transform
from impactreg.errors import ParameterError
from impactreg.parameters import Settings


@pytest.fixture
def room(monkeypatch):
    """A kind of its own with one component of two names, gone after the test."""
    monkeypatch.setattr(components, "_database", dict(components._database))

    class Colour(Component, kind="Colour"):
        pass

    class Red(Colour, name=("Red", "Crimson")):
        pass

    return Colour, Red


def test_every_room_is_open():
    assert {"Transform", "Metric", "Optimizer", "ImageSampler", "Interpolator", "ImagePyramid"} <= set(kinds())


@pytest.mark.parametrize("kind", ["Transform", "Metric", "Optimizer", "ImageSampler", "Interpolator", "ImagePyramid"])
def test_every_component_knows_its_kind_its_names_and_its_settings(kind):
    for name, found in available(kind).items():
        assert found.kind == kind
        assert name in found.names
        assert issubclass(found.Settings, Settings)


def test_a_component_is_found_by_each_of_its_names(room):
    colour, red = room
    assert colour.named("Red") is colour.named("Crimson") is red
    assert Transform.named("BSplineTransform") is Transform.named("RecursiveBSplineTransform") is BSplineTransform


def test_a_name_belongs_to_its_kind_alone():
    assert Interpolator.named("BSplineInterpolator") is BSplineInterpolator
    with pytest.raises(ParameterError):
        Metric.named("BSplineInterpolator")


def test_a_component_without_settings_has_empty_ones(room):
    _, red = room
    assert red.Settings is NoSettings


def test_a_wrong_name_is_told_with_its_place_and_the_nearest_name(room):
    colour, _ = room
    with pytest.raises(ParameterError) as error:
        colour.named("Read", "map.txt:7")
    assert str(error.value) == "map.txt:7: (Colour \"Read\"): no such Colour; did you mean 'Red'?"


def test_a_name_that_is_near_to_none_is_told_with_all_there_are(room):
    colour, _ = room
    with pytest.raises(ParameterError) as error:
        colour.named("zzz")
    assert str(error.value) == '(Colour "zzz"): no such Colour; there are Crimson, Red'


def test_a_name_that_is_taken_cannot_be_taken_again(room):
    colour, _ = room
    with pytest.raises(TypeError, match=r"the Colour name 'Red' of .*Scarlet is taken by .*Red"):

        class Scarlet(colour, name="Red"):
            pass


def test_an_abstract_component_has_no_name(room):
    colour, _ = room
    assert colour.names == ()
    assert "Colour" not in available("Colour")


def test_other_packages_add_components_by_an_entry_point(room, monkeypatch):
    colour, _ = room
    asked = []

    class Entry:
        def load(self):
            class Blue(colour, name="Blue"):
                pass

    def entry_points(group):
        asked.append(group)
        return [Entry()]

    monkeypatch.setattr(components, "entry_points", entry_points)
    components._load_entry_points.cache_clear()
    try:
        assert "Blue" in available("Colour")
        assert asked == ["impactreg.components"]
    finally:
        components._load_entry_points.cache_clear()


def test_no_package_in_this_installation_breaks_the_database():
    assert all(e.load() for e in importlib.metadata.entry_points(group="impactreg.components"))
