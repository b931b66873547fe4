"""A GPU that is pretended: tensors say `cuda:0`, keep real values in host memory, and obey a GPU's rules.

The whole loop runs on it unchanged, on a machine without a GPU. What a GPU refuses is refused:

* a CPU tensor, or a CPU generator, among tensors of the GPU;
* whatever waits for the device while a graph is recorded.

What makes the host wait for the device (`.item()`, a copy without `non_blocking`, ...) is counted with the
line of ours that caused it. A graph records operations at fixed places with their numbers, has no effect
while it is recorded, and can be replayed. Numbers of real kernels, speed and memory are not pretended.

It leans on private names of torch. Where one is missing, `why_not` says so, and tests skip with that reason.
"""

from __future__ import annotations

import ctypes
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

ROOT = Path(__file__).resolve().parents[2]
GPU = torch.device("cuda:0")
REGISTRY, CUDA_PLACE, OTHER_PLACE = "_ZN3c104impl26device_guard_impl_registryE", 1, 20
NAME = "pretended"
"""What the device is called inside torch, whose autograd refuses CUDA where it was built without it."""

aten = torch.ops.aten
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
    aten.is_nonzero.default,
    aten._unique2.default,
    aten.repeat_interleave.Tensor,
}
"""Operations whose result the host must read."""

_device: PretendedGpu | None = None


def _in_torch() -> torch.device:
    return torch.device(NAME, 0)


