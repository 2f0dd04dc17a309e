"""Roundings and roots of few numbers."""

import torch

from impactreg.images import quick

NUMBERS = torch.linspace(-7, 9, 4001, dtype=torch.float64)


def test_floors_are_those_of_torch_at_whole_numbers_too():
    whole = torch.arange(-5, 6, dtype=torch.float64)
    near = torch.cat([whole, whole + 1e-15, whole - 1e-15, NUMBERS])
    assert torch.equal(quick.floor(near), torch.floor(near))
    assert torch.equal(quick.floor(near.float()), torch.floor(near.float()))


def test_exponentials_and_logarithms_are_those_of_torch():
    torch.testing.assert_close(quick.exp(NUMBERS), torch.exp(NUMBERS), rtol=1e-14, atol=0)
    positive = NUMBERS.abs() + 1e-9
    torch.testing.assert_close(quick.log(positive), torch.log(positive), rtol=1e-15, atol=1e-15)
