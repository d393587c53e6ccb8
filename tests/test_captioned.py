"""Work spread over processes."""

import pytest
import torch

from shared.captioned import spread


def sums(chunk: range) -> list[str]:
    """A matrix product large enough for PyTorch to use its threads."""
    ones = torch.ones(200, 200)
    return [str(int((n * ones @ ones)[0, 0])) for n in chunk]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("workers", [1, 2])
def test_spread_keeps_the_order_and_does_not_hang_after_threads_have_run(workers):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert sums(range(1)) == ["0"]  # the parent's threads have run
        found = list(spread(sums, [range(0, 2), range(2, 5), range(5, 6)], workers))
    finally:
        torch.set_num_threads(threads)
    assert found == [["0", "200"], ["400", "600", "800"], ["1000"]]