class OnGpu(torch.Tensor):
    """A tensor that says it is on the GPU; `raw` is a CPU tensor of the same storage."""

    raw: torch.Tensor
    device = property(lambda self: GPU)  # type: ignore[assignment, unused-ignore]
    is_cuda = property(lambda self: True)  # type: ignore[assignment, unused-ignore]

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> OnGpu:
        made: OnGpu = torch.Tensor._make_subclass(  # type: ignore[attr-defined, unused-ignore]
            cls, raw, False, dispatch_device=True, device_for_backend_keys=GPU
        )
        made.raw = raw
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment, unused-ignore]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return _in_torch()
        assert _device is not None, f"a tensor of the pretended GPU is used after it: {func}"
        return _device.do(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    """Brings operations that make tensors on the GPU to it; no tensor of theirs would."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return _in_torch()
        assert _device is not None
        return _device.do(func, args, kwargs or {})


class PretendedGpu:
    """The device while it is pretended.

    Attributes:
        waits: how often the host waited for the device, by `file:line` of ours.
        recordings, replays: of graphs.
    """

    def __init__(self) -> None:
        self.waits: Counter[str] = Counter()
        self.recordings = 0
        self.replays = 0
        self.error: BaseException | None = None
        """What each later synchronisation raises again, as CUDA does after a device assert."""
        self._recording: Recording | None = None

    def synchronize(self, *_: Any) -> None:
        self._wait("synchronize")

    def _wait(self, what: object) -> None:
        if self._recording is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({what})")
        if self.error is not None:
            raise self.error
        stack = traceback.extract_stack()
        ours = [f for f in stack if f.filename.startswith(str(ROOT)) and "/tests/" not in f.filename]
        place = ours[-1] if ours else stack[-3]
        self.waits[f"{Path(place.filename).name}:{place.lineno} {what}"] += 1

    def do(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An operation on the raw tensors, checked as a GPU checks it; its results are on the GPU."""
        flat = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
        on_gpu = [x for x in flat if isinstance(x, OnGpu)]
        device = kwargs.get("device")
        wanted = None if device is None else torch.device(device)
        if not on_gpu and (wanted is None or not _is_gpu(wanted)):
            return func(*args, **kwargs)
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with _Mode():  # made of others; inference mode brings it here undivided
                return func.decompose(*args, **kwargs)
        if func is aten._to_copy.default:
            return self._moved(args[0], wanted, kwargs)
        if func is aten.copy_.default:
            self._copied(*args, **kwargs)
        else:
            self._check(func, args, kwargs, flat)
        if wanted is not None:
            assert _is_gpu(wanted), f"{func} makes a CPU tensor from tensors of the GPU"
            kwargs = kwargs | {"device": torch.device("cpu")}
        kwargs = {name: value for name, value in kwargs.items() if name != "pin_memory"}
        raw_args, raw_kwargs = tree_map(_raw, (args, kwargs))
        if func is aten.copy_.default and self._recording is None:
            # a copy to the CPU leaves a plain tensor
            func(*raw_args, **raw_kwargs)
            return args[0]
        if self._recording is not None:
            self._recording.about_to(func, raw_args, raw_kwargs)
        results = func(*raw_args, **raw_kwargs)
        if self._recording is not None:
            self._recording.did(func, raw_args, raw_kwargs, results)
        return _wrapped(func, results, args, kwargs)

    def _check(self, func: Any, args: Any, kwargs: Any, flat: list[torch.Tensor]) -> None:
        generators = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Generator)]
        if generators:
            raise RuntimeError(f"Expected a 'cuda' device type for generator but found 'cpu' ({func})")
        on_cpu = [x for x in flat if not isinstance(x, OnGpu)]
        if func in (aten.index.Tensor, aten.index_put_.default, aten.index_put.default):
            indices = [x for x in args[1] if x is not None]
            if any(not isinstance(x, OnGpu) or x.dtype == torch.bool for x in indices):
                self._wait(func)
            on_cpu = [x for x in on_cpu if not any(x is index for index in indices)]
        if any(x.dim() for x in on_cpu):
            raise RuntimeError(
                f"Expected all tensors to be on the same device, found cuda:0 and cpu ({func})"
            )
        if func in WAITS:
            self._wait(func)

    def _moved(self, x: torch.Tensor, wanted: torch.device | None, kwargs: dict[str, Any]) -> torch.Tensor:
        """`x.to(...)`: to the GPU, from it, or of another type on it."""
        names = ("dtype", "layout", "memory_format")
        given = {name: kwargs[name] for name in names if kwargs.get(name) is not None}
        to_gpu = wanted is None or _is_gpu(wanted)
        if isinstance(x, OnGpu) != to_gpu and not (to_gpu and kwargs.get("non_blocking")) and x.numel():
            self._wait("copy")  # torch returns at once where there is nothing to copy
        raw = x.raw if isinstance(x, OnGpu) else x
        if self._recording is not None:
            self._recording.about_to(aten._to_copy.default, (raw,), given)
        moved = aten._to_copy.default(raw, **given)
        if self._recording is not None:
            self._recording.did(aten._to_copy.default, (raw,), given, moved)
        return OnGpu(moved) if to_gpu else moved

    def _copied(self, to: torch.Tensor, source: torch.Tensor, non_blocking: bool = False) -> None:
        to_gpu = isinstance(to, OnGpu)
        if isinstance(source, OnGpu) != to_gpu and not (to_gpu and non_blocking):
            self._wait("copy_")


def _is_gpu(device: torch.device) -> bool:
    return device.type in ("cuda", NAME)


def _raw(x: Any) -> Any:
    return x.raw if isinstance(x, OnGpu) else x


def _wrapped(func: Any, results: Any, args: Any, kwargs: Any) -> Any:
    """The results as tensors of the GPU; an operation in place gives back the tensor that it was given."""
    given = {id(x.raw): x for x in tree_flatten((args, kwargs))[0] if isinstance(x, OnGpu)}

    def wrap(x: Any) -> Any:
        if not isinstance(x, torch.Tensor):
            return x
        return given.get(id(x)) if id(x) in given else OnGpu(x)

    return tree_map(wrap, results)


