"""How the shipped constants were made: where the fit begins, what is held, what is known beforehand.

WSE-3 is fitted to cycles that others measured with the released kernels. For WSE-2 there are only the paper's Tables 3
and 4, 12 rows each of whole layers, too few to tell constants apart by themselves. The kernels are the same, so each
constant is expected within a factor of about two of its WSE-3 value, or of what the network's rates allow.
"""

from collections.abc import Sequence

from lapidist.hardware.wafer.calibration import Calibration, Measurement, Prior, calibrate
from lapidist.hardware.wafer.cost import CostModel
from lapidist.hardware.wafer.cost_constants import CONSTANT_NAMES
from lapidist.hardware.wafer.first_guess import LINK_BYTES_PER_CYCLE


def fit_wse3(
    gemm: Sequence[Measurement], gemv: Sequence[Measurement], source: str = "calibrated"
) -> tuple[CostModel, Calibration, Calibration]:
    """Constants of a WSE-3 from MeshGEMM and MeshGEMV cycles, and the two fits they come from.

    Tiles of the measured products have sides to 8, one vector of the core: what a multiply-accumulate costs beyond
    that is taken from MeshGEMM for MeshGEMV too. Element-wise work was not measured; its constant is WSE-2's.
    """
    products = calibrate(gemm, source=f"{source}, MeshGEMM")
    known = products.model.constants
    start = CostModel(
        known.with_values({"gemv_mac": known.fma_mac}, "as fma_mac"), products.model.link_bytes_per_cycle
    )
    vectors = calibrate(gemv, start, fixed=("gemv_mac",), source=f"{source}, MeshGEMV")
    return vectors.model, products, vectors


# Of the WSE-2 and its network, known beforehand (arXiv 2404.15888; arXiv 2502.04563, section 2): one cycle a hop, two
# fp16 numbers fetched, multiplied and sent a cycle.
_WSE2_KNOWN = {"hop": 1.0, "fma_mac": 0.5, "gemv_mac": 0.5, "pass_element": 0.5}
# All other constants are taken to lie within a factor of about two; a stage is software of another kernel.
_DEVIATIONS = {"stage": 1.0}
_PREFILL = ("step", "k_iteration", "fma_call", "fma_mac", "moved_element")
_DECODE = ("stage", "allreduce_launch", "pass_element", "gemv_call", "gemv_mac", "pointwise_operation")


def wse2_start(wse3: CostModel) -> CostModel:
    """Where a fit of the WSE-2 begins: the constants of WSE-3 but for what is known of the older cores."""
    source = "arXiv 2404.15888; arXiv 2502.04563, section 2"
    constants = wse3.constants.with_values(_WSE2_KNOWN, source)
    return CostModel(constants, LINK_BYTES_PER_CYCLE)


def fit_wse2_decode(
    start: CostModel, layers: Sequence[Measurement], source: str = "calibrated"
) -> Calibration:
    """Constants of all-reduces, matrix-vector products and element-wise work from decode layers (Table 4)."""
    return _fit_layers(start, layers, _DECODE, source)


def fit_wse2_prefill(
    start: CostModel, layers: Sequence[Measurement], source: str = "calibrated"
) -> Calibration:
    """Constants of matrix products from prefill layers (Table 3)."""
    return _fit_layers(start, layers, _PREFILL, source)


def fit_wse2(
    wse3: CostModel, prefill: Sequence[Measurement], decode: Sequence[Measurement], source: str = "calibrated"
) -> tuple[CostModel, Calibration, Calibration]:
    """All constants of the WSE-2: decode first, whose all-reduces prefill has too; and the two fits."""
    of_decode = fit_wse2_decode(wse2_start(wse3), decode, f"{source}, decode")
    of_prefill = fit_wse2_prefill(of_decode.model, prefill, f"{source}, prefill")
    return of_prefill.model, of_prefill, of_decode


def _fit_layers(
    start: CostModel, layers: Sequence[Measurement], names: Sequence[str], source: str
) -> Calibration:
    priors = {name: Prior(getattr(start.constants, name), _DEVIATIONS.get(name, 0.5)) for name in names}
    fixed = [name for name in CONSTANT_NAMES if name not in names]
    return calibrate(layers, start, fixed=fixed, priors=priors, source=source)
