"""Which displacements a coarse registration tries."""

from impactreg.components.dense.search import Search


def test_equal_spacings_give_the_same_cells_and_window_along_every_axis() -> None:
    search = Search.of((2.0, 2.0, 2.0), 4, 3)
    assert (search.cell, search.half_width, search.stretch) == ((4, 4, 4), (3, 3, 3), (1.0, 1.0, 1.0))
    assert search.count == 343


def test_thick_slices_give_cells_of_fewer_voxels_that_reach_as_far() -> None:
    search = Search.of((1.0, 1.0, 3.0), 4, 3)
    assert search.cell == (1, 4, 4)
    assert search.half_width == (4, 3, 3)
    assert search.stretch == (0.75, 1.0, 1.0)


def test_an_image_in_2d_is_one_plane() -> None:
    search = Search.of((1.0, 1.0), 4, 2)
    assert (search.cell, search.half_width, search.factors) == ((1, 4, 4), (0, 2, 2), (4, 4))
    assert search.count == 25


def test_displacements_are_listed_with_x_fastest() -> None:
    shifts = Search.of((1.0, 1.0, 1.0), 4, 1).shifts()
    assert shifts[:3].tolist() == [[-1, -1, -1], [-1, -1, 0], [-1, -1, 1]]
    assert shifts[13].tolist() == [0, 0, 0]
