"""Other libraries' layers compute the product that they are timed on."""

import pytest
import torch
from torch import Tensor

pytest.importorskip("gguf")
pytest.importorskip("llama_cpp")

from benchmarks.kernels.ggml_matmul import GgmlMatmul
from benchmarks.kernels.quantized_peers import peers


@pytest.mark.parametrize("name", peers())
@pytest.mark.parametrize(("outputs", "columns"), [(256, 512), (64, 256)])
def test_products_are_near_those_of_the_weight(name: str, outputs: int, columns: int) -> None:
    weight = torch.randn(outputs, columns)
    try:
        layer = peers()[name](weight)
    except ValueError as error:
        pytest.skip(str(error))  # a processor without such kernels
    assert layer.weight_bytes >= outputs * columns // 2
    given = [torch.randn(rows, columns).bfloat16() for rows in (1, 7, 16, 130)]
    prepared = [layer.prepare(x) for x in given]  # several at once, as a benchmark may
    noise = 0.01 if "BF16" in name or "Q8" in name else 0.15
    for x, each in zip(given, prepared, strict=True):
        _assert_near(torch.as_tensor(layer.run(each)), x.double() @ weight.double().T, noise)


@pytest.mark.parametrize("rows", [1, 5, 64])
@pytest.mark.parametrize(("type_name", "values"), [("Q4_0", range(-8, 8)), ("Q8_0", range(-127, 128))])
def test_ggml_is_exact_where_nothing_is_rounded(type_name: str, values: range, rows: int) -> None:
    """Integers that each block's scale of one represents: what remains is order of summation."""
    weight = torch.tensor(values)[torch.randint(len(values), (64, 256))].float()
    weight[:, ::32] = values[0]  # the largest of its block
    x = torch.randint(-127, 128, (rows, 256)).float()
    x[:, ::32] = 127
    for repack in (False, True):
        try:
            layer = GgmlMatmul(weight, type_name, repack)
        except ValueError:
            assert repack  # only some types and processors have that layout
            continue
        product = torch.as_tensor(layer.run(layer.prepare(x))).double()
        _assert_near(product, x.double() @ weight.double().T, 1e-5)


def test_ggml_has_no_interleaved_bfloat16() -> None:
    with pytest.raises(ValueError, match="no interleaved layout for BF16"):
        GgmlMatmul(torch.randn(64, 256), "BF16", repack=True)


def test_torchao_refuses_a_kernel_that_it_was_built_without() -> None:
    pytest.importorskip("torchao")
    from benchmarks.kernels.torchao_linear import TorchaoLinear, has_integer_kernel

    if has_integer_kernel():
        pytest.skip("this build has the kernel")
    with pytest.raises(RuntimeError, match="USE_CPU_KERNELS"):
        TorchaoLinear(torch.randn(64, 256), integer=True)


def _assert_near(found: Tensor, expected: Tensor, noise: float) -> None:
    assert found.shape == expected.shape
    assert (found.double() - expected).norm() <= noise * expected.norm()
