"""An exported program, put together again after its graph was edited."""

from __future__ import annotations

import copy
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx
from torch.export import ExportedProgram, ModuleCallEntry
from torch.export.graph_signature import ExportGraphSignature, InputKind, InputSpec, OutputSpec, TensorArgument

from fxfuse.capture.exported_program import _constant_specs, _tensors
from fxfuse.capture.lifted import attributes_as_inputs
from fxfuse.modules.lookup import fetch

if TYPE_CHECKING:
    from collections.abc import Iterable


def rebuilt(program: ExportedProgram, draft: fx.GraphModule) -> ExportedProgram:
    """Return the program with the edited graph, and with the parameters that this needs.

    Args:
        program: what was captured.
        draft: the graph made of it by ``capture_program``, after the edits.
    """
    needed = {str(n.target): fetch(draft, str(n.target)) for n in draft.graph.nodes if n.op == "get_attr"}
    needed = {path: value for path, value in needed.items() if isinstance(value, Tensor)}
    before = _tensors(program)
    unused = _unused(program, before, needed)
    after = {**unused, **needed}
    specs = _input_specs(program, before, after)
    names = _lift(draft.graph, specs, program)
    signature = ExportGraphSignature(specs, _output_specs(program, names))
    draft.meta.update(program.graph_module.meta)
    return ExportedProgram(
        root=draft,  # which holds the graphs of its regions
        graph=draft.graph,
        graph_signature=signature,
        state_dict=_replaced(program.state_dict, before, after),
        range_constraints=program.range_constraints,
        module_call_graph=[_copied_entry(entry) for entry in program.module_call_graph],
        example_inputs=program.example_inputs,
        constants={n: v for n, v in program.constants.items() if n not in before or n in unused or needed.get(n) is v},
        verifiers=program.verifiers,
    )


def _copied_entry(entry: ModuleCallEntry) -> ModuleCallEntry:
    """Return an entry of which torch may rename the arguments."""
    signature = entry.signature
    if signature is None:
        return copy.copy(entry)
    inputs, outputs = ([copy.copy(argument) for argument in part] for part in (signature.inputs, signature.outputs))
    return replace(entry, signature=replace(signature, inputs=inputs, outputs=outputs))


def _unused(program: ExportedProgram, before: dict[str, Tensor], needed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return constants that no node ever read, but those of a module of which all others went: of a folded norm."""
    users = {node.name: node.users for node in program.graph.nodes if node.op == "placeholder"}
    used = {str(s.target) for s in _constant_specs(program) if users[s.arg.name]}
    emptied = {_module(path) for path in used} - {_module(path) for path in needed}
    return {path: value for path, value in before.items() if path not in used and _module(path) not in emptied}


def _module(path: str) -> str:
    return path.rpartition(".")[0]


def _input_specs(program: ExportedProgram, before: dict[str, Tensor], after: dict[str, Tensor]) -> list[InputSpec]:
    """Return what the inputs are now: old ones in their order, new parameters behind the old parameters."""
    specs: list[InputSpec] = []
    for spec in program.graph_signature.input_specs:
        path = str(spec.target)
        if path not in before:
            specs.append(spec)
        elif path in after:
            same = after[path] is before[path]
            specs.append(spec if same else replace(spec, kind=InputKind.PARAMETER, persistent=None))
    taken = {spec.arg.name for spec in specs} | {node.name for node in program.graph.nodes}
    new = [path for path in after if path not in before]
    added = [InputSpec(InputKind.PARAMETER, TensorArgument(free_name(path, taken)), path) for path in new]
    first = next((n for n, spec in enumerate(specs) if spec.kind != InputKind.PARAMETER), len(specs))
    return [*specs[:first], *added, *specs[first:]]


def free_name(path: str, taken: set[str]) -> str:
    """Return a name that is not taken yet, for what is at a path; it is taken from now on."""
    name = stem = "p_" + re.sub(r"\W", "_", path)
    number = 0
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name


def _lift(graph: fx.Graph, specs: list[InputSpec], program: ExportedProgram) -> list[str | None]:
    """Let a graph take its parameters as inputs, in the order of their specs; return the names of its outputs."""
    inputs = attributes_as_inputs(graph, {str(s.target): s.arg.name for s in specs if s.target is not None})
    old = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    body = next(node for node in graph.nodes if node.op != "placeholder")
    for name in [spec.arg.name for spec in specs]:
        body.prepend(inputs[name])
        if not inputs[name].meta and name in old:
            inputs[name].meta = dict(old[name].meta)
    outputs = graph.output_node().args[0]
    return [item.name if isinstance(item, fx.Node) else None for item in _listed(outputs)]


def _listed(outputs: Any) -> Iterable[Any]:
    return outputs if isinstance(outputs, (tuple, list)) else (outputs,)


def _output_specs(program: ExportedProgram, names: list[str | None]) -> list[OutputSpec]:
    specs = program.graph_signature.output_specs
    return [
        spec if name is None else replace(spec, arg=replace(spec.arg, name=name))
        for spec, name in zip(specs, names, strict=True)
    ]


def _replaced(state: dict[str, Any], before: dict[str, Tensor], after: dict[str, Tensor]) -> dict[str, Any]:
    """Return the state, in its order, with new entries behind those of the same module.

    A constant that is no parameter of the model, and so not in its state, is one after something was folded into it.
    """
    added: dict[str, list[str]] = {}
    for path in (path for path in after if path not in state and after[path] is not before.get(path)):
        added.setdefault(_module(path), []).append(path)
    result: dict[str, Any] = {}
    for path, value in state.items():
        if path in after:
            result[path] = after[path]
        elif path not in before:
            result[path] = value
        result |= {new: after[new] for new in added.pop(_module(path), ())}
    return {**result, **{new: after[new] for left in added.values() for new in left}}
