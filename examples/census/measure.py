"""Source text to numbers: definitions, complexity, size, hash. Pure; nothing is run or imported.

Cyclomatic complexity, per block: 1 + its decision points (McCabe). The blocks of a file are the
module itself (class bodies included) and each `def`, a nested one apart from the one around it;
lambdas and comprehensions belong to the block that they stand in. A decision point is each

- `if`, `elif`, conditional expression, `for`, `while`, `except`,
- `for` and `if` inside a comprehension,
- operand of an `and` / `or` chain after the first,
- `case`, except a bare `case _:`.

`else`, `finally`, `with` and `assert` add nothing. The complexity of a file is the sum over its
blocks; `peak` is its most complex block.
"""

from __future__ import annotations

import ast
import bz2
import hashlib
import io
import lzma
import tokenize
import warnings
import zlib
from dataclasses import dataclass

MODULE = "<module>"
_ERROR_CHARS = 160


@dataclass(frozen=True, slots=True)
class Shape:
    """What the syntax tree of one file says."""

    functions: int = 0
    classes: int = 0
    imports: int = 0
    complexity: int = 0
    peak: int = 0
    peak_name: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Packed:
    """The smallest of the compressed forms, and who made it."""

    codec: str
    size: int


@dataclass(slots=True)
class _Block:
    """One function, or the module: a name and a running complexity."""

    name: str
    complexity: int = 1


def shape(data: bytes) -> Shape:
    """Parse one file. What cannot be decoded or parsed is a `Shape` with an `error`."""
    try:
        text = _decode(data)
    except (SyntaxError, UnicodeDecodeError, LookupError) as error:
        return Shape(error=_reason("cannot be decoded", error))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Shape(error=_reason("cannot be parsed", error))
    return _count(tree)


def lines(data: bytes) -> int:
    """Lines of a file, by any of the three line ends; an unfinished last one counts."""
    return len(data.splitlines())


def digest(data: bytes) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def pack(data: bytes) -> Packed:
    """Compress with zlib, bzip2 and LZMA, each near its best, and keep the smallest."""
    sizes = {
        "zlib": len(zlib.compress(data, 9)),
        "bzip2": len(bz2.compress(data, 9)),
        "lzma": len(lzma.compress(data, preset=6 | lzma.PRESET_EXTREME)),
    }
    codec = min(sizes, key=lambda name: sizes[name])
    return Packed(codec, sizes[codec])


def _decode(data: bytes) -> str:
    """Bytes to text by the file's own coding line or byte order mark, as Python reads it."""
    encoding, _ = tokenize.detect_encoding(io.BytesIO(data).readline)
    return data.decode(encoding)


def _reason(what: str, error: Exception) -> str:
    """One short line. The parser's own names for a file that it was given as text are left out."""
    detail = error.msg if isinstance(error, SyntaxError) else str(error)
    line = f" (line {error.lineno})" if isinstance(error, SyntaxError) and error.lineno else ""
    text = f"{what}: {detail or type(error).__name__}{line}"
    return text if len(text) <= _ERROR_CHARS else text[: _ERROR_CHARS - 1] + "…"


def _count(tree: ast.Module) -> Shape:
    """Walk the tree once, with a stack of our own: some real files nest deeply."""
    blocks = [_Block(MODULE)]
    functions = classes = imports = 0
    stack: list[tuple[ast.AST, _Block, str]] = [(tree, blocks[0], "")]
    while stack:
        node, block, prefix = stack.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions += 1
            block = _Block(prefix + node.name)
            blocks.append(block)
            prefix = f"{prefix}{node.name}."
        elif isinstance(node, ast.ClassDef):
            classes += 1
            prefix = f"{prefix}{node.name}."
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports += 1
        else:
            block.complexity += _decisions(node)
        stack.extend((child, block, prefix) for child in ast.iter_child_nodes(node))
    peak = max(blocks, key=lambda block: block.complexity)
    total = sum(block.complexity for block in blocks)
    return Shape(functions, classes, imports, total, peak.complexity, peak.name)


_ONE = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)


def _decisions(node: ast.AST) -> int:
    """Decision points of this node alone, without its children."""
    if isinstance(node, _ONE):
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    if isinstance(node, ast.comprehension):
        return 1 + len(node.ifs)
    if isinstance(node, ast.match_case):
        pattern = node.pattern
        bare = isinstance(pattern, ast.MatchAs) and pattern.name is None and pattern.pattern is None
        return 0 if bare and node.guard is None else 1
    return 0
