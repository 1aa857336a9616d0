"""Our kernels against fixed choices and other libraries."""
