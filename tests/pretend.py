"""A GPU that is not there.

Tensors say that they are on it, and are computed on the CPU. What a real one would
refuse is noted: operations on tensors of both devices, arrays made of what is on it,
noise from the other's generator.
"""

import contextlib
import traceback
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
# Ask a tensor for what has no device.
PLAIN = {
    "__format__", "__hash__", "__len__", "__repr__",
    "_has_compatible_shallow_copy_type", "_is_view", "data_ptr", "dim",
    "element_size", "is_complex", "is_contiguous", "is_floating_point", "numel",
    "requires_grad_", "size", "stride", "untyped_storage",
}  # fmt: skip


def is_on(tensor):
    """Whether a tensor says that it is on the GPU."""
    return getattr(tensor, "_pretends", False)


def marked(result, flag):
    """Let tensors say where they are."""
    for tensor in tensors_of(result):
        tensor._pretends = flag
    return result


def tensors_of(value):
    """Collect tensors in nested lists, tuples and dicts."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for part in value for tensor in tensors_of(part)]
    return []


def device_of(value):
    """Device that an argument names, or None."""
    if isinstance(value, torch.device):
        return value
    if isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda"):
        return torch.device(value)
    return None


class Pretence(TorchFunctionMode):
    """The GPU; `faults` are the names of what it refuses, and the lines that ask."""

    def __init__(self):
        super().__init__()
        self.faults, self.generators = [], {}

    def note(self, name):
        """Remember what would fail, and where."""
        frames = traceback.extract_stack()
        lines = [f"{f.name}: {f.line}" for f in frames if "admc_sklearn" in f.filename]
        self.faults.append((name, lines[-1] if lines else "?"))

    def generator(self, device="cpu"):
        """Make a generator that belongs to a device."""
        made = self.make_generator()
        self.generators[made] = torch.device(device)
        return made

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = getattr(function, "__name__", "")
        if name in ("__get__", "__set__"):
            return self._attribute(function, name, args)
        if name in PLAIN:
            return function(*args, **kwargs)
        if name in ("numpy", "__array__"):
            if is_on(args[0]):
                self.note(name)
            return function(*args, **kwargs)
        if name in ("cpu", "to"):
            return self._moved(function, name, args, kwargs)
        target = device_of(kwargs.get("device"))
        if target is not None:
            kwargs["device"] = CPU
        given = tensors_of(args) + tensors_of(kwargs)
        flag = any(map(is_on, given)) if target is None else target.type == "cuda"
        owner = self.generators.get(kwargs.get("generator"), CPU)
        if kwargs.get("generator") is not None and (owner.type == "cuda") != flag:
            self.note(f"{name}, by the generator of {owner.type}")
        result = function(*args, **kwargs)
        if name == "__iter__":
            return iter(marked(list(result), flag))
        if target is None and given and not all(is_on(t) == flag for t in given):
            self._check(name, args, given)
            if name == "copy_":
                flag = is_on(args[0])
        if name == "__getitem__":
            flag = is_on(args[0])
        return marked(result, flag)

    def _check(self, name, args, given):
        """Note an operation on tensors of both devices, unless it is allowed."""
        table = is_on(args[0])
        if name == "copy_" or (name == "__getitem__" and table):
            return
        if name == "__setitem__":
            indices, values = tensors_of(args[1:2]), tensors_of(args[2:])
            given = [t for t in indices if not table and is_on(t)]
            given += [t for t in values if indices and t.dim() and is_on(t) != table]
            if given:
                self.note(name)
        elif any(t.dim() for t in given if not is_on(t)):
            self.note(name)

    def _attribute(self, function, name, args):
        owner = getattr(getattr(function, "__self__", None), "__name__", "")
        if name == "__get__" and owner == "device":
            return GPU if is_on(args[0]) else CPU
        if name == "__get__" and owner == "is_cuda":
            return is_on(args[0])
        result = function(*args)
        if name == "__get__":
            return marked(result, is_on(args[0])) if tensors_of(result) else result
        if owner == "data":
            marked(args[0], is_on(args[1]))
        elif tensors_of(args[1]) and is_on(args[0]) != is_on(args[1]):
            self.note(f"set {owner}")
        return result

    def _moved(self, function, name, args, kwargs):
        """Cast and move a tensor: a new one wherever it moves."""
        flag, args = is_on(args[0]), list(args)
        if name == "cpu":
            flag = False
        for k, value in enumerate(args[1:], 1):
            if isinstance(value, torch.Tensor):
                flag = is_on(value)
            elif device_of(value) is not None:
                flag, args[k] = device_of(value).type == "cuda", CPU
        if device_of(kwargs.get("device")) is not None:
            flag, kwargs["device"] = kwargs["device"].type == "cuda", CPU
        result = function(*args, **kwargs)
        if result is args[0] and flag != is_on(args[0]):
            result = result.clone()
        return result if result is args[0] else marked(result, flag)


@contextlib.contextmanager
def pretended_gpu():
    """Pretend that there is a GPU: yields the `Pretence`."""
    pretence = Pretence()
    pretence.make_generator = torch.Generator
    patches = {
        "is_available": lambda: True,
        "get_rng_state": lambda *device: None,
        "set_rng_state": lambda *state: None,
        "manual_seed": lambda seed: None,
        "device": lambda device: contextlib.nullcontext(),
    }
    with contextlib.ExitStack() as stack:
        for name, patch in patches.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, patch))
        stack.enter_context(mock.patch.object(torch, "Generator", pretence.generator))
        stack.enter_context(pretence)
        yield pretence
