"""Dispatch tables: look-up, shapes that were not measured, what can be run."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lapidist.kernels.dispatch import (
    DEFAULT_INFLECTIONS,
    DispatchTable,
    Implementation,
    Inflections,
    Picker,
    WeightShape,
)

BF16, FP32 = torch.bfloat16, torch.float32
NAMES = ("gemv", "flat", "library")
MEASURED: Inflections = ((1, "flat"), (7, "library"), (20, "gemv"), (30, "library"))


def run(x: Tensor, weight: Tensor, out: Tensor) -> None:
    torch.mm(x, weight.T, out=out)


GEMV, FLAT, LIBRARY = (
    Implementation("gemv", run, max_rows=4),
    Implementation("flat", run, max_rows=64, dtypes=frozenset({FP32, BF16})),
    Implementation("library", run),
)
ALL = (GEMV, FLAT, LIBRARY)


@st.composite
def inflections(draw: st.DrawFn) -> Inflections:
    later = draw(st.sets(st.integers(2, 100), max_size=5))
    return tuple((start, draw(st.sampled_from(NAMES))) for start in (1, *sorted(later)))


@given(inflections(), st.integers(0, 5000))
def test_a_picker_reads_off_the_last_piece_that_has_begun(pieces: Inflections, rows: int) -> None:
    begun = [name for start, name in pieces if start <= max(1, rows)]
    assert Picker(pieces)(rows) == begun[-1]
    assert Picker(pieces).pieces == pieces


def test_measured_shapes_are_looked_up() -> None:
    table = DispatchTable({WeightShape(64, 32, BF16): MEASURED})
    picked = [table.pick(64, 32, BF16, m) for m in (1, 6, 7, 19, 20, 29, 30, 10**6)]
    assert picked == ["flat", "flat", "library", "library", "gemv", "gemv", "library", "library"]


def test_an_unmeasured_shape_uses_the_nearest_of_its_dtype() -> None:
    wide, tall = ((1, "gemv"), (2, "library")), ((1, "library"),)
    table = DispatchTable({WeightShape(8192, 2048, BF16): wide, WeightShape(2048, 8192, BF16): tall})
    assert table.pick(6000, 2048, BF16, 1) == "gemv"
    assert table.pick(2048, 6000, BF16, 1) == "library"
    assert table.picker(2048, 6000, FP32).pieces == DEFAULT_INFLECTIONS, "nothing of that dtype"


def test_nearness_is_in_ratios_and_ties_do_not_depend_on_the_order() -> None:
    small, large = WeightShape(100, 100, BF16), WeightShape(1600, 100, BF16)
    entries = {small: ((1, "gemv"),), large: ((1, "flat"),)}
    assert DispatchTable(entries).pick(500, 100, BF16, 1) == "flat", "5 times 100, but a third of 1600"
    backwards = dict(reversed(entries.items()))
    assert DispatchTable(entries).pick(400, 100, BF16, 1) == "gemv"
    assert DispatchTable(backwards).pick(400, 100, BF16, 1) == "gemv"


def test_the_default_table_is_a_parameter() -> None:
    assert DispatchTable().picker(10, 10, FP32).pieces == DEFAULT_INFLECTIONS
    assert DispatchTable(default=((1, "library"),)).pick(10, 10, FP32, 1) == "library"


@pytest.mark.parametrize(
    "broken", [(), ((2, "gemv"),), ((1, "gemv"), (1, "flat")), ((1, "a"), (5, "b"), (4, "c"))]
)
def test_pieces_must_cover_every_number_of_rows(broken: Inflections) -> None:
    with pytest.raises(ValueError, match="begin at 1 and increase"):
        DispatchTable({WeightShape(1, 1, FP32): broken})


def test_a_weight_has_a_size() -> None:
    with pytest.raises(ValueError, match="positive"):
        WeightShape(0, 5, FP32)
    assert str(WeightShape(3, 5, BF16)) == "[3, 5] bfloat16"
    assert WeightShape(3, 5, BF16).bytes_moved(2) == 2 * (15 + 2 * 8)


def test_merging_keeps_other_shapes_and_prefers_the_newer() -> None:
    one, other = WeightShape(1, 1, FP32), WeightShape(2, 2, FP32)
    older = DispatchTable({one: ((1, "gemv"),), other: ((1, "gemv"),)})
    merged = older.merged(DispatchTable({other: ((1, "flat"),)}))
    assert merged.entries == {one: ((1, "gemv"),), other: ((1, "flat"),)}


@given(inflections(), st.sampled_from([FP32, BF16, torch.float16]), st.integers(1, 200))
def test_what_is_bound_can_run_and_is_the_pick_where_that_can(
    pieces: Inflections, dtype: torch.dtype, rows: int
) -> None:
    table = DispatchTable({WeightShape(64, 32, dtype): pieces})
    found = table.bind(ALL, 64, 32, dtype)(rows)
    assert found.takes(dtype, rows)
    picked = next(each for each in ALL if each.name == table.pick(64, 32, dtype, rows))
    assert found == (picked if picked.takes(dtype, rows) else LIBRARY)


def test_a_table_may_name_what_this_build_lacks() -> None:
    table = DispatchTable({WeightShape(64, 32, FP32): ((1, "tensor_core"), (3, "gemv"))})
    assert table.bind(ALL, 64, 32, FP32).pieces == ((1, LIBRARY), (3, GEMV), (5, LIBRARY))
    assert table.bind((LIBRARY,), 64, 32, FP32).pieces == ((1, LIBRARY),)
    with pytest.raises(ValueError, match="any number of rows"):
        table.bind((GEMV,), 64, 32, FP32)


def test_bound_implementations_multiply() -> None:
    x, weight = torch.randn(3, 32), torch.randn(64, 32)
    out = torch.empty(3, 64)
    DispatchTable().bind(ALL, 64, 32, FP32)(3).run(x, weight, out)
    assert torch.equal(out, x @ weight.T)
