"""A mutation test of the core: break the source in one place, and see whether a test fails.

    python -m tests.mutation [--minutes 30] [--seed 0] [FILES]

It works in a copy of the tree. A mutant that no test notices is printed with its line: either a test is missing, or the
mutant is equivalent, which means that it computes the same.
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

PARTS = "test_kernel_matrix test_kernels test_transforms test_supports test_bad_input test_expansion test_gradients"
SVR = (
    "svr/test_optimality svr/test_training_sets test_bad_input certificates/test_certificate svr/test_solve test_edges"
)
SOLVER = " svr/test_projected_newton svr/test_gram_rows model_selection/test_estimator"
POSITIONS = "certificates/test_certificate certificates/test_causal_positions certificates/test_position_blocks"
MIRROR = "test_expansion test_masks fast/test_linear test_key_statistics fast/test_dispatch test_numerics test_compile"
TESTS = {  # of source files
    "primal_dual": {
        "expansion kernel_matrix sequence kernels transforms supports": PARTS,
        "svr/*": SVR + SOLVER,
        "certificates/[cgp]*": POSITIONS + " test_edges test_bad_input",
        "certificates/verification": "cli/test_commands",
        "model_selection/[elm]*": "model_selection/test_leaving_out model_selection/test_model_choice "
        "model_selection/test_estimator",
        "model_selection/[br]*": "model_selection/test_regularisation_path",
    },
    "torch_impl": {
        "kernels transforms supports key_statistics fast/*": MIRROR,
        "expansion": MIRROR + " test_bad_input drop_in/test_multihead",
        "certificate": "test_certificate",
    },
}
SWAPS = dict(
    Lt="LtE GtE", LtE="Lt Gt", Gt="GtE LtE", GtE="Gt Lt", Eq="NotEq", NotEq="Eq", Is="IsNot", IsNot="Is", In="NotIn"
) | dict(NotIn="In", Add="Sub", Sub="Add", Mult="Div", Div="Mult", FloorDiv="Mult", Mod="Mult", Pow="Mult")
SWAPS |= dict(BitAnd="BitOr", BitOr="BitAnd", And="Or", Or="And", USub="UAdd")
NAMES = dict(max="min", min="max", any="all", all="any", maximum="minimum", minimum="maximum")


def swapped(operator):
    return (getattr(ast, name)() for name in SWAPS.get(type(operator).__name__, "").split())


def changes(node):
    """The mutants of one node: (what holds the change, an attribute or index of it, the new value)."""
    match node:
        case ast.Compare():
            yield from ((node.ops, k, new) for k, operator in enumerate(node.ops) for new in swapped(operator))
        case ast.UnaryOp(op=ast.Not() | ast.Invert()):
            yield node, "operand", ast.UnaryOp(node.op, node.operand)
        case ast.BinOp() | ast.BoolOp() | ast.UnaryOp():
            yield from ((node, "op", new) for new in swapped(node.op))
        case ast.Constant(value=bool() | int() | float()):
            yield node, "value", not node.value if isinstance(node.value, bool) else node.value + 1
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in NAMES:
            yield node, "id" if isinstance(node, ast.Name) else "attr", NAMES[name]
        case ast.If() | ast.IfExp() | ast.While():
            yield node, "test", ast.UnaryOp(ast.Not(), node.test)
    for body in (getattr(node, "body", None), getattr(node, "orelse", None)):
        for k, each in enumerate(body if isinstance(body, list) else ()):
            call = isinstance(each, ast.Expr) and isinstance(each.value, ast.Call)
            if call or isinstance(each, ast.Assign | ast.AugAssign | ast.Raise | ast.If):
                yield body, k, ast.Pass()


def looked_at(node):
    """The nodes below one, without annotations and messages."""
    yield node
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns", "decorator_list") and not isinstance(node, ast.Raise | ast.JoinedStr):
            for child in value if isinstance(value, list) else [value]:
                yield from looked_at(child) if isinstance(child, ast.AST) else ()


def mutants(source):
    """The mutants of a source: (line, what is changed, the new source)."""
    tree = ast.parse(source)
    for node in looked_at(tree):
        for holder, place, new in changes(node):
            deleted, in_a_list = isinstance(new, ast.Pass), isinstance(holder, list)
            shown = holder[place] if deleted else node
            before, old = ast.unparse(shown), holder[place] if in_a_list else getattr(holder, place)
            put = holder.__setitem__ if in_a_list else holder.__setattr__
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
        os._exit(
            import_module("pytest").main(["-x", "-o", "addopts=", "-p", "no:cacheprovider", "--assert=plain", *tests])
        )
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        process, status = os.waitpid(child, os.WNOHANG)
        if process:
            return "killed" if status else "survived"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "out of time"


def sources(wanted):
    """The source files of the core, each with its tests."""
    for package, rooms in TESTS.items():
        for parts, names in rooms.items():
            tests = tuple(f"tests/{package}/{name}.py" for name in names.split())
            paths = (path for part in parts.split() for path in sorted(Path(package).glob(f"{part}.py")))
            yield from ((path, tests) for path in paths if not wanted or str(path) in wanted)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="all of the core unless given")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    copy = tempfile.mkdtemp(prefix="mutation-")
    shutil.copytree(".", copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "__pycache__", "runs"))
    os.chdir(copy)
    sys.path.insert(0, copy)
    del sys.modules["tests"]  # that of the tree which was copied
    os.environ |= {"HYPOTHESIS_PROFILE": "mutation", "OMP_NUM_THREADS": "1"}
    for library in ("hypothesis", "cvxpy", "torch", "sklearn.utils.estimator_checks", "scipy.signal"):
        import_module(library)
    limits, counts, drawn = {}, defaultdict(Counter), []
    for path, tests in sources(chosen.files):
        begun = time.monotonic()
        if tests not in limits and run(tests, 1800) != "survived":
            raise SystemExit(f"expected tests that pass before anything is broken: {' '.join(tests)}")
        limits.setdefault(tests, 30 + 5 * (time.monotonic() - begun))
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
        result = run(tests, limits[tests])
        path.write_text(whole)
        counts[path][result] += 1
        if result != "killed":
            print(f"{path}:{line}: {what}: {result}", flush=True)
    for path, count in sorted(counts.items()):
        print(f"{path}: " + ", ".join(f"{number} {result}" for result, number in sorted(count.items())))
    shutil.rmtree(copy)


if __name__ == "__main__":
    main()
