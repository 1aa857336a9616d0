import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.functional import (
    gemm_problem,
    run_gemm,
    run_gemm_transposed,
    run_gemv,
    simulate,
)
from lapidist.hardware.wafer.gemm_algorithms import GEMM_ALGORITHMS
from lapidist.hardware.wafer.gemv_algorithms import ALLREDUCE_ALGORITHMS
from lapidist.hardware.wafer.mesh import Mesh

WSE2 = load_device("wse-2").with_values("5-bit addresses, arXiv 2502.04563", colours=32)
ROOMY = WSE2.with_values("test of numerics only", memory_bytes_per_core=1 << 24)


def integers(*shape: int, seed: int = 0, kind: type = np.float64) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(kind)


@pytest.mark.parametrize("cores", range(1, 17))
@pytest.mark.parametrize("shape", [(32, 32, 32), (17, 50, 23), (3, 5, 70)])
def test_meshgemm_is_exact_on_integers(cores: int, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = integers(m, k), integers(k, n, seed=1)
    mesh = Mesh(WSE2, cores, cores)
    assert np.array_equal(run_gemm(mesh, "meshgemm", a, b).output, a @ b)
    half = run_gemm(mesh, "meshgemm", a.astype(np.float16), b.astype(np.float16), np.float16)
    assert half.output.dtype == np.float16
    assert np.array_equal(half.output, (a @ b).astype(np.float16)), "sums stay below 2048 here"


@pytest.mark.parametrize("mesh", [(2, 3), (3, 4), (4, 6), (5, 7), (6, 2), (1, 5), (4, 1)], ids=str)
@pytest.mark.parametrize("algorithm", GEMM_ALGORITHMS)
def test_every_algorithm_on_meshes_that_are_not_square(mesh: tuple[int, int], algorithm: str) -> None:
    a, b = integers(29, 41), integers(41, 13, seed=1)
    assert np.array_equal(run_gemm(Mesh(WSE2, *mesh), algorithm, a, b).output, a @ b)
    assert np.array_equal(run_gemm_transposed(Mesh(WSE2, *mesh), a, b.T.copy()).output, a @ b)


@pytest.mark.parametrize("cores", range(2, 14))
@pytest.mark.parametrize("algorithm", GEMM_ALGORITHMS)
def test_baselines_are_exact(cores: int, algorithm: str) -> None:
    a, b = integers(26, 31), integers(31, 40, seed=1)
    assert np.array_equal(run_gemm(Mesh(WSE2, cores, cores), algorithm, a, b).output, a @ b)


@given(
    mesh=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40)),
    algorithm=st.sampled_from(GEMM_ALGORITHMS),
)
@settings(max_examples=60, deadline=None)
def test_any_shape_on_any_mesh(mesh: tuple[int, int], shape: tuple[int, int, int], algorithm: str) -> None:
    m, k, n = shape
    a, b = integers(m, k, kind=np.int64), integers(k, n, seed=1, kind=np.int64)
    assert np.array_equal(run_gemm(Mesh(ROOMY, *mesh), algorithm, a, b).output, a @ b)
    assert np.array_equal(run_gemm_transposed(Mesh(ROOMY, *mesh), a, b.T.copy()).output, a @ b)


@pytest.mark.parametrize("cores", range(3, 14))
def test_meshgemm_transposed_is_exact_and_in_natural_order(cores: int) -> None:
    side = 2 * cores
    q, k = integers(side, 3 * cores), integers(side, 3 * cores, seed=1)
    result = run_gemm_transposed(Mesh(WSE2, cores, cores), q, k)
    expected = q @ k.T
    assert np.array_equal(result.output, expected)
    for row in range(cores):
        for col in range(cores):
            assert np.array_equal(
                result.tiles[row, col], expected[2 * row : 2 * row + 2, 2 * col : 2 * col + 2]
            )


