"""What a flat GEMM reads, writes and computes, by its tiles (FlashDecoding++, arXiv 2311.01282, Eq. 5).

``[M, K]`` times ``[K, N]`` with few rows M: a program has all M rows and ``B_N`` columns, and walks the K channels in
steps of ``B_K``. Each step reads ``M x B_K`` inputs and ``B_N x B_K`` weights; each result is written once.
"""


def traffic_elements(M: int, N: int, K: int, B_N: int, B_K: int) -> int:
    """Elements that are read and written.

    ``(M B_K + B_N B_K) B + M N`` with ``B = N K / (B_N B_K)`` tiles. Where a tile juts out over an edge, what is
    outside is neither read nor written.

    Raises
    ------
    ValueError : a size is not positive.

    Examples
    --------
    >>> traffic_elements(8, 4096, 4096, 32, 128)
    21004288
    """
    if min(M, N, K, B_N, B_K) < 1:
        raise ValueError(f"sizes must be positive, got M={M}, N={N}, K={K}, B_N={B_N}, B_K={B_K}")
    # Every weight is read once and the inputs once per B_N columns, whatever B_K is.
    return N * K + -(-N // B_N) * M * K + M * N


def compute_memory_ratio(M: int, N: int, K: int, B_N: int, B_K: int) -> float:
    """Floating-point operations per element of traffic; ``2 M K / (K + M K / B_N + M)`` where ``B_N`` divides N.

    Examples
    --------
    >>> round(compute_memory_ratio(8, 4096, 4096, 128, 128), 2)
    15.03
    """
    return 2 * M * N * K / traffic_elements(M, N, K, B_N, B_K)
