"""What runs, written down as one graph: calls of layers, traced forwards, and ATen calls for the rest."""

from __future__ import annotations

import operator
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.weak import WeakTensorKeyDictionary

from fxfuse.graph.nodes import PART, PIECES, UNTRACED
from fxfuse.graph.ranks import EXAMPLE_SHAPE
from fxfuse.modules.handed_on import unboxed
from fxfuse.modules.lookup import tensor_paths

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEPTH = 4  # of objects in objects that are searched for tensors
_SPLITS = (torch.ops.aten.split.Tensor, torch.ops.aten.split_with_sizes.default)  # what chunk calls as well
_PLAIN = (int, float, bool, str, complex, type(None), torch.dtype, torch.device, torch.layout, torch.memory_format)


class Recorder(TorchDispatchMode):
    """Adds a node to a graph for everything that runs inside of it.

    Nothing that code does between two calls of torch is seen.  So nodes of code that was not traced are marked
    ``UNTRACED``: nothing folds into them or through them, and what they compute is never a constant.

    Attributes:
        graph: the graph.
        paused: what runs is recorded as a whole by somebody else.
        literals: paths -> tensors that traced forwards hold, and that are no parameters of the model.
    """

    def __init__(self, model: nn.Module) -> None:
        """Record calls of ``model``."""
        super().__init__()  # type: ignore[no-untyped-call] # of torch's
        self.graph = fx.Graph()
        self.paused = False
        self.literals: dict[str, Tensor] = {}
        self.stack: list[tuple[str, type, int]] = []
        self._held = dict(_named(model))
        self._memory = {_address(tensor): name for tensor, name in self._held.values() if _address(tensor)}
        self._nodes = WeakTensorKeyDictionary()
        self._numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an ATen call, and note it with the module under way."""
        del types
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        if not self.paused and any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves((args, kwargs, out))):
            node = self.add("call_function", func, self.lift((args, kwargs)), self.stack_here())
            node.meta[UNTRACED] = True
            if func in _SPLITS and not (args[2] if len(args) > 2 else kwargs.get("dim")):
                node.meta[PIECES] = True
            self.note(out, node)
        return out

    def add(self, op: str, target: Any, lifted: tuple[Any, Any], stack: Mapping[str, Any]) -> fx.Node:
        """Add a node with arguments that are nodes already."""
        node = self.graph.create_node(op, target, tuple(lifted[0]), dict(lifted[1]))
        node.meta["nn_module_stack"] = OrderedDict(stack)
        return node

    def note(self, out: Any, node: fx.Node) -> None:
        """Remember that a node gave these tensors; a call in place gives a tensor that was there a new node."""
        if isinstance(out, Tensor):
            self._nodes[out] = node
            node.meta[EXAMPLE_SHAPE] = torch.Size(out.shape)
        elif isinstance(out, (tuple, list, dict)):
            items = out.items() if isinstance(out, dict) else enumerate(out)
            for key, value in items:
                if isinstance(value, (Tensor, tuple, list, dict)):
                    item = self.add("call_function", operator.getitem, ((node, key), {}), node.meta["nn_module_stack"])
                    item.meta.update({name: node.meta[name] for name in (UNTRACED, PIECES, PART) if name in node.meta})
                    self.note(value, item)
        else:
            for tensor in tensors_in(out):
                self._nodes[tensor] = node  # part of an object: the node stands for all of it

    def lift(self, value: Any) -> Any:
        """Return a value with nodes in place of tensors; objects that a graph cannot hold become their tensors."""
        value = unboxed(value)
        if isinstance(value, Tensor):
            return self.node(value)
        if type(value) in (tuple, list, torch.Size):
            return type(value)(map(self.lift, value)) if type(value) is not torch.Size else tuple(value)
        if type(value) is dict and all(isinstance(key, str) for key in value):
            return {key: self.lift(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(*(self.lift(item) for item in (value.start, value.stop, value.step)))
        if isinstance(value, _PLAIN) or value is ...:
            return value
        return [self.node(tensor) for tensor in tensors_in(value)]

    def node(self, tensor: Tensor) -> fx.Node:
        """Return the node that gave a tensor: as far as is known, an input for one that was there before."""
        node = self._nodes.get(tensor)
        if node is not None:
            return node
        held = self._held.get(id(tensor))
        name = held[1] if held is not None else self._memory.get(_address(tensor))
        if name is None:
            with self.graph.inserting_before(next(iter(self.graph.nodes), None)):
                node = self.graph.placeholder(f"input_{self.new_number()}")
            self.note(tensor, node)
            return node
        read = self.read(name)
        # Other code may pass another tensor in another call: to what reads it, it is an input.
        passed = self.add("call_function", torch.ops.aten.alias.default, ((read,), {}), read.meta["nn_module_stack"])
        read.meta[UNTRACED] = passed.meta[UNTRACED] = True
        passed.meta[EXAMPLE_SHAPE] = torch.Size(tensor.shape)
        return passed

    def read(self, name: str) -> fx.Node:
        """Return a new node that reads a parameter or buffer by its path."""
        node = self.graph.get_attr(name)
        node.meta["nn_module_stack"] = self.stack_here()
        return node

    def held_as(self, tensor: Tensor) -> str | None:
        """Return the path of a parameter or buffer of the model; None for a tensor that was written or made since."""
        held = self._held.get(id(tensor)) if self._nodes.get(tensor) is None else None
        return None if held is None else held[1]

    def is_known(self, tensor: Tensor) -> bool:
        """Whether a node gave a tensor."""
        return self._nodes.get(tensor) is not None

    def literal(self, name: str, tensor: Tensor) -> fx.Node:
        """Return a node for a tensor that stands in traced code."""
        path = f"{name}_{self.new_number()}".replace(".", "_")
        self.literals[path] = tensor
        return self.read(path)

    def stack_here(self) -> OrderedDict[str, Any]:
        """Return the modules under way, the outermost first."""
        return OrderedDict((f"{path}@{number}", (path, cls)) for path, cls, number in self.stack)

    def new_number(self) -> int:
        """Return a number that nothing has yet."""
        self._numbers += 1
        return self._numbers

    def finish(self, root: nn.Module) -> fx.Graph:
        """Close the graph; whatever somebody still holds leaves it."""
        self.graph.output(tuple(dict.fromkeys(self._nodes.values())))
        for path, tensor in self.literals.items():
            root.register_buffer(path, tensor)
        return self.graph


def tensors_in(value: Any, depth: int = _DEPTH) -> list[Tensor]:
    """Return the tensors that an object holds."""
    found: list[Tensor] = []
    for leaf in pytree.tree_leaves(unboxed(value)):
        if isinstance(leaf, Tensor):
            found.append(leaf)
        elif depth and hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type)) and not callable(leaf):
            found += [t for item in vars(leaf).values() for t in tensors_in(item, depth - 1)]
    return found


def _named(model: nn.Module) -> list[tuple[int, tuple[Tensor, str]]]:
    """Return the parameters and buffers of a model by identity; the tensors are kept alive by this."""
    return [(id(tensor), (tensor, name)) for tensor, name in tensor_paths(model)]


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0  # tensors without memory of their own
