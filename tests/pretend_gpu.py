"""A GPU that is not there: tensors that say `cuda:0` and hold their values on the CPU, so that code for GPUs runs, and
fails where CUDA would refuse it: tensors of two devices in one operation, NumPy on what lies on the device.

    with PretendGpu() as gpu:
        loss = model.to(GPU)(batch.to(GPU))

Autocast casts as CUDA's does (other operations than the CPU's), as far as Python calls them. It shows nothing of CUDA's
own kernels or their speed. torch itself takes the tensors for the CPU's, since its backward pass would look for a
driver; only Python sees their device.
"""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack
from typing import Any, ClassVar
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)

MAY_MIX = {"_to_copy", "to", "copy_", "index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
"""Indices may lie on the CPU."""
# https://docs.pytorch.org/docs/stable/amp.html, "CUDA Op-Specific Behavior", by their names in Python
IN_HALF = {
    *("linear", "matmul", "__matmul__", "__rmatmul__", "bmm", "mm", "mv", "addmm", "baddbmm", "einsum", "prelu"),
    *("conv1d", "conv2d", "conv3d", "scaled_dot_product_attention"),
}
IN_FLOAT32 = {
    *("layer_norm", "group_norm", "softmax", "log_softmax", "cross_entropy", "nll_loss", "mse_loss", "l1_loss"),
    *("smooth_l1_loss", "kl_div", "binary_cross_entropy_with_logits", "cosine_similarity", "margin_ranking_loss"),
    *("exp", "expm1", "log", "log1p", "log2", "pow", "__pow__", "__rpow__", "rsqrt", "reciprocal", "__rtruediv__"),
    *("__rdiv__", "sum", "prod", "cumsum", "cumprod", "norm", "normalize", "dist", "cdist", "softplus", "acos", "tan"),
}
IN_WIDEST = {
    "cat",
    "stack",
    "index_put",
    "index_put_",
    "addcmul",
    "addcdiv",
    "dot",
    "tensordot",
    "scatter_add",
    "cross",
}
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "unique_dim", "equal", "repeat_interleave"}


