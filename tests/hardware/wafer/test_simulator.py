import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lapidist.hardware.wafer.communications import Wave
from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.functional import run_gemm, run_gemm_transposed, run_gemv
from lapidist.hardware.wafer.gemm_algorithms import GEMMShape, mesh_gemm
from lapidist.hardware.wafer.kv_capacity import even_rows
from lapidist.hardware.wafer.line import Line
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.placement import skew_columns, skew_rows, to_tiles
from lapidist.hardware.wafer.ring import ring_order, ring_position
from lapidist.hardware.wafer.simulator import Simulator
from lapidist.hardware.wafer.steps import Pointwise, Reconfigure, Repeat

WSE2 = load_device("wse-2")


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 7, 12])
def test_the_loop_leaves_aligned_tiles_for_the_next_product(cores: int) -> None:
    """Q, K and V share one alignment of the same input, and give the same bits as if each had its own."""
    side = 2 * cores
    x, weights = numbers(side, side), [numbers(side, side, seed=seed) for seed in (1, 2, 3)]
    simulator = Simulator(cores, cores, {"a": to_tiles(x, cores, cores)})
    shape = GEMMShape(side, side, side)
    for first, weight in enumerate(weights):
        simulator.tiles.pop("c", None)
        simulator.tiles["b"] = skew_rows(to_tiles(weight, cores, cores), "interleaved")
        simulator.run(mesh_gemm(shape, cores, cores, aligned=first > 0))
        assert np.array_equal(simulator.tiles["a"], skew_columns(to_tiles(x, cores, cores), "interleaved"))
        assert np.array_equal(simulator.tiles["b"], skew_rows(to_tiles(weight, cores, cores), "interleaved"))
        alone = run_gemm(Mesh(WSE2, cores, cores), "meshgemm", x, weight)
        assert np.array_equal(simulator.tiles["c"], alone.tiles)


@pytest.mark.parametrize("cores", range(3, 14))
def test_root_rule_of_the_transposed_product(cores: int) -> None:
    """WaferLLM's rule for the root column of row ``row`` in step ``step``, and ours."""
    position, order = ring_position("interleaved", cores), ring_order("interleaved", cores)
    for row in range(cores):
        offset = 0 if row == 0 else cores - row // 2 if row % 2 == 0 else (row + 1) // 2
        for step in range(cores):
            o = (offset + step) % cores
            published = 0 if o == 0 else 2 * o - 1 if o <= cores // 2 else 2 * (cores - o)
            assert order[(position[row] - step) % cores] == published


