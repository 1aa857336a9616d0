import numpy as np
import pytest

from lapidist.hardware.wafer.device import load_device
from lapidist.hardware.wafer.gemm_algorithms import GEMMShape, allgather_gemm, mesh_gemm, summa
from lapidist.hardware.wafer.mesh import Mesh

WSE2 = load_device("wse-2")


def square(side: int) -> GEMMShape:
    return GEMMShape(side, side, side)


def test_memory_is_refused_with_core_amount_and_limit() -> None:
    mesh = Mesh(WSE2, 64, 64)
    with pytest.raises(ValueError, match=r"needs 163840 bytes on core \(0, 0\).*45056"):
        mesh.admit(mesh_gemm(square(8192), 64, 64))
    assert Mesh(WSE2, 128, 128).admit(mesh_gemm(square(8192), 128, 128)).peak_bytes == 40960


def test_routes_are_refused_with_core_amount_and_limit() -> None:
    mesh = Mesh(WSE2, 16, 16)
    with pytest.raises(ValueError, match=r"needs 32 routes on core \(0, 0\).*24"):
        mesh.admit(summa(square(64), 16, 16))
    with pytest.raises(ValueError, match="routes on core"):
        mesh.admit(allgather_gemm(square(64), 16, 16))
    assert mesh.admit(summa(square(64), 16, 16, reconfigured=True)).paths_per_core == 2
    assert Mesh(WSE2.with_values("5-bit addresses", colours=32), 16, 16).admit(summa(square(64), 16, 16))
    assert mesh.admit(summa(square(64), 16, 16), routes=False)


def test_packets_need_no_routes() -> None:
    device = load_device("blackhole").with_values("what-if", rows=16, cols=16)
    assert Mesh(device, 16, 16).admit(summa(square(64), 16, 16))


def test_one_full_core_is_named() -> None:
    held = np.full((3, 4), 100)
    held[2, 1] = 50000
    with pytest.raises(ValueError, match=r"cache on 3 x 4 cores needs 50000 bytes on core \(2, 1\)"):
        Mesh(WSE2, 3, 4).require_memory(held, "cache")


def test_meshes_that_do_not_exist() -> None:
    with pytest.raises(ValueError, match="does not fit on Cerebras WSE-2, which has 994 x 750"):
        Mesh(WSE2, 751, 751)
    with pytest.raises(ValueError, match="at least one row"):
        Mesh(WSE2, 0, 4)
    with pytest.raises(ValueError, match="described for 4 x 4"):
        Mesh(WSE2, 5, 5).admit(mesh_gemm(square(8), 4, 4))


def test_maps_have_a_value_for_every_core() -> None:
    mesh, description = Mesh(WSE2, 6, 6), mesh_gemm(square(12), 6, 6)
    colours = mesh.colour_map(description)
    assert colours.shape == (6, 6)
    assert colours.max() == description.summary().paths_per_core == 9
    assert colours[0, 0] < colours[3, 3]
    assert np.all(mesh.memory_map(description) == description.summary().peak_bytes)
    traffic = mesh.router_map(description)
    assert traffic.shape == (6, 6)
    assert np.array_equal(traffic, traffic[::-1, ::-1])
