"""One module's own forward, edited: a class derived from the user's that runs the edited graph."""

from __future__ import annotations

import functools
from dataclasses import replace

from torch import fx, nn
from torch.nn.utils import parametrize

from fxfuse.capture.tracer import Tracer
from fxfuse.edit.editor import Editor
from fxfuse.graph.graph import Graph
from fxfuse.graph.guard import Guard
from fxfuse.graph.plan import Plan
from fxfuse.modules.computed_weights import computes_weights, without_hooks
from fxfuse.modules.derived_class import can_be_derived, with_forward
from fxfuse.modules.guards import AssumedRank, require_rank
from fxfuse.modules.lookup import fetch, holds, shallow_copy
from fxfuse.report.errors import out_of_memory


class LocalEdit:
    """The edits of a large graph, repeated in the graph of one module's forward alone.

    The steps: ``of`` traces the forward, with every module that it calls as one node, and pairs its calls of functions
    with those in the large graph.  Once the rules are done, ``module`` repeats the edits, lets the module hold the new
    tensors, and derives a class.
    """

    def __init__(self, module: nn.Module, local: Editor, pairs: list[tuple[fx.Node, fx.Node]], editor: Editor) -> None:
        """Keep the two graphs.

        Args:
            module: the module.
            local: an editor of its own graph.
            pairs: calls in this graph, each with the same call in the large one.
            editor: the editor of the large graph.
        """
        self.original = module
        self.local = local
        self.pairs = pairs
        self.editor = editor

    @staticmethod
    def of(module: nn.Module, editor: Editor, calls: list[fx.Node]) -> LocalEdit | None:
        """Trace and pair, before the first edit; None where the forward cannot be edited.

        Args:
            module: the module.
            editor: the editor of the large graph.
            calls: the calls of functions and methods there that the forward makes.
        """
        if not (isinstance(module, fx.GraphModule) or can_be_derived(type(module))):
            return None
        tracer = _LocalTracer()
        try:
            local = Editor(Graph(tracer.capture(module)))
        except Exception as error:
            if out_of_memory(error):
                raise
            return None  # a user's forward can raise anything
        mine = [n for n, origin in local.origin.items() if _is_function(n) and not origin.owner]
        same = [(n.op, n.target) for n in mine] == [(n.op, n.target) for n in calls]
        return (
            LocalEdit(module, local, list(zip(mine, calls, strict=True)), editor)
            if same and not tracer.specialised
            else None
        )

    @functools.cached_property
    def module(self) -> nn.Module:
        """The module with the edits, its children left as they are."""
        for node, twin in reversed(self.pairs):
            self._repeat(node, twin)
        self.local.drop_dead()
        graph = self.local.graph_module.graph
        if isinstance(self.original, fx.GraphModule):
            return fx.GraphModule(self.local.graph_module, graph, type(self.original).__name__)
        left = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
        inputs = [node for node in graph.nodes if node.op == "placeholder"]
        if not left and len(inputs) == 1:
            return nn.Identity()
        if len(left) == 1 and left[0].target is require_rank:
            return AssumedRank(*left[0].args[1:])
        self._own_new_tensors()
        return self._derived()

    def _repeat(self, node: fx.Node, twin: fx.Node) -> None:
        """Make the edit that ``twin`` got at ``node``."""
        editor, graph = self.editor, self.local.graph
        bypass, source = editor.bypassed.get(twin), graph.source(node)
        if bypass is not None:
            guard = None if bypass.guard is None else Guard(node, bypass.guard.axes, or_more=bypass.guard.or_more)
            self.local.apply(Plan(bypass=((node, bypass.value(source)),), guard=guard), where=bypass.where)
        elif twin in editor.dropped:
            # Nobody uses its result any more, so that whatever it read stands for it.
            read = [value for value in source.all_input_nodes if value not in graph.constants]
            if read:
                self.local.apply(Plan(bypass=((node, read[0]),)))
        elif twin in editor.writes:
            self.local.apply(Plan(writes=(replace(editor.writes[twin], call=graph.read(node)),)))

    def _own_new_tensors(self) -> None:
        """Store new tensors on the module itself, where its forward read one of a child: the child stays as it is."""
        local = self.local
        for node in local.graph.nodes:
            name = str(node.target)
            if node.op != "get_attr" or "." not in name:
                continue
            value = fetch(local.graph_module, name)
            if not holds(self.original, name, value):
                local.storage.retarget(node, local.storage.store(name.replace(".", "_"), value))

    def _derived(self) -> nn.Module:
        """Return a copy of the module that holds the new tensors, of a class that runs the graph."""
        module, graph_module = self.original, self.local.graph_module
        copied, base = shallow_copy(module), type(module)
        read = {str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"}
        if parametrize.is_parametrized(module) and not any(name.startswith("parametrizations.") for name in read):
            # The weights are computed no longer, so the class is again what it was before parametrization.
            base = base.__bases__[0]
            del copied._modules["parametrizations"]
        if computes_weights(module):
            without_hooks(copied)
        before = {str(origin.target) for node, origin in self.local.origin.items() if node.op == "get_attr"}
        for store in (copied._parameters, copied._buffers):
            store.update({name: None for name in store if name in before - read})  # only the removed nodes read it
        for name, parameter in graph_module._parameters.items():
            if parameter is not module._parameters.get(name):
                copied._buffers.pop(name, None)
                copied._parameters[name] = parameter
        literals = {n: b for n, b in graph_module._buffers.items() if n in read and n not in module._buffers}
        copied._buffers.update({name: b for name, b in literals.items() if name not in copied._parameters})
        return with_forward(copied, graph_module.graph, base)


def _is_function(node: fx.Node) -> bool:
    return node.op in ("call_function", "call_method")


class _LocalTracer(Tracer):
    """Traces the forward of one module alone: every module that it calls is a single node."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002 - torch's signature
        """Every module is a leaf."""
        return True