def test_long_contractions_in_half_and_single_precision() -> None:
    rng = np.random.default_rng(0)
    a = rng.standard_normal((24, 4096)) / 64
    b = rng.standard_normal((4096, 24))
    mesh = Mesh(ROOMY, 8, 8)
    exact = a.astype(np.float16).astype(np.float64) @ b.astype(np.float16).astype(np.float64)
    scale = np.abs(exact).max()

    half = run_gemm(mesh, "meshgemm", a.astype(np.float16), b.astype(np.float16), np.float16).output
    mixed = run_gemm(mesh, "meshgemm", a.astype(np.float16), b.astype(np.float16), np.float32).output
    single = run_gemm(mesh, "meshgemm", a.astype(np.float32), b.astype(np.float32)).output
    assert np.allclose(half, exact, rtol=1e-2, atol=1e-2 * scale)
    assert np.allclose(mixed, exact, rtol=1e-3, atol=1e-6 * scale)
    assert np.allclose(single, a @ b, rtol=1e-3, atol=1e-5 * scale)
    assert np.abs(half - exact).max() > 10 * np.abs(mixed - exact).max(), "fp16 sums are really rounded"


@pytest.mark.parametrize("algorithm", ALLREDUCE_ALGORITHMS)
@pytest.mark.parametrize("phases", [1, 2, 3])
@pytest.mark.parametrize("contract", ["y", "x"])
@pytest.mark.parametrize("mesh", [(4, 4), (9, 5), (5, 9), (1, 3), (13, 13)], ids=str)
def test_gemv_is_exact_on_every_core(
    algorithm: str, phases: int, contract: str, mesh: tuple[int, int]
) -> None:
    x, w = integers(3, 37), integers(37, 50, seed=1)
    result = run_gemv(Mesh(WSE2, *mesh), x, w, algorithm, phases, contract=contract)
    assert np.array_equal(result.output, x @ w)
    axis = 0 if contract == "y" else 1
    assert np.all(result.tiles == result.tiles.take([0], axis=axis))


@pytest.mark.parametrize("cores", range(4, 65))
def test_two_tree_with_every_number_of_groups(cores: int) -> None:
    x, w = integers(1, cores), integers(cores, 3, seed=1)
    for groups in (g for g in range(1, cores + 1) if cores % g == 0):
        result = run_gemv(Mesh(WSE2, cores, 3), x, w, groups=groups)
        assert np.all(result.tiles[:, :, 0, 0] == (x @ w)[0])
        assert result.summary.stages == cores // groups // 2 + groups // 2


def test_layouts_alternate_so_two_products_need_no_transpose() -> None:
    x, first, second = integers(1, 12), integers(12, 20, seed=1), integers(20, 12, seed=2)
    mesh = Mesh(WSE2, 4, 4)
    between = run_gemv(mesh, x, first, contract="y")
    after = run_gemv(mesh, between.output, second, contract="x")
    assert np.array_equal(after.output, x @ first @ second)
    assert np.array_equal(between.tiles[0, :, 0].reshape(-1), (x @ first)[0]), "split over x as the next x is"


def test_a_problem_that_does_not_fit_is_refused() -> None:
    a = np.zeros((1024, 1024), np.float16)
    with pytest.raises(ValueError, match=r"needs \d+ bytes on core"):
        run_gemm(Mesh(WSE2, 4, 4), "meshgemm", a, a)
    with pytest.raises(ValueError, match="routes on core"):
        run_gemm(Mesh(WSE2, 20, 20), "summa", a[:40, :40], a[:40, :40])
    assert (
        run_gemm(Mesh(WSE2, 20, 20), "summa", a[:40, :40], a[:40, :40], refuse_routes=False).output.any() == 0
    )


@pytest.mark.parametrize("algorithm", GEMM_ALGORITHMS)
def test_a_problem_can_be_simulated_again(algorithm: str) -> None:
    problem = gemm_problem(4, 4, algorithm, integers(9, 8), integers(8, 7, seed=1))
    before = {name: tile.copy() for name, tile in problem.tiles.items()}
    first, second = (simulate(Mesh(WSE2, 4, 4), problem) for _ in range(2))
    assert np.array_equal(first.output, second.output)
    assert all(np.array_equal(tile, before[name]) for name, tile in problem.tiles.items())


def test_wrong_factors() -> None:
    a = np.zeros((4, 5), np.float32)
    with pytest.raises(ValueError, match=r"shapes \(4, 5\) and \(4, 5\) do not fit"):
        run_gemm(Mesh(WSE2, 2, 2), "meshgemm", a, a)
    with pytest.raises(ValueError, match="one numeric type"):
        run_gemm(Mesh(WSE2, 2, 2), "meshgemm", a, a.T.astype(np.float64))
