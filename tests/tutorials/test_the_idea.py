"""The idea in one file: what must hold of tutorial 0, and tutorial 0 as an independent oracle for the package.

It imports nothing of ours, so its functions can be wrong only in ways of their own.
"""

import ast
import re
import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from primal_dual import BatchNorm, Primal, attention, certify, solve_dual, solve_primal

PATH = Path(__file__).parents[2] / "tutorials" / "00_the_idea_in_one_file.py"
QUERIES, KEYS, OUTPUTS, DIMENSION = 7, 11, 3, 2  # the features of the file are those of two coordinates
TRANSFORMS = (), BatchNorm(), BatchNorm(beta=0.5, eps=1e-2)
problems = given(st.integers(0, 2**32 - 1), st.sampled_from(TRANSFORMS))


@pytest.fixture(scope="module")
def printed_and_idea():
    from contextlib import redirect_stdout
    from io import StringIO

    with redirect_stdout(StringIO()) as printed:
        functions = runpy.run_path(str(PATH))
    return printed.getvalue(), functions


@pytest.fixture(scope="module")
def idea(printed_and_idea):
    return printed_and_idea[1]


def draw(seed):
    """Queries, keys and targets as in the file: |x|^2 is at most 8, for which 30 terms of the series are enough."""
    rng = np.random.default_rng(seed)
    queries, keys = rng.uniform(-1, 2, (QUERIES, DIMENSION)), rng.uniform(-1, 2, (KEYS, DIMENSION))
    return queries, keys, rng.standard_normal((KEYS, OUTPUTS))


def transformed(idea, transform, x, keys):
    return idea["batch_norm"](x, keys, transform.beta, transform.eps) if transform else x


def test_it_is_short_and_needs_numpy_and_cvxpy_alone():
    text = PATH.read_text()
    assert len(text.splitlines()) <= 120
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    modules = [getattr(node, "module", None) or alias.name for node in imports for alias in node.names]
    assert sorted(modules) == ["cvxpy", "numpy"]


def test_it_prints_what_it_asserts(printed_and_idea):
    lines = printed_and_idea[0].splitlines()
    for line, claim in zip(
        lines,
        ("softmax attention: ", "Attention-BN: ", "Attention-BN = softmax", "Attention-SH: ", "any attention head: "),
        strict=True,
    ):
        assert line.startswith(claim)
    for line in lines:
        if "primal" in line:
            primal, dual = re.search(r"primal ([\d.]+) = dual ([\d.]+), relative gap \de-\d\d", line).groups()
            assert primal == dual
    assert len(re.findall(r"^assert |^    assert ", PATH.read_text(), re.MULTILINE)) == 3


@problems
def test_attention_is_that_of_the_package(idea, seed, transform):
    queries, keys, values = draw(seed)
    by_idea = idea["attention"](*(transformed(idea, transform, x, keys) for x in (queries, keys)), values)
    by_package = attention(Primal(transform=transform or ()), queries, keys, values)
    np.testing.assert_allclose(by_package, by_idea, rtol=0, atol=1e-13 * abs(values).max() * 10)


@given(st.integers(0, 2**32 - 1))
def test_batch_norm_is_that_of_the_package(idea, seed):
    queries, keys, _ = draw(seed)
    for beta, eps in product((0.0, 0.3, 1.0), (1e-5, 1e-2)):
        by_package = BatchNorm(beta, eps).fit(keys, np.ones(KEYS, bool))(queries)
        np.testing.assert_allclose(by_package, idea["batch_norm"](queries, keys, beta, eps), rtol=1e-13, atol=1e-14)


@settings(max_examples=10)
@problems
def test_primal_and_dual_solutions_are_those_of_the_package(idea, seed, transform):
    """In units of the file: the same optimum of both problems, and from both solutions the same function."""
    queries, keys, targets = draw(seed)
    T_queries, T_keys = (transformed(idea, transform, x, keys) for x in (queries, keys))
    h = (idea["features"](T_keys) @ idea["features"](T_keys).T).sum(axis=1, keepdims=True)
    z, C, epsilon = idea["features"](T_keys) / h, 10 * np.median(h), 0.1
    W, optimum = idea["solve_primal"](z, targets, C, epsilon)
    alpha, alpha_tilde, bound = idea["solve_dual"](z @ z.T, targets, C, epsilon)
    h_queries = (idea["features"](T_queries) @ idea["features"](T_keys).T).sum(axis=1, keepdims=True)
    layer = idea["features"](T_queries) @ W.T / h_queries
    expansion = idea["attention"](T_queries, T_keys, (alpha - alpha_tilde) / h)

    primal = Primal(transform=transform or ())
    by_primal = solve_primal(primal, keys, targets, C=C, epsilon=epsilon)
    by_dual = solve_dual(primal, keys, targets, C=C, epsilon=epsilon)
    for value in (by_primal.value, by_dual.value):
        np.testing.assert_allclose(value, [optimum, bound], rtol=1e-9)
    size = abs(targets).max()
    for solution in (by_primal, by_dual):
        np.testing.assert_allclose(solution.predict(queries), layer, rtol=0, atol=1e-6 * size)
        np.testing.assert_allclose(solution.predict(queries), expansion, rtol=0, atol=1e-6 * size)
    np.testing.assert_allclose(by_dual.alpha, np.maximum(alpha - alpha_tilde, 0), rtol=0, atol=1e-5 * C)
    np.testing.assert_allclose(by_dual.alpha_tilde, np.maximum(alpha_tilde - alpha, 0), rtol=0, atol=1e-5 * C)


@problems
def test_certificates_hold_by_the_formulas_of_the_file(idea, seed, transform):
    _, keys, values = draw(seed)
    T_keys = transformed(idea, transform, keys, keys)
    h = (idea["features"](T_keys) @ idea["features"](T_keys).T).sum(axis=1, keepdims=True)
    delta, z = h * values, idea["features"](T_keys) / h
    certificate = certify(Primal(transform=transform or ()), keys, values)
    unit = np.exp(certificate.log_scale)
    np.testing.assert_allclose(certificate.targets, idea["attention"](T_keys, T_keys, values), rtol=0, atol=1e-12)
    np.testing.assert_allclose(certificate.primal_value * unit, ((delta.T @ z) ** 2).sum() / 2, rtol=1e-9)
    np.testing.assert_allclose(np.exp(certificate.log_C), abs(delta).max(), rtol=1e-11)
