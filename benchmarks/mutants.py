"""Mutants of functions: mutmut says what to change, and the code of the running function is exchanged for it.

mutmut's own runner imports mutated copies of all files, leaves out properties, and runs every test of a mutated
*function*, which for most functions here are thousands. Exchanging `__code__` needs no copies, reaches properties, and
knows the mutated *line*.
"""

# ruff: noqa: INP001 - a script

from __future__ import annotations

import functools
import importlib
import re
from collections import Counter
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import libcst as cst
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.file_mutation import create_mutations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# mutmut leaves decorated functions alone.  These decorators do nothing when the function is defined, so that the code
# below them can be exchanged as any other: here they become comments, and lines keep their numbers.
_DECORATOR = re.compile(r"@(?=(property|functools\.cached_property|staticmethod)\n)")
# That two lists are of one length is asserted, and no input breaks it: without the assertion nothing else happens.
_STRICT = re.compile(r", strict=True(?=\))")
_WHILE_IMPORTED = "_register"  # such functions fill the tables before any test runs


@dataclass(frozen=True, eq=False)
class Mutant:
    """One change of one function.

    Attributes:
        file: where the function stands, as `fxfuse/algebra/affine.py`.
        function: its qualified name in there.
        number: counts the mutants of the function.
        lines: the lines of what is changed.
        module: the file.
        old: what is replaced.
        new: what replaces it.
    """

    file: str
    function: str
    number: int
    lines: range
    module: cst.Module
    old: cst.CSTNode
    new: cst.CSTNode

    @property
    def name(self) -> str:
        """The file, the function and the number in it."""
        return f"{self.file}:{self.function}:{self.number}"

    def __str__(self) -> str:
        old, new = (" ".join(self.module.code_for_node(node).split()) for node in (self.old, self.new))
        return f"{self.name} (line {self.lines[0]}): {old}  ->  {new}"

    def put_in_place(self) -> None:
        """Exchange the code of the function, in this process, for good.

        Raises:
            ValueError: if the changed function reads other variables of what is around it.
        """
        module = importlib.import_module(self.file.removesuffix(".py").replace("/", "."))
        path = self.function.split(".")
        changed = self.module.deep_replace(self.old, self.new)
        assert isinstance(changed, cst.Module)  # noqa: S101 - a change within a module
        compiled = compile(changed.code, str(module.__file__), "exec", dont_inherit=True)
        _live(module, path).__code__ = _code(compiled, path)


def _live(module: ModuleType, path: list[str]) -> FunctionType:
    found: Any = module
    for name in path:
        found = vars(found)[name]
    if isinstance(found, property):
        found = found.fget
    elif isinstance(found, functools.cached_property):
        found = found.func
    elif isinstance(found, staticmethod):
        found = found.__func__
    assert isinstance(found, FunctionType), f"{'.'.join(path)} is {found!r}"  # noqa: S101 - else nothing is tested
    return found


def _code(within: CodeType, path: list[str]) -> CodeType:
    for name in path:
        within = next(c for c in within.co_consts if isinstance(c, CodeType) and c.co_name == name)
    return within


def mutants(path: Path, file: str) -> list[Mutant]:
    """Return the mutants of all functions of a file; those that only change the text of a sentence are left out."""
    module, mutations, *_ = create_mutations(file, _STRICT.sub("", _DECORATOR.sub("# @", path.read_text())))
    positions = MetadataWrapper(module, unsafe_skip_copy=True).resolve(PositionProvider)
    names = {node: name for node, name in _functions(module) if not name.startswith(_WHILE_IMPORTED)}
    found: list[Mutant] = []
    counts = Counter[str]()
    for mutation in mutations:
        old, function = mutation.original_node, mutation.contained_by_top_level_function
        if function in names and not _is_sentence(old):
            lines = range(positions[old].start.line, positions[old].end.line + 1)
            name = names[function]
            found.append(Mutant(file, name, counts[name], lines, module, old, mutation.mutated_node))
            counts[name] += 1
    return found


def _functions(module: cst.Module) -> Iterator[tuple[cst.CSTNode, str]]:
    for statement in module.body:
        if isinstance(statement, cst.FunctionDef):
            yield statement, statement.name.value
        elif isinstance(statement, cst.ClassDef):
            methods = (s for s in statement.body.body if isinstance(s, cst.FunctionDef))
            yield from ((method, f"{statement.name.value}.{method.name.value}") for method in methods)


def _is_sentence(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.SimpleString) and " " in node.value
