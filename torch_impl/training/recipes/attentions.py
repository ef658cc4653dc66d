"""Which attention a run has: a name of the catalog; a primal, and its text; or a primal in a Python file, FILE.py:NAME.

A run keeps the text of its primal, and the files that its parts come from with their SHA-256, and is rebuilt from both.
"""

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from primal_dual.primal import PARTS, Heads, Primal, catalog, is_built_in, members_of, parts_of
from torch_impl.data.messages import one_line
from torch_impl.registry import registered, torch_version

Attention = str | Primal | Heads

_FILES: dict[str, tuple[str, str]] = {}  # by the name of a module that was loaded from a file: its path and SHA-256


def find_attention(attention: Attention) -> Attention:
    """What a word means: FILE.py:NAME and the text of a primal become the primal; all else stays as it is.

    Parameters
    ----------
    attention : str, Primal or Heads
        FILE.py:NAME is a Primal or Heads called NAME in a Python file, which is executed.

    Raises
    ------
    ValueError
        For an unknown name; for a file that is missing, fails, or has no primal of that name; and for a text with a
        part whose class is not known here.

    Examples
    --------
    >>> find_attention("bn"), find_attention("Primal(scale=2)") == Primal(scale=2)
    ('bn', True)
    """
    if isinstance(attention, Primal | Heads):
        return attention
    if not isinstance(attention, str):
        raise ValueError(f"attention: expected a name of the catalog, a Primal or Heads; got {attention!r}")
    if attention.startswith(("Primal(", "Heads(")):
        return _read_text(attention, {})
    path, is_file, name = attention.rpartition(".py:")
    if is_file:
        return _find_in_file(Path(path + ".py"), name)
    _ = catalog[attention]
    return attention


def attention_text(attention: Attention) -> str:
    """What a run keeps of an attention: its name, or the text of the primal, from which `find_attention` gives it back.

    Raises
    ------
    ValueError
        For a primal whose text does not give it back, such as one with a Mask, and for a part without a torch version.

    Examples
    --------
    >>> attention_text("bn"), attention_text(Primal())[:40]
    ('bn', 'Primal(kernel=Exponential(scale=None), n')
    """
    if isinstance(attention, str):
        return attention
    for part in _parts(attention):
        torch_version(part)
    text = str(attention)
    try:
        same = _read_text(text, {type(part).__name__: type(part) for part in _parts(attention)}) == attention
    except ValueError as error:
        raise ValueError(f"attention: expected a primal that its text gives back; {error}") from error
    if not same:
        raise ValueError(f"attention: expected a primal that its text gives back; got {text}")
    return text


def attention_files(attention: Attention) -> dict[str, str]:
    """The files that the parts of an attention were loaded from: their SHA-256 by their path.

    Of a name that `register_attention` gave, it is that of the text of its primal, by the name.

    Examples
    --------
    >>> attention_files(Primal())
    {}
    """
    if isinstance(attention, str):
        return {} if is_built_in(attention) else {attention: _sha256_of(str(catalog[attention]).encode())}
    modules = {type(part).__module__ for part in _parts(attention)}
    return dict(_FILES[module] for module in sorted(modules & _FILES.keys()))


def rebuild_attention(text: str, files: Mapping[str, str]) -> Attention:
    """The attention of a run, from its text and its files.

    Raises
    ------
    ValueError
        For a file that is neither at its path nor in the working directory as it was, for a name that was registered
        and is not, or names another primal, and for what `find_attention` refuses.
    """
    if text in files:
        if text not in catalog or attention_files(text) != files:
            expected = "expected the name that register_attention gave to the primal that was trained"
            raise ValueError(f"{text}: {expected}; got {catalog.get(text, 'no such name')}")
        return text
    own: dict[str, Any] = {}
    for path, digest in files.items():
        places = [file for file in (Path(path), Path(Path(path).name)) if file.is_file()]
        same = [file for file in places if _sha256(file) == digest]
        if not same:
            expected = f"expected the file that the run was trained with, SHA-256 {digest}, there or in this folder"
            raise ValueError(f"{path}: {expected}; got {'another' if places else 'none'}")
        module = _load_file(same[0])
        own |= {name: each for name, each in vars(module).items() if isinstance(each, type)}
    return _read_text(text, own) if own else find_attention(text)


def _parts(attention: Primal | Heads) -> Iterator[Any]:
    """The kernel, the transforms and the support of each head."""
    for primal in members_of(attention):
        yield from parts_of(primal)


def _read_text(text: str, own: Mapping[str, Any]) -> Primal | Heads:
    """The primal that a text declares: calls of parts, `own` ones or those with a torch version, on plain values."""
    known: dict[str, Any] = {part.__name__: part for part in registered()}
    classes = known | dict(own) | {"Primal": Primal, "Heads": lambda primals: Heads(*primals)}

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Call(func=ast.Name(id=name)):
                if name not in classes:
                    raise ValueError(f"expected a part with a torch version; got {name}: is it registered here?")
                named = {str(each.arg): value(each.value) for each in node.keywords}
                return classes[name](*map(value, node.args), **named)
            case ast.Tuple(elts=elements):
                return tuple(map(value, elements))
            case ast.Constant() | ast.UnaryOp(operand=ast.Constant()):
                return ast.literal_eval(node)
            case _:
                raise ValueError(f"expected calls of parts, numbers and tuples; got {ast.unparse(node)}")

    try:
        return value(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError) as error:
        raise ValueError(f"expected the text of a primal; got {text}: {one_line(error)}") from error


def _find_in_file(path: Path, name: str) -> Primal | Heads:
    if not path.is_file():
        raise ValueError(f"{path}:{name}: expected a Python file with a primal called {name}; no such file")
    module = _load_file(path)
    found = getattr(module, name, None)
    if not isinstance(found, Primal | Heads):
        there = [each for each, value in vars(module).items() if isinstance(value, Primal | Heads)]
        got = repr(found) if hasattr(module, name) else f"none of this name; it has {', '.join(there) or 'no primal'}"
        raise ValueError(f"{path}:{name}: expected a Primal or Heads; got {one_line(got)}")
    for part in map(type, _parts(found)):
        if part.__module__ not in PARTS | {module.__name__}:  # a change of another file would not be noticed
            got = f"{part.__name__} of {part.__module__}"
            raise ValueError(
                f"{path}:{name}: expected parts that are defined in this file or in primal_dual; got {got}"
            )
    return found


def _load_file(path: Path) -> ModuleType:
    """The module in a file, which is executed once for each content."""
    digest = _sha256(path)
    name = f"attention_file_{_sha256_of(f'{path.resolve()} {digest}'.encode())}"
    if name in sys.modules:
        return sys.modules[name]
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module
    try:
        specification.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ValueError(f"{path}: expected a file that runs; got {type(error).__name__}: {one_line(error)}") from error
    _FILES[name] = (str(path.resolve()), digest)
    return module


def _sha256(path: Path) -> str:
    return _sha256_of(path.read_bytes())


def _sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
