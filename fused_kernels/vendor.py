"""The compute-bound half as the vendor's libraries do it, through torch: the baseline that a gain must survive.

cuBLAS and cuDNN run in full fp32 (TF32 off), or on fp16. They work on the same rotating arrays as our kernels, and may
read them in whatever layout suits them: the numbers are random, so an array read in another layout is another problem
of the same size.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from typing import Any

from nitro.errors import ToolError

from .problems import Array, ConvolutionProblem, GemmProblem, Problem
from .runtime import NUMPY_DTYPE, Handle

# Calls that read the arrays as our bodies do, so that both results must agree.
SAME_LAYOUT = ("cublas_tn", "cublas_linear", "cudnn_nhwc")


@dataclass(frozen=True, slots=True)
class _View:
    """Memory of ours, as torch takes it without a copy."""

    address: int
    shape: tuple[int, ...]
    typestr: str

    @property
    def __cuda_array_interface__(self) -> dict[str, object]:
        return {"shape": self.shape, "typestr": self.typestr, "data": (self.address, False), "version": 3}


def calls(problem: Problem) -> tuple[str, ...]:
    """Return the calls that solve a problem; none for memory-bound ones, and for those with a bias or a ReLU."""
    if not isinstance(problem, GemmProblem | ConvolutionProblem) or problem.bias or problem.relu:
        return ()
    if isinstance(problem, GemmProblem):
        return ("cublas_tn", "cublas_nn", "cublas_nt")
    convolutions = ("cudnn_nhwc", "cudnn_nchw")
    if problem.filter_size == 1 and problem.stride == 1:
        # A linear layer is no image.
        return ("cublas_linear",) if problem.width == 1 else ("cublas_linear", *convolutions)
    return convolutions


@dataclass(slots=True)
class Library:
    """torch with TF32 off; make it with `open_library`."""

    torch: Any
    versions: dict[str, str]
    _tensors: dict[tuple[int, tuple[int, ...]], Any] = field(default_factory=dict)
    _streams: dict[int, Any] = field(default_factory=dict)

    def submit(self, call: str, problem: Problem, addresses: dict[str, int], stream: Handle) -> None:
        """Submit a call to a stream of ours; addresses are named as the arrays of the problem."""
        with self.torch.inference_mode(), self.torch.cuda.stream(self._stream(stream)):
            self._result(call, problem, addresses, overwrite=True)

    def difference(self, call: str, problem: Problem, addresses: dict[str, int]) -> float | None:
        """Return the largest difference from the output that our body left, relative to its largest number.

        None for a call that reads the arrays in another layout than our bodies do.
        """
        if call not in SAME_LAYOUT:
            return None
        with self.torch.inference_mode():
            result = self._result(call, problem, addresses, overwrite=False)
            ours = self._tensor(problem, "y", addresses, tuple(problem.arrays[-1].shape))
            if call == "cudnn_nhwc":
                result = result.permute(0, 2, 3, 1)
            result = result.reshape(ours.shape)
            largest = ours.abs().max().item()
            return float((result - ours).abs().max().item() / max(largest, 1e-30))

    def _result(self, call: str, problem: Problem, addresses: dict[str, int], *, overwrite: bool) -> Any:
        if isinstance(problem, GemmProblem):
            left_shape = (problem.depth, problem.rows) if call == "cublas_tn" else (problem.rows, problem.depth)
            right_shape = (problem.outputs, problem.depth) if call == "cublas_nt" else (problem.depth, problem.outputs)
            left = self._tensor(problem, "left", addresses, left_shape)
            right = self._tensor(problem, "right", addresses, right_shape)
            left = left.t() if call == "cublas_tn" else left
            right = right.t() if call == "cublas_nt" else right
            return self._product(left, right, problem, addresses, overwrite=overwrite)
        assert isinstance(problem, ConvolutionProblem)
        if call == "cublas_linear":
            rows = self._tensor(problem, "x", addresses, (problem.rows, problem.channels))
            weights = self._tensor(problem, "weights", addresses, (problem.outputs, problem.channels))
            return self._product(rows, weights.t(), problem, addresses, overwrite=overwrite)
        images, side = problem.images, problem.filter_size
        if call == "cudnn_nhwc":
            x_shape = (images, problem.height, problem.width, problem.channels)
            x = self._tensor(problem, "x", addresses, x_shape).permute(0, 3, 1, 2)
            filters = self._tensor(problem, "weights", addresses, (problem.outputs, side, side, problem.channels))
            filters = filters.permute(0, 3, 1, 2)
        else:
            x = self._tensor(problem, "x", addresses, (images, problem.channels, problem.height, problem.width))
            filters = self._tensor(problem, "weights", addresses, (problem.outputs, problem.channels, side, side))
        # cuDNN chooses where the result goes: torch has no way to say, and its allocator gives the same place again.
        return self.torch.nn.functional.conv2d(x, filters, stride=problem.stride, padding=problem.padding)

    def _product(self, left: Any, right: Any, problem: Problem, addresses: dict[str, int], *, overwrite: bool) -> Any:
        if not overwrite:
            return self.torch.mm(left, right)
        y = self._tensor(problem, "y", addresses, (left.shape[0], right.shape[1]))
        return self.torch.mm(left, right, out=y)

    def _tensor(self, problem: Problem, name: str, addresses: dict[str, int], shape: tuple[int, ...]) -> Any:
        array: Array = next(one for one in problem.arrays if one.name == name)
        key = (addresses[name], shape)
        if key not in self._tensors:
            self._tensors[key] = self.torch.as_tensor(
                _View(addresses[name], shape, NUMPY_DTYPE[array.dtype]), device="cuda"
            )
        return self._tensors[key]

    def _stream(self, stream: Handle) -> Any:
        address = int(stream.handle)
        if address not in self._streams:
            self._streams[address] = self.torch.cuda.ExternalStream(address)
        return self._streams[address]

    def forget(self) -> None:
        """Let go of arrays and streams, before they are freed."""
        self._tensors.clear()
        self._streams.clear()
        self.torch.cuda.empty_cache()


def open_library() -> Library:
    """Return torch, set up to run the libraries as well as they can without TF32.

    Raises:
        ToolError: torch is missing, or has no GPU.
    """
    try:
        torch: Any = importlib.import_module("torch")
    except ImportError as error:
        raise ToolError(
            f"cuBLAS and cuDNN are reached through torch, which cannot be imported ({error}); install torch."
        ) from error
    if not torch.cuda.is_available():
        raise ToolError("torch sees no GPU, so there is no library to compare with; install a build for CUDA.")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    versions = {
        "torch": str(torch.__version__),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }
    return Library(torch, versions)
