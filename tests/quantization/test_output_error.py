"""Errors of outputs by way of the Hessian and of a sample."""

import pytest
import torch

from lapidist.quantization.output_error import error_of_groups, error_of_outputs


@pytest.mark.parametrize("group_size", [4, 5, 13, 20])
def test_equals_the_products_of_each_group(group_size: int) -> None:
    x, difference = torch.randn(50, 13, dtype=torch.float64), torch.randn(7, 13, dtype=torch.float64)
    found = error_of_groups(x.T @ x, group_size)(difference)
    parts = zip(x.split(group_size, 1), difference.split(group_size, 1), strict=True)
    expected = torch.stack([(part @ of_group.T).square().sum(0) for part, of_group in parts], 1)
    torch.testing.assert_close(found, expected)


def test_one_group_is_the_whole_output() -> None:
    x, difference = torch.randn(50, 13, dtype=torch.float64), torch.randn(7, 13, dtype=torch.float64)
    torch.testing.assert_close(error_of_outputs(x)(difference), error_of_groups(x.T @ x, 13)(difference))