@pytest.mark.parametrize("cores", [3, 4, 8])
def test_bytes_of_meshgemm(cores: int) -> None:
    a, b = numbers(3 * cores, 5 * cores), numbers(5 * cores, 2 * cores)
    result = run_gemm(Mesh(WSE2, cores, cores), "meshgemm", a, b)
    loop = cores * (3 * 5 + 5 * 2) * 8
    turns = np.abs(np.array([-(r // 2) if r % 2 == 0 else (r + 1) // 2 for r in range(cores)]))
    expected = loop + np.repeat(turns[:, None] * 3 * 5 * 8, cores, axis=1)
    assert np.array_equal(result.traffic.sent, expected)
    assert np.array_equal(result.traffic.received, expected)


def test_a_tree_sends_from_everyone_but_the_root_and_everyone_hears_the_sum() -> None:
    result = run_gemv(Mesh(WSE2, 9, 2), numbers(1, 9), numbers(9, 8), groups=3)
    sent, received = result.traffic.sent[:, 0] // 32, result.traffic.received[:, 0] // 32
    root = 4
    assert sent.tolist() == [2 if row == root else 1 for row in range(9)]
    assert received.sum() == 8 + 8


def test_chains_of_the_transposed_product_send_once_a_step_except_roots() -> None:
    cores = 5
    result = run_gemm_transposed(Mesh(WSE2, cores, cores), numbers(cores, cores), numbers(cores, cores))
    ring = cores * 8
    chains = result.traffic.sent - ring
    assert chains.sum() == cores * cores * (cores - 1) * 8
    assert np.all(chains.sum(axis=0) == cores * (cores - 1) * 8), "each column is the root once for each row"
    assert result.traffic.sent.sum() == result.traffic.received.sum()


@given(rows=st.integers(1, 9), first=st.integers(0, 30), added=st.integers(1, 40))
def test_waves_keep_order_and_balance_and_go_one_hop(rows: int, first: int, added: int) -> None:
    """Tokens are numbered; the bottom row gets each new one after a wave has passed."""
    capacity = -(-(first + added) // rows)
    held = even_rows(first, rows)
    tokens = np.full((rows, 1, 1, capacity, 1), -1.0)
    starts = np.cumsum(held) - held
    for row in range(rows):
        tokens[row, 0, 0, : held[row], 0] = starts[row] + np.arange(held[row])
    simulator = Simulator(rows, 1, {"k": tokens, "held": held[:, None, None].copy()})
    wave = Wave(("k",), "held", 1, Line("y", rows))
    for token in range(first, first + added):
        before = simulator.traffic.sent.copy(), simulator.traffic.received.copy()
        simulator.run_step(wave)
        sent = (simulator.traffic.sent - before[0])[:, 0]
        received = (simulator.traffic.received - before[1])[:, 0]
        assert sent[1:].tolist() == received[:-1].tolist(), "what a row sends, the row above receives"
        assert sent[0] == received[-1] == 0
        assert set(sent.tolist()) <= {0, 8}, "one entry of eight bytes at most"
        occupancy = simulator.tiles["held"][:, 0, 0]
        simulator.tiles["k"][-1, 0, 0, occupancy[-1], 0] = token
        occupancy[-1] += 1
        assert occupancy.max() - occupancy.min() <= 1
        kept = [simulator.tiles["k"][row, 0, 0, : occupancy[row], 0] for row in range(rows)]
        assert np.concatenate(kept).tolist() == list(range(token + 1))


def test_a_wave_into_a_full_row_is_refused() -> None:
    tiles = {"k": np.zeros((2, 1, 1, 3, 1)), "held": np.full((2, 1, 1), 3)}
    with pytest.raises(ValueError, match="row 0 of the KV cache is full with 3 tokens"):
        Simulator(2, 1, tiles).run_step(Wave(("k",), "held", 1, Line("y", 2)))


def test_pointwise_steps_run_what_they_are_told() -> None:
    step = Pointwise("double", ("v",), ("v",), 1)
    program = Description("twice", 2, 2, {}, (Repeat(2, (step,)),))
    simulator = Simulator(2, 2, {"v": np.ones((2, 2, 1))}, {"double": lambda v: 2 * v})
    simulator.run(program)
    assert np.all(simulator.tiles["v"] == 4)


def test_another_mesh_is_refused() -> None:
    with pytest.raises(ValueError, match="described for 3 x 3"):
        Simulator(2, 2, {}).run(mesh_gemm(GEMMShape(3, 3, 3), 3, 3))


def test_unknown_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="knows no step of the kind Reconfigure"):
        Simulator(2, 2, {}).run_step(Reconfigure())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="was not told what 'halve' computes"):
        Simulator(2, 2, {}).run_step(Pointwise("halve", (), (), 1))


def test_sequences_without_a_new_token_do_not_move() -> None:
    tokens = np.arange(3 * 2 * 4, dtype=float).reshape(3, 1, 2, 4, 1)
    held = np.tile(np.array([1, 1, 1])[:, None, None], (1, 1, 2))
    before = tokens.copy()
    simulator = Simulator(3, 1, {"k": tokens, "held": held, "new": np.array([[[0, 1]]] * 3)})
    simulator.run_step(Wave(("k",), "held", 1, Line("y", 3), "new"))
    assert simulator.tiles["held"][:, 0].tolist() == [[1, 2], [1, 1], [1, 0]]
    assert np.array_equal(simulator.tiles["k"][:, :, 0], before[:, :, 0])
    assert simulator.tiles["k"][0, 0, 1, :2, 0].tolist() == [before[0, 0, 1, 0, 0], before[1, 0, 1, 0, 0]]
    assert simulator.traffic.sent[:, 0].tolist() == [0, 8, 8]