class OnGpu(Tensor):
    """A tensor that says that it lies on the GPU."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnGpu:
        made = Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(f"{operation} outside of `with PretendGpu()`")

    @property
    def device(self) -> torch.device:
        return GPU

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_cpu(self) -> bool:
        return False

    def to(self, *args: Any, copy: bool = False, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], OnGpu):
            args = (args[0].dtype, *args[1:])
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if device is None or device.type == "cuda":
            return super().to(dtype or self.dtype, copy=copy)
        if self.requires_grad:
            raise NotImplementedError("PretendGpu has no gradient from the CPU to the GPU")
        return self.held.to(dtype or self.dtype, copy=True)

    def new_tensor(self, data: Any, **options: Any) -> Tensor:
        return torch.tensor(data, **({"dtype": self.dtype, "device": GPU} | options))

    def cpu(self) -> Tensor:
        return self.to("cpu")

    def tolist(self) -> Any:
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __array__(self, *given: Any) -> Any:
        self.numpy()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"OnGpu({self.held!r})"


class PretendGpu(TorchDispatchMode):
    """While it is entered, `device=GPU` works. `waits` counts by operation how often the CPU waited for the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE  # with it torch does not look for a driver
        torch._C._ensureCUDADeviceGuardSet()
        self._calls = _Calls()
        self._stack = ExitStack()

    def __enter__(self) -> PretendGpu:
        self._stack.enter_context(self._calls)
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(…, device=GPU)` makes its own copy elsewhere
        self._stack.callback(torch._C._set_only_lift_cpu_tensors, False)
        for name, stand_in in _STAND_INS.items():
            self._stack.enter_context(patch(name, stand_in))
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._stack.close()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = operation.name().removeprefix("aten::").split(".")[0]
        kwargs = dict(kwargs or {})
        tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
        there = [value for value in tensors if isinstance(value, OnGpu)]
        here = [value for value in tensors if not isinstance(value, OnGpu) and not hasattr(value, "anywhere")]
        asked = next((value for value in tree_leaves((args, kwargs)) if isinstance(value, torch.device)), None)
        kwargs.pop("pin_memory", None)
        if there and name not in MAY_MIX and any(value.dim() for value in here):
            shapes = [[tuple(value.shape) for value in values[:9]] for values in (there, here)]
            raise RuntimeError(f"{name}: tensors of shapes {shapes[0]} on cuda:0, of {shapes[1]} on the CPU")
        if there and name in WAITS:
            self.waits[name] += 1
        inner_args, inner_kwargs = tree_map(_opened, (args, kwargs))
        with _disable_current_modes():
            result = operation(*inner_args, **inner_kwargs)
        if asked is not None and asked.type == "cuda":
            on_gpu = True
        elif name == "copy_":
            on_gpu = isinstance(args[0], OnGpu)
        else:
            on_gpu = bool(there)
        if on_gpu:
            known = {id(value.held): value for value in there}
            return tree_map(
                lambda value: known.get(id(value), OnGpu(value)) if isinstance(value, Tensor) else value, result
            )
        if not here and not self._calls.makes:
            # torch itself has made this, for what it takes for the CPU's
            for value in tree_leaves(result):
                if isinstance(value, Tensor):
                    value.anywhere = True
        return result


def _opened(value: Any) -> Any:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.held if isinstance(value, OnGpu) else value


class _Calls(TorchFunctionMode):
    """Knows whether Python has asked for a new tensor."""

    makes = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        before, kwargs = self.makes, kwargs or {}
        if function is Tensor.to and len(args) > 1 and isinstance(args[1], OnGpu):
            args = (args[0], GPU, args[1].dtype, *args[2:])
        self.makes = not any(isinstance(value, Tensor) for value in tree_leaves((args, kwargs)))
        try:
            return function(*args, **kwargs)
        finally:
            self.makes = before


class _CudaAutocast(TorchFunctionMode):
    """In the place of `torch.autocast("cuda")`."""

    def __init__(self, dtype: torch.dtype | None, *, enabled: bool) -> None:
        super().__init__()
        self._dtype, self._enabled = dtype or torch.float16, enabled

    def __enter__(self) -> _CudaAutocast:
        _CudaAutocast.entered.append(self)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        _CudaAutocast.entered.pop()

    entered: ClassVar[list[_CudaAutocast]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if _CudaAutocast.entered[-1] is not self or not self._enabled:
            return function(*args, **kwargs)
        if name == "binary_cross_entropy":
            raise RuntimeError("binary_cross_entropy is unsafe under autocast: use the one with logits")
        dtype = None
        if name in IN_HALF:
            dtype = self._dtype
        elif name in IN_FLOAT32:
            dtype = torch.float32
        elif name in IN_WIDEST:
            found = {value.dtype for value in tree_leaves((args, kwargs)) if _is_cast(value)}
            dtype = torch.float32 if torch.float32 in found else None
        if dtype is not None:
            args, kwargs = tree_map(lambda value: value.to(dtype) if _is_cast(value) else value, (args, kwargs))
        return function(*args, **kwargs)


def _is_cast(value: Any) -> bool:
    return isinstance(value, OnGpu) and value.is_floating_point() and value.dtype != torch.float64


def _autocast(device_type: str, dtype: torch.dtype | None = None, enabled: bool = True) -> Any:
    if device_type == "cuda":
        return _CudaAutocast(dtype, enabled=enabled)
    return _AUTOCAST(device_type, dtype=dtype, enabled=enabled)


_AUTOCAST = torch.autocast


def _enter_inference(mode: Any) -> None:
    mode.before = torch.is_grad_enabled()
    torch.set_grad_enabled(False)


def _leave_inference(mode: Any, *error: Any) -> None:
    torch.set_grad_enabled(mode.before)


_STAND_INS = {
    "torch.autocast": _autocast,
    # tensors of inference mode cannot be wrapped
    "torch.inference_mode.__enter__": _enter_inference,
    "torch.inference_mode.__exit__": _leave_inference,
    "torch.cuda.is_available": lambda: True,
    "torch.cuda.device_count": lambda: 1,
    "torch.cuda.set_device": lambda device: None,
    # a parameter whose values alone are exchanged would stay a plain one
    "torch.__future__.get_overwrite_module_params_on_conversion": lambda: True,
}