class Recording:
    """Operations at fixed places; recording them has no effect on what was there before."""

    def __init__(self) -> None:
        self._steps: list[Callable[[], None]] = []
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def about_to(self, func: Any, args: Any, kwargs: Any) -> None:
        for x in _written(func, args, kwargs):
            self._before.setdefault(x.data_ptr(), (x, x.clone()))

    def did(self, func: Any, args: Any, kwargs: Any, results: Any) -> None:
        results = [x for x in tree_flatten(results)[0] if isinstance(x, torch.Tensor)]
        inputs = {x.untyped_storage().data_ptr() for x in tree_flatten((args, kwargs))[0] if _is_tensor(x)}
        made = [x for x in results if x.untyped_storage().data_ptr() not in inputs]
        if not made and not _written(func, args, kwargs):
            return  # a view, which stays valid

        def step() -> None:
            again = [x for x in tree_flatten(func(*args, **kwargs))[0] if isinstance(x, torch.Tensor)]
            for place, value in zip(results, again, strict=True):
                if any(place is x for x in made):
                    place.copy_(value)

        self._steps.append(step)

    def undo(self) -> None:
        for x, before in reversed(self._before.values()):
            x.copy_(before)

    def replay(self) -> None:
        for step in self._steps:
            step()


def _is_tensor(x: Any) -> bool:
    return isinstance(x, torch.Tensor)


def _written(func: Any, args: Any, kwargs: Any) -> list[torch.Tensor]:
    """The tensors that an operation changes."""
    found: list[torch.Tensor] = []
    for at, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = args[at] if at < len(args) else kwargs.get(argument.name)
            found += [x for x in tree_flatten(value)[0] if isinstance(x, torch.Tensor)]
    return found


class _Graph:
    """Stands in for `torch.cuda.CUDAGraph`."""

    recording: Recording

    def replay(self) -> None:
        assert _device is not None
        _device.replays += 1
        with torch.no_grad(), _without_modes():
            self.recording.replay()


@contextmanager
def _without_modes() -> Iterator[None]:
    from torch.utils._python_dispatch import _disable_current_modes  # noqa: PLC0415

    with _disable_current_modes():
        yield


@contextmanager
def _graph(graph: _Graph, pool: Any = None, stream: Any = None) -> Iterator[None]:
    """Stands in for `torch.cuda.graph`."""
    assert _device is not None
    assert _device._recording is None
    graph.recording = _device._recording = Recording()
    _device.recordings += 1
    generator = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(generator)
        _device._recording = None
        with torch.no_grad(), _without_modes():
            graph.recording.undo()


class _Stream:
    """Stands in for `torch.cuda.Stream`: there is one queue, in which all work is in order."""

    def wait_stream(self, other: _Stream) -> None:
        pass


@contextmanager
def _on_stream(stream: _Stream) -> Iterator[None]:
    yield


def _to(module: torch.nn.Module, device: Any, *more: Any, **named: Any) -> torch.nn.Module:
    """`Module.to(device)`. torch exchanges the content of a parameter, which two types of tensor forbid."""
    if torch.device(device).type != "cuda":
        return _own_to(module, device, *more, **named)
    made: dict[int, Any] = {}
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, old in tensors.items():
                if old is None or isinstance(old, OnGpu):
                    continue
                if id(old) not in made:
                    moved = old.detach().to(device)
                    is_parameter = isinstance(old, torch.nn.Parameter)
                    made[id(old)] = torch.nn.Parameter(moved, old.requires_grad) if is_parameter else moved
                tensors[name] = made[id(old)]
    return module


class _Module:
    """What torch asks a module of the device's name."""

    is_available = staticmethod(lambda: _device is not None)
    is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    manual_seed_all = staticmethod(lambda seed: None)
    device_count = staticmethod(lambda: int(_device is not None))
    current_device = staticmethod(lambda: 0)
    get_rng_state = staticmethod(lambda *_: torch.empty(0, dtype=torch.uint8))
    set_rng_state = staticmethod(lambda *_: None)


_own_to = torch.nn.Module.to
_kept: list[Any] = []


