"""Hadamard matrices: plus and minus ones whose rows are orthogonal, so that over ``sqrt(order)`` they rotate."""

import math
from collections.abc import Iterator
from itertools import count, product

import torch
from torch import Tensor


def hadamard_matrix(order: int) -> Tensor:
    """int8 ``[order, order]`` of plus and minus ones with ``H H^T = order * I``, always the same one.

    A Kronecker product of Sylvester's matrix, of a power of two, with the smallest matrix of Paley (1933) that will do.

    Raises
    ------
    ValueError : the order is not supported.
    """
    base = _base_order(order)
    if base is None:
        below, above = _nearest(range(order - 1, 0, -1)), _nearest(count(max(order, 0) + 1))
        raise ValueError(
            f"no Hadamard matrix of order {order} is known here (the nearest orders are {below} and {above}): "
            "leave this rotation out of the recipe"
        )
    return torch.kron(_sylvester(order // base), _paley(base))


def supported(order: int) -> bool:
    """Whether ``hadamard_matrix`` has this order."""
    return _base_order(order) is not None


def apply_hadamard(x: Tensor, dim: int = -1) -> Tensor:
    """Each vector of ``x`` along ``dim``, a row, times ``hadamard_matrix / sqrt(order)``, in the dtype of ``x``.

    The matrix is split into the Kronecker product of two small ones, which takes ``2 sqrt(order)`` operations an
    element in two matrix products: faster than butterflies, whose passes over memory are many.

    Raises
    ------
    ValueError : the order, the size of ``dim``, is not supported.
    """
    order = x.shape[dim]
    base = _base_order(order) or order
    outer = min(_powers_of_two(order // base), key=lambda power: power + order // power)
    left, right = (hadamard_matrix(size).to(x) for size in (outer, order // outer))
    rows = x.movedim(dim, -1)
    rotated = left @ (rows.reshape(-1, outer, order // outer) @ right) / math.sqrt(order)
    return rotated.reshape(rows.shape).movedim(-1, dim).contiguous()


def _nearest(orders: Iterator[int] | range) -> int | None:
    return next(filter(supported, orders), None)


def _powers_of_two(largest: int) -> list[int]:
    return [1 << exponent for exponent in range(largest.bit_length())]


def _base_order(order: int) -> int | None:
    """The smallest order, one or Paley's, that gives ``order`` times a power of two."""
    if order < 1:
        return None
    base = order // (order & -order)
    while base <= order:
        if base == 1 or _paley_field(base):
            return base
        base *= 2
    return None


def _sylvester(order: int) -> Tensor:
    matrix, doubled = torch.ones(1, 1, dtype=torch.int8), torch.tensor([[1, 1], [1, -1]], dtype=torch.int8)
    while len(matrix) < order:
        matrix = torch.kron(matrix, doubled)
    return matrix


def _paley_field(order: int) -> tuple[int, int] | None:
    """Prime and exponent of the size of the finite field that gives a matrix of this order."""
    if order % 4:
        return None
    first = _prime_power(order - 1)
    return first or (_prime_power(order // 2 - 1) if order % 8 == 4 else None)


def _prime_power(number: int) -> tuple[int, int] | None:
    """Prime and exponent, None for other numbers."""
    if number < 2:
        return None
    prime = next((factor for factor in range(2, math.isqrt(number) + 1) if number % factor == 0), number)
    exponent = round(math.log(number, prime))
    return (prime, exponent) if prime**exponent == number else None


def _paley(order: int) -> Tensor:
    """Paley's first construction where ``order - 1`` is a prime power, else his second."""
    field = _paley_field(order)
    if field is None:
        return torch.ones(1, 1, dtype=torch.int8)
    residues = _differences_residues(*field)
    size = len(residues) + 1
    # A conference matrix: zero diagonal, orthogonal rows. Skew in the first construction, symmetric in the second.
    conference = torch.zeros(size, size, dtype=torch.int8)
    conference[0, 1:] = 1
    conference[1:, 0] = residues[0, 1] * residues[1, 0]
    conference[1:, 1:] = residues
    identity = torch.eye(size, dtype=torch.int8)
    if size == order:
        return conference + identity
    plus, minus = (torch.tensor(rows, dtype=torch.int8) for rows in ([[1, 1], [1, -1]], [[1, -1], [-1, -1]]))
    return torch.kron(conference, plus) + torch.kron(identity, minus)


def _differences_residues(prime: int, exponent: int) -> Tensor:
    """int8: of each two elements of the field, 1 if their difference is a square, -1 if not, 0 if it is zero."""
    size = prime**exponent
    place_values = prime ** torch.arange(exponent)
    digits = torch.arange(size)[:, None] // place_values % prime
    differences = ((digits[:, None] - digits) % prime * place_values).sum(-1)
    character = torch.zeros(size, dtype=torch.int8)
    powers = (torch.tensor(_generated(prime, exponent)) * place_values).sum(-1)
    character[powers[::2]], character[powers[1::2]] = 1, -1
    return character[differences]


def _generated(prime: int, exponent: int) -> list[tuple[int, ...]]:
    """All elements of the field but zero, as the powers of one of them, which makes squares those at even places.

    Elements are polynomials in ``x``, lowest coefficient first. Polynomials that ``x ** exponent`` may stand for are
    tried until the powers of ``x`` take all values.
    """
    one = (1,) + (0,) * (exponent - 1)
    for reduced in product(range(1, prime), *[range(prime)] * (exponent - 1)):
        powers = [one]
        while len(powers) < prime**exponent:
            carry, shifted = powers[-1][-1], (0, *powers[-1][:-1])
            following = tuple(
                (low + carry * high) % prime for low, high in zip(shifted, reduced, strict=True)
            )
            if following == one:
                break
            powers.append(following)
        if len(powers) == prime**exponent - 1:
            return powers
    raise AssertionError("every finite field has a generator")
