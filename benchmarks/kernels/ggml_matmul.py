"""ggml's matrix multiplication, the one inside llama.cpp, on quantized weights.

Driven through the libraries that llama-cpp-python ships. "Repacked" weights have their rows interleaved, which
llama.cpp does by default when it loads a file; for large batches its kernels for the plain layout may be faster.
"""

import ctypes
import functools
import itertools
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import llama_cpp
import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.run_llama_cpp import silence

# llama_cpp has loaded these already; opening them again gives the same instances.
_LIBRARIES = Path(llama_cpp.__file__).parent / "lib"
_BASE = ctypes.CDLL(str(_LIBRARIES / "libggml-base.so"))
_CPU = ctypes.CDLL(str(_LIBRARIES / "libggml-cpu.so"))


class _InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


def _function(library: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    function = getattr(library, name)
    function.restype, function.argtypes = result, arguments
    return function


_P, _INT, _LONG, _SIZE, _TEXT = (
    ctypes.c_void_p, ctypes.c_int, ctypes.c_int64, ctypes.c_size_t, ctypes.c_char_p
)  # fmt: skip
_init = _function(_BASE, "ggml_init", _P, _InitParams)
_free = _function(_BASE, "ggml_free", None, _P)
_tensor_overhead = _function(_BASE, "ggml_tensor_overhead", _SIZE)
_graph_overhead = _function(_BASE, "ggml_graph_overhead_custom", _SIZE, _SIZE, ctypes.c_bool)
_new_tensor_2d = _function(_BASE, "ggml_new_tensor_2d", _P, _P, _INT, _LONG, _LONG)
_mul_mat = _function(_BASE, "ggml_mul_mat", _P, _P, _P, _P)
_new_graph = _function(_BASE, "ggml_new_graph_custom", _P, _P, _SIZE, ctypes.c_bool)
_build_forward_expand = _function(_BASE, "ggml_build_forward_expand", None, _P, _P)
_quantize_chunk = _function(
    _BASE, "ggml_quantize_chunk", _SIZE, _INT, _P, _P, _LONG, _LONG, _LONG, _P
)  # fmt: skip
_alloc_from_buft = _function(_BASE, "ggml_backend_alloc_ctx_tensors_from_buft", _P, _P, _P)
_buffer_free = _function(_BASE, "ggml_backend_buffer_free", None, _P)
_tensor_set = _function(_BASE, "ggml_backend_tensor_set", None, _P, _P, _SIZE, _SIZE)
_get_data = _function(_BASE, "ggml_get_data", _P, _P)
_graph_compute = _function(_BASE, "ggml_backend_graph_compute", _INT, _P, _P)
_buft_name = _function(_BASE, "ggml_backend_buft_name", _TEXT, _P)
_supports_op = _function(_BASE, "ggml_backend_dev_supports_op", ctypes.c_bool, _P, _P)
_reg_dev_get = _function(_BASE, "ggml_backend_reg_dev_get", _P, _P, _SIZE)
_get_proc_address = _function(_BASE, "ggml_backend_reg_get_proc_address", _P, _P, _TEXT)
_plain_buft = _function(_BASE, "ggml_backend_cpu_buffer_type", _P)
_cpu_reg = _function(_CPU, "ggml_backend_cpu_reg", _P)
_cpu_init = _function(_CPU, "ggml_backend_cpu_init", _P)
_set_threads = _function(_CPU, "ggml_backend_cpu_set_n_threads", None, _P, _INT)


class GgmlMatmul:
    """A weight as a layer of ``quantized_gemm``. Activations are quantized within the operator.

    Parameters
    ----------
    weight : float32 ``[outputs, columns]``.
    type_name : of ggml's types, as in ``gguf.GGMLQuantizationType``: ``"Q4_K"``.
    repack : lay the weight out in interleaved rows.

    Raises
    ------
    ValueError : ggml has no interleaved layout for this type and shape on this processor.
    """

    def __init__(self, weight: Tensor, type_name: str, repack: bool = False) -> None:
        silence()
        self._shape = outputs, columns = weight.shape
        kind = gguf.GGMLQuantizationType[type_name]
        packed = np.empty(gguf.quant_shape_to_byte_shape((outputs, columns), kind), np.uint8)
        weight = weight.float().contiguous()
        _quantize_chunk(kind, weight.data_ptr(), packed.ctypes.data, 0, outputs, columns, None)
        self.weight_bytes = packed.nbytes
        self._tensors = _Tensors(1)
        self._matrix = self._tensors.add(kind, columns, outputs)
        self._tensors.allocate(_repack_buft() if repack else _plain_buft())
        if repack and not _is_supported(self._matrix, columns):
            raise ValueError(f"ggml has no interleaved layout for {type_name} [{outputs}, {columns}] here")
        _tensor_set(self._matrix, packed.ctypes.data, 0, packed.nbytes)

    def prepare(self, x: Tensor) -> "_Product":
        """``x`` is ``[rows, columns]``."""
        return _Product(self._tensors, self._matrix, self._shape, x.float().contiguous())

    def run(self, product: "_Product") -> np.ndarray:
        """float32 ``[rows, outputs]``, until the next run of the same product."""
        return product.compute(torch.get_num_threads())


class _Product:
    """A graph of one multiplication."""

    def __init__(self, weights: "_Tensors", matrix: int, shape: torch.Size, x: Tensor) -> None:
        self._weights = weights  # stays while it is used here
        self._tensors = _Tensors(2, graph_nodes=2)
        activations = self._tensors.add(gguf.GGMLQuantizationType.F32, shape[1], len(x))
        product = _mul_mat(self._tensors.context, matrix, activations)
        self._graph = _new_graph(self._tensors.context, 2, False)
        _build_forward_expand(self._graph, product)
        self._tensors.allocate(_plain_buft())
        _tensor_set(activations, x.data_ptr(), 0, x.nbytes)
        floats = ctypes.POINTER(ctypes.c_float)
        self._result = np.ctypeslib.as_array(
            ctypes.cast(_get_data(product), floats), shape=(len(x), shape[0])
        )

    def compute(self, threads: int) -> np.ndarray:
        _set_threads(_backend(), threads)
        if status := _graph_compute(_backend(), self._graph):
            raise RuntimeError(f"ggml_backend_graph_compute failed with status {status}")
        return self._result


class _Tensors:
    """A ggml context and the buffer of its tensors."""

    def __init__(self, count: int, graph_nodes: int = 1) -> None:
        size = count * _tensor_overhead() + _graph_overhead(graph_nodes, False)
        self.context = _init(_InitParams(size, None, True))
        weakref.finalize(self, _free, self.context)

    def add(self, kind: int, columns: int, rows: int) -> int:
        return _new_tensor_2d(self.context, kind, columns, rows)

    def allocate(self, buft: int) -> None:
        buffer = _alloc_from_buft(self.context, buft)
        if not buffer:
            raise MemoryError("ggml cannot allocate the tensors")
        weakref.finalize(self, _buffer_free, buffer)


@functools.cache
def _backend() -> int:
    return _cpu_init()


def _device() -> int:
    return _reg_dev_get(_cpu_reg(), 0)


def _is_supported(weight: int, k: int) -> bool:
    """Whether the processor can multiply by the weight in the buffer that it lies in."""
    tensors = _Tensors(2)
    product = _mul_mat(tensors.context, weight, tensors.add(gguf.GGMLQuantizationType.F32, k, 1))
    return _supports_op(_device(), product)


def _repack_buft() -> int:
    """The buffer type that interleaves what is written to it, which ggml offers under a name only."""
    address = _get_proc_address(_cpu_reg(), b"ggml_backend_dev_get_extra_bufts")
    found = ctypes.CFUNCTYPE(ctypes.POINTER(_P), _P)(address)(_device())
    for buft in itertools.takewhile(bool, found):
        if _buft_name(buft) == b"CPU_REPACK":
            return buft
    raise ValueError("this build of ggml interleaves no weights")
