"""The smallest program that still differs: all is taken away that can be."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator

from .driver import compiled
from .generate import Expr, Node, Program

SECONDS = 60.0


def blocks(nodes: list[Node]) -> Iterator[list[Node]]:
    """Every list of statements, the outermost first."""
    yield nodes
    for node in nodes:
        for _, body in node.parts:
            if body is not None:
                yield from blocks(body)


def expressions(nodes: list[Node]) -> Iterator[Expr]:
    waiting = [head for block in blocks(nodes) for node in block for head, _ in node.parts]
    while waiting:
        expr = waiting.pop()
        yield expr
        waiting += expr.kids


def cuts(program: Program) -> Iterator[Callable[[Program], object]]:
    """Ways to make a program smaller, each a change of a copy."""
    for i, block in enumerate(blocks(program.nodes)):
        size = len(block)
        while size > 0:
            for at in range(0, len(block), size):

                def delete(p: Program, i: int = i, at: int = at, size: int = size) -> None:
                    del [*blocks(p.nodes)][i][at : at + size]

                yield delete
            size //= 2
    for i, block in enumerate(blocks(program.nodes)):
        for at, node in enumerate(block):
            if len(node.parts) > 1:
                for part in range(1, len(node.parts)):

                    def drop(p: Program, i: int = i, at: int = at, part: int = part) -> None:
                        del [*blocks(p.nodes)][i][at].parts[part]

                    yield drop
            if i > 0 and any(body is not None for _, body in node.parts):

                def unwrap(p: Program, i: int = i, at: int = at) -> None:
                    block = [*blocks(p.nodes)][i]
                    block[at : at + 1] = [n for _, body in block[at].parts for n in body or []]

                yield unwrap
    for i, expr in enumerate(expressions(program.nodes)):
        for k in range(len(expr.kids)):

            def lift(p: Program, i: int = i, k: int = k) -> None:
                outer = [*expressions(p.nodes)][i]
                inner = outer.kids[k]
                if outer.many:
                    del outer.kids[k]
                elif inner.kids:
                    outer.kids[k] = inner.kids[0]

            yield lift


def shrink(program: Program, differs: Callable[[Program], bool]) -> Program:
    """Return the smallest program found that differs."""
    end = time.monotonic() + SECONDS
    again = True
    while again:
        again = False
        cut = cuts(program)
        while (change := next(cut, None)) is not None and time.monotonic() < end:
            smaller = copy.deepcopy(program)
            try:
                change(smaller)
                source = smaller.source()
                if len(source) >= len(program.source()):
                    continue
                compiled(source)
            except (SyntaxError, IndexError):
                continue  # what is left is no program, or the list is shorter by now
            if differs(smaller):
                program, again = smaller, True
    return program
