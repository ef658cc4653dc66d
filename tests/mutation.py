"""A mutation test of the core: break the source in one place, and see whether a test fails.

    python -m tests.mutation [--minutes 30] [--seed 0] [FILES]

Everything happens in a copy of the tree. A mutant that no test notices is printed with its line: either a test is
missing, or the mutant is equivalent, which means that it computes the same.
"""

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from importlib import import_module
from pathlib import Path

PARTS = "test_kernels test_transforms test_supports test_bad_input test_expansion test_gradients"
SOLVERS = "test_bad_input svr/test_certificate svr/test_solve"
MIRROR = "test_expansion test_masks fast/test_dispatch test_numerics"
TESTS = {
    "primal_dual": {
        "expansion": PARTS,
        "kernel_matrix": "test_kernel_matrix " + PARTS,
        "sequence": PARTS,
        "kernels": PARTS,
        "transforms": PARTS,
        "supports": PARTS + " svr/test_certificate",
        "svr/training_sets": SOLVERS,
        "svr/quadratic_programs": SOLVERS,
        "svr/active_set": SOLVERS + " svr/test_newton",
        "svr/optimality": SOLVERS,
        "svr/features": SOLVERS,
        "svr/solve": SOLVERS + " svr/test_estimator",
        "svr/certificate": SOLVERS,
    },
    "torch_impl": {
        "expansion": "test_bad_input " + MIRROR + " drop_in/test_multihead",
        "kernels": MIRROR,
        "transforms": MIRROR,
        "supports": MIRROR,
        "key_statistics": MIRROR,
        "certificate": "test_certificate",
        "fast/*": "test_bad_input " + MIRROR,
    },
}
SWAPS = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Add: (ast.Sub,),
    ast.Sub: (ast.Add,),
    ast.Mult: (ast.Div,),
    ast.Div: (ast.Mult,),
    ast.FloorDiv: (ast.Mult,),
    ast.Mod: (ast.Mult,),
    ast.Pow: (ast.Mult,),
    ast.BitAnd: (ast.BitOr,),
    ast.BitOr: (ast.BitAnd,),
    ast.And: (ast.Or,),
    ast.Or: (ast.And,),
    ast.USub: (ast.UAdd,),
}
NAMES = {"max": "min", "min": "max", "any": "all", "all": "any", "maximum": "minimum", "minimum": "maximum"}


def changes(node):
    """The mutants of one node: (object, attribute or index, new value)."""
    if isinstance(node, ast.Compare):
        for k, operator in enumerate(node.ops):
            yield from ((node.ops, k, new()) for new in SWAPS[type(operator)])
    elif isinstance(node, ast.BinOp | ast.BoolOp | ast.UnaryOp):
        yield from ((node, "op", new()) for new in SWAPS.get(type(node.op), ()))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.Invert):
            yield node, "operand", ast.UnaryOp(node.op, node.operand)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        yield node, "value", not node.value if isinstance(node.value, bool) else node.value + 1
    elif isinstance(node, ast.Name | ast.Attribute):
        field = "id" if isinstance(node, ast.Name) else "attr"
        if getattr(node, field) in NAMES:
            yield node, field, NAMES[getattr(node, field)]
    elif isinstance(node, ast.If | ast.IfExp | ast.While):
        yield node, "test", ast.UnaryOp(ast.Not(), node.test)
    for statements in (getattr(node, "body", ()), getattr(node, "orelse", ())):
        for k, each in enumerate(statements if isinstance(statements, list) else ()):
            call = isinstance(each, ast.Expr) and not isinstance(each.value, ast.Constant)
            if call or isinstance(each, ast.Assign | ast.AugAssign | ast.Raise | ast.If):
                yield statements, k, ast.Pass()


def looked_at(node):
    """The nodes below one, without annotations and messages."""
    yield node
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list") and not isinstance(node, ast.Raise | ast.JoinedStr):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from looked_at(child)


def mutants(source):
    """The mutants of a source: (line, what is changed, the new source)."""
    tree = ast.parse(source)
    for node in looked_at(tree):
        for holder, place, new in changes(node):
            deleted = isinstance(new, ast.Pass)
            shown = holder[place] if deleted else node
            before, old = ast.unparse(shown), holder[place] if isinstance(holder, list) else getattr(holder, place)
            put = holder.__setitem__ if isinstance(holder, list) else holder.__setattr__
            put(place, new)
            what = f"{before}  ->  {'deleted' if deleted else ast.unparse(node)}"
            yield shown.lineno, " ".join(what.split())[:160], ast.unparse(tree)
            put(place, old)


def run(tests, seconds):
    """Run tests in a process of its own, which has the large libraries already: "survived" if they all pass."""
    child = os.fork()
    if not child:
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        import pytest

        os._exit(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", *tests]))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return "killed" if status else "survived"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "out of time"


def files(wanted):
    """The source files of the core, each with its tests."""
    for package, parts in TESTS.items():
        for part, names in parts.items():
            for path in sorted(Path(package).glob(f"{part}.py")):
                tests = [f"tests/{package}/{name}.py" for name in names.split()]
                if path.stem != "__init__" and (not wanted or str(path) in wanted):
                    yield path, tests


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="all of the core unless given")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    copy = tempfile.mkdtemp(prefix="mutation-")
    for name in ("primal_dual", "torch_impl", "tests", "tutorials", "pyproject.toml", "README.md"):
        shutil.copytree(name, Path(copy, name)) if Path(name).is_dir() else shutil.copy(name, copy)
    os.chdir(copy)
    sys.path.insert(0, copy)
    del sys.modules["tests"]  # that of the tree which was copied
    os.environ |= {"HYPOTHESIS_PROFILE": "mutation", "OMP_NUM_THREADS": "1"}
    for library in ("cvxpy", "torch", "sklearn.utils.estimator_checks", "scipy.signal"):
        import_module(library)
    limits, counts, drawn = {}, defaultdict(Counter), []
    for path, tests in files(chosen.files):
        begun = time.monotonic()
        if limits.get(tuple(tests)) is None and run(tests, 600) != "survived":
            raise SystemExit(f"{path}: expected tests that pass before anything is broken: {' '.join(tests)}")
        limits.setdefault(tuple(tests), 10 + 3 * (time.monotonic() - begun))
        drawn += [(path, tests, *mutant) for mutant in mutants(path.read_text())]
    print(f"{len(drawn)} mutants", flush=True)
    random.Random(chosen.seed).shuffle(drawn)
    end = time.monotonic() + 60 * chosen.minutes
    for k, (path, tests, line, what, source) in enumerate(drawn):
        if time.monotonic() > end:
            break
        whole = path.read_text()
        path.write_text(source)
        os.utime(path, (k, k))  # a time of its own, so that no compiled file is taken for it
        result = run(tests, limits[tuple(tests)])
        path.write_text(whole)
        counts[path][result] += 1
        if result == "survived":
            print(f"{path}:{line}: {what}", flush=True)
    for path, count in sorted(counts.items()):
        print(f"{path}: " + ", ".join(f"{number} {result}" for result, number in sorted(count.items())))
    shutil.rmtree(copy)


if __name__ == "__main__":
    main()
