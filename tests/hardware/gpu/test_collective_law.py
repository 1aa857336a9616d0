import pytest

from lapidist.hardware.gpu.collective_law import CollectiveLaw
from lapidist.hardware.gpu.data_sheet import load_data_sheet
from lapidist.hardware.gpu.stream_law import StreamLaw
from lapidist.workload.operators import Collective, ElementWise, Normalization
from lapidist.workload.tensor_format import TensorFormat

_H200, _L40S = load_data_sheet("h200"), load_data_sheet("l40s")
_BF16 = TensorFormat("bf16")


def _exchange(kind: str, payload: int, ranks: int) -> Collective:
    return Collective(name="x", kind=kind, payload_bytes=payload, ranks=ranks)  # type: ignore[arg-type]


def test_large_exchanges_approach_the_links_bandwidth_and_small_ones_its_latency() -> None:
    law = CollectiveLaw()
    large = _exchange("all_reduce", 1 << 30, 8)
    assert law.seconds(large, _H200) == pytest.approx(
        large.wire_bytes / (_H200.link.bytes_per_second * law.efficiency), rel=0.05
    )
    small = law.seconds(_exchange("all_reduce", 1024, 8), _H200)
    assert law.launch_seconds < small < 10e-6


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather"])
def test_more_bytes_and_a_slower_link_take_longer(kind: str) -> None:
    law = CollectiveLaw()
    times = [law.seconds(_exchange(kind, 1 << bits, 4), _H200) for bits in range(10, 30)]
    assert times == sorted(times)
    assert law.seconds(_exchange(kind, 1 << 20, 4), _L40S) > law.seconds(_exchange(kind, 1 << 20, 4), _H200)


def test_no_exchange_is_faster_than_the_ring_allows() -> None:
    law = CollectiveLaw()
    for ranks in (2, 4, 8):
        for payload in (1 << 12, 1 << 20, 1 << 28):
            exchange = _exchange("all_reduce", payload, ranks)
            assert law.seconds(exchange, _H200) >= exchange.wire_bytes / _H200.link.bytes_per_second / 2


def test_a_single_rank_exchanges_nothing() -> None:
    assert CollectiveLaw().seconds(_exchange("all_reduce", 1 << 20, 1), _H200) == 0.0


def test_streaming_kernels_cost_launch_and_bytes_and_residuals_ride_along() -> None:
    law = StreamLaw()
    norm = Normalization(name="input_norm", rows=1, columns=4096, input=_BF16, output=_BF16)
    assert law.seconds(norm, _H200) == pytest.approx(law.launch_seconds, rel=0.02)
    large = ElementWise(
        name="activation",
        rows=65536,
        columns=16384,
        inputs=2,
        operations_per_element=4,
        input=_BF16,
        output=_BF16,
    )
    floor = large.minimum_bytes / _H200.memory_bytes_per_second
    assert floor < law.seconds(large, _H200) < 1.5 * floor
    residual = ElementWise(
        name="mlp_residual",
        rows=1,
        columns=4096,
        inputs=2,
        operations_per_element=1,
        input=_BF16,
        output=_BF16,
    )
    assert law.seconds(residual, _H200) < law.launch_seconds / 10
