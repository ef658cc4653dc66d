"""A device that computes on the CPU, but whose tensors do not mix with those of the CPU: a GPU for who has none.

It finds tensors that were made on the wrong device. `use()` registers it with torch; its name is then "pretend".
"""

import torch
from torch import library
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
MOVES = {"aten::_to_copy", "aten::copy_", "aten::_copy_from"}
TAKE_INDICES_OF_THE_CPU = {"aten::index", "aten::index_put_", "aten::_index_put_impl_"}  # as a GPU's do


class Elsewhere(torch.Tensor):
    """A tensor of the device; `here` is its copy on the CPU, on which everything is computed."""

    @staticmethod
    def __new__(cls, here):
        layout = dict(strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype)
        tensor = torch.Tensor._make_wrapper_subclass(cls, here.shape, **layout, device=torch.device(NAME, 0))
        tensor.here = here
        return tensor

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __repr__(self, **options):
        return f"elsewhere({self.here!r})"

    def tolist(self):
        return self.here.tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return _evaluate(operation, args, kwargs or {})


def use():
    """Register the device with torch."""
    _setup_privateuseone_for_python_backend(NAME)
    _kernels.fallback(lambda operation, *args, **kwargs: _evaluate(operation, args, kwargs), "PrivateUse1")
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a copy in place would miss `here`


_kernels = library.Library("_", "IMPL")


def _evaluate(operation, args, kwargs):
    """Compute on the CPU, and take the results to the device that they belong on."""
    name = operation._schema.name
    tensors = _tensors((args, kwargs))
    bound = (args[0], *args[2:]) if name in TAKE_INDICES_OF_THE_CPU else (args, kwargs)
    strangers = [x for x in _tensors(bound) if not isinstance(x, Elsewhere) and x.dim()]
    if strangers and name not in MOVES:
        raise RuntimeError(
            f"{name}: expected all tensors on {NAME}; got one of shape {tuple(strangers[0].shape)} on cpu"
        )
    results = operation(*tree_map(_here, args), **tree_map(_here, kwargs))
    if torch.device(kwargs.get("device") or NAME).type != NAME:
        return results
    changed_in_place = {id(x.here): x for x in tensors if isinstance(x, Elsewhere)}
    return tree_map(lambda x: changed_in_place[id(x)] if id(x) in changed_in_place else _elsewhere(x), results)


def _tensors(tree):
    return [x for x in tree_leaves(tree) if isinstance(x, torch.Tensor)]


def _here(x):
    if isinstance(x, Elsewhere):
        return x.here
    return torch.device("cpu") if isinstance(x, torch.device) and x.type == NAME else x


def _elsewhere(x):
    return Elsewhere(x) if isinstance(x, torch.Tensor) else x