def _set_guard() -> None:
    """Let autograd know a device of type CUDA; a CPU build of torch has none. It stays for the process."""
    from torch._C import _acc  # type: ignore[attr-defined, unused-ignore]  # noqa: PLC0415
    from torch._C._autograd import DeviceType  # noqa: PLC0415

    class Guard(_acc.DeviceGuard):  # type: ignore[misc, unused-ignore]
        def type_(self) -> Any:
            return DeviceType.PrivateUse1

    class Hooks(_acc.PrivateUse1Hooks):  # type: ignore[misc, unused-ignore]
        def is_available(self) -> bool:
            return _device is not None

        def has_primary_context(self, index: int) -> bool:
            return _device is not None

        def is_built(self) -> bool:
            return True

    _kept.extend([Guard(), Hooks()])
    torch.utils.rename_privateuse1_backend(NAME)
    torch._register_device_module(NAME, _Module)
    _acc.register_python_privateuseone_hook(_kept[1])
    _acc.register_python_privateuseone_device_guard(_kept[0])
    places = _guards()
    places[CUDA_PLACE] = places[OTHER_PLACE]  # what makes a tensor on `cuda` asks for this guard


def _guards() -> Any:
    """torch's table of guards, by type of device."""
    library = ctypes.CDLL(str(Path(torch.__path__[0]) / "lib" / "libc10.so"))
    return (ctypes.c_void_p * (OTHER_PLACE + 1)).in_dll(library, REGISTRY)


def why_not() -> str | None:
    """The private name of torch that is missing here; None: the GPU can be pretended."""
    for owner, name in (
        (torch._C, "_acc"),
        (torch._C, "_set_only_lift_cpu_tensors"),
        (torch.Tensor, "_make_subclass"),
        (torch.cuda, "_lazy_init"),
    ):
        if not hasattr(owner, name):
            return f"this torch has no {name}"
    for name in ("register_python_privateuseone_hook", "register_python_privateuseone_device_guard"):
        if not hasattr(torch._C._acc, name):
            return f"this torch has no {name}"
    try:
        _guards()
    except (OSError, ValueError) as error:
        return f"this torch has no table of guards where it was: {error}"
    return None


FACTS: dict[str, Any] = {
    "is_available": lambda: True,
    "is_initialized": lambda: True,
    "device_count": lambda: 1,
    "current_device": lambda: 0,
    "set_device": lambda *_: None,
    "get_device_name": lambda *_: "a GPU that is pretended",
    "get_device_capability": lambda *_: (9, 0),
    "get_arch_list": lambda: ["sm_80", "sm_90"],
    "is_bf16_supported": lambda *_, **__: True,
    "mem_get_info": lambda *_: (2**34, 2**34),
    "max_memory_allocated": lambda *_: 2**20,
    "reset_peak_memory_stats": lambda *_: None,
    "empty_cache": lambda: None,
    "manual_seed": lambda *_: None,
    "manual_seed_all": lambda *_: None,
    "_lazy_init": lambda: None,
    "Stream": _Stream,
    "current_stream": lambda *_: _Stream(),
    "stream": _on_stream,
    "CUDAGraph": _Graph,
    "graph": _graph,
    "graph_pool_handle": lambda: (0, 1),
}
"""What stands in for the names of `torch.cuda`."""


@contextmanager
def pretended_gpu() -> Iterator[PretendedGpu]:
    """Inside, this process has one GPU; accelerate, which keeps its device for a process, is reset."""
    global _device
    from accelerate.state import AcceleratorState  # noqa: PLC0415

    _device = PretendedGpu()
    AcceleratorState._reset_state(reset_partial_state=True)
    lifts = torch._C._only_lift_cpu_tensors()
    with ExitStack() as stack:
        for name, value in FACTS.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch.object(torch.cuda, "synchronize", _device.synchronize))
        stack.enter_context(mock.patch.object(torch.nn.Module, "to", _to))
        stack.enter_context(mock.patch.dict("os.environ"))
        import os  # noqa: PLC0415

        os.environ.pop("ACCELERATE_USE_CPU", None)
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            with _Mode():
                yield _device
        finally:
            torch._C._set_only_lift_cpu_tensors(lifts)
            AcceleratorState._reset_state(reset_partial_state=True)
            _device = None


# when this is imported, because autograd counts devices once, before its first backward pass
if not torch.cuda.is_available() and why_not() is None:
    _set_guard()
