"""Descriptions run on real processes, one a core, and compared with the simulation: same numbers, same bytes."""

import multiprocessing
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.distributed import MeshRank
from lapidist.hardware.wafer.functional import (
    Problem,
    gemm_problem,
    gemm_transposed_problem,
    gemv_problem,
    simulate,
)
from lapidist.hardware.wafer.mesh import Mesh
from lapidist.hardware.wafer.steps import Pointwise

WSE2 = load_device("wse-2")
LIMIT_SECONDS = 120


def factor(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(np.float32)


def problems(rows: int, cols: int) -> dict[str, tuple[Problem, np.ndarray]]:
    """Placed products by name, with what they should give."""
    a, b = factor(11, 16, seed=0), factor(16, 7, seed=1)
    found = {
        algorithm: (gemm_problem(rows, cols, algorithm, a, b), a @ b)
        for algorithm in ("meshgemm", "cannon", "summa", "allgather")
    }
    found["meshgemm-t"] = (gemm_transposed_problem(rows, cols, a, b.T.copy()), a @ b)
    for phases in (1, 2, 3):
        for contract in ("x", "y"):
            problem = gemv_problem(rows, cols, a[:2], b, "ktree", phases, contract=contract)
            found[f"ktree {phases} {contract}"] = (problem, a[:2] @ b)
    for algorithm in ("pipeline", "ring"):
        found[algorithm] = (gemv_problem(rows, cols, a[:2], b, algorithm), a[:2] @ b)
    return found


def be_a_core(rank: int, rows: int, cols: int, folder: Path) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=rows * cols)
    outcome = {}
    for name, (problem, _) in problems(rows, cols).items():
        core = MeshRank(rows, cols, problem.tiles)
        core.run(problem.description)
        outcome[name] = (core.gather(problem.output), core.sent_bytes, core.received_bytes)
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(outcome))
    dist.destroy_process_group()


def run_on_ranks(rows: int, cols: int, folder: Path) -> list[dict[str, tuple]]:
    context = multiprocessing.get_context("fork")
    ranks = [
        context.Process(target=be_a_core, args=(rank, rows, cols, folder)) for rank in range(rows * cols)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(LIMIT_SECONDS)
    try:
        assert [process.exitcode for process in ranks] == [0] * len(ranks)
    finally:
        for process in ranks:
            process.kill()
    return [pickle.loads((folder / f"{rank}.pickle").read_bytes()) for rank in range(rows * cols)]


@pytest.mark.parametrize("mesh", [(3, 3), (2, 4)], ids=str)
def test_ranks_give_the_simulated_numbers_and_move_the_simulated_bytes(
    mesh: tuple[int, int], tmp_path: Path
) -> None:
    outcomes = run_on_ranks(*mesh, tmp_path)
    for name, (problem, expected) in problems(*mesh).items():
        simulated = simulate(Mesh(WSE2, *mesh), problem)
        tiles = outcomes[0][name][0]
        assert np.array_equal(tiles, simulated.tiles), name
        assert np.array_equal(problem.collect(tiles), expected), name
        sent = np.array([outcome[name][1] for outcome in outcomes]).reshape(mesh)
        received = np.array([outcome[name][2] for outcome in outcomes]).reshape(mesh)
        assert np.array_equal(sent, simulated.traffic.sent), name
        assert np.array_equal(received, simulated.traffic.received), name
        assert received.sum() > 0


@pytest.fixture
def lone_rank(tmp_path: Path):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("lone_rank")
def test_wrong_worlds_and_steps() -> None:
    with pytest.raises(ValueError, match="2 x 2 cores needs 4 ranks, there are 1"):
        MeshRank(2, 2, {})
    program = Description("p", 1, 1, {}, (Pointwise("add", (), (), 1),))
    with pytest.raises(ValueError, match="not Pointwise"):
        MeshRank(1, 1, {}).run(program)


@pytest.mark.usefixtures("lone_rank")
def test_one_core_needs_nobody() -> None:
    a, b = factor(5, 6, seed=0), factor(6, 4, seed=1)
    problem = gemm_problem(1, 1, "meshgemm", a, b)
    core = MeshRank(1, 1, problem.tiles, accumulator=torch.float64)
    core.run(problem.description)
    assert core.sent_bytes == core.received_bytes == 0
    assert core.tiles["c"].dtype == torch.float64
    assert np.array_equal(problem.collect(core.gather("c")), a @ b)


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 4, reason="needs four GPUs")
def test_ranks_on_gpus_by_nccl(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ranks = [context.Process(target=be_a_gpu, args=(rank, tmp_path)) for rank in range(4)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(LIMIT_SECONDS)
    assert [process.exitcode for process in ranks] == [0] * 4


def be_a_gpu(rank: int, folder: Path) -> None:
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", f"file://{folder}/store", rank=rank, world_size=4)
    for problem, expected in problems(2, 2).values():
        core = MeshRank(2, 2, problem.tiles, device=f"cuda:{rank}")
        core.run(problem.description)
        simulated = simulate(Mesh(WSE2, 2, 2), problem).traffic
        assert core.sent_bytes == simulated.sent[divmod(rank, 2)]
        assert core.received_bytes == simulated.received[divmod(rank, 2)]
        tiles = core.gather(problem.output)
        assert tiles is None or np.array_equal(problem.collect(tiles), expected)
    dist.destroy_process_group()
