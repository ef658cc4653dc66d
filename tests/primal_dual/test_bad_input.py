"""Bad input is a ValueError that names what was expected and what came."""

import numpy as np
import pytest

from primal_dual import (
    BatchNorm,
    Causal,
    Convolution,
    Exponential,
    Gaussian,
    Heads,
    Mask,
    Polynomial,
    Primal,
    RandomFeatures,
    Strided,
    Taylor,
    Window,
    attention,
    attention_weights,
    catalog,
    certify,
    encoder,
    encoder_params,
    heads,
    self_attention,
    solve_dual,
    solve_primal,
)

Q, K, V = np.ones((5, 3)), np.arange(21.0).reshape(7, 3), np.ones((7, 2))
NAN = np.where(np.arange(21).reshape(7, 3) == 4, np.nan, K)
SVR = dict(C=1.0, epsilon=0.1)


@pytest.mark.parametrize(
    "declare",
    [
        lambda: Primal(kernel="softmax"),
        lambda: Primal(kernel=Exponential),
        lambda: Primal(normalizer="mean"),
        lambda: Primal(scale=0),
        lambda: Primal(scale=1.5),
        lambda: Primal(scale=True),
        lambda: Exponential(scale=True),
        lambda: BatchNorm(eps=True),
        lambda: Gaussian(True),
        lambda: Primal(scale=np.timedelta64(2, "s")),
        lambda: Primal(bias=1),
        lambda: Primal(transform="bn"),
        lambda: Primal(transform=BatchNorm),
        lambda: Primal(transform=(BatchNorm(), None)),
        lambda: Primal(support="causal"),
        lambda: Primal(support=Causal),
        lambda: Heads(),
        lambda: Heads("bn"),
        lambda: heads("bn", 0),
        lambda: Window(-1),
        lambda: Window(1.5),
        lambda: Strided(0),
        lambda: Mask([[1, 0]]),
        lambda: Mask([True]),
        lambda: Mask([]),
        lambda: Convolution(()),
        lambda: Convolution((1, 2)),
        lambda: Convolution(((1, 2, 3), (1, 2, 3)), 4),
        lambda: Convolution(((1,), (1, 2, 3), (1,)), 4),
        lambda: Convolution(((1,),)),
        lambda: Convolution((1,), width=4),
        lambda: Convolution(((1,),), width=0),
        lambda: Convolution((np.nan,)),
        lambda: Convolution("abc"),
        lambda: BatchNorm(eps=0),
        lambda: BatchNorm(beta=np.inf),
        lambda: BatchNorm(beta=np.datetime64(3, "ns")),
        lambda: BatchNorm(beta=np.timedelta64(3, "ns")),
        lambda: Exponential(scale=0),
        lambda: Gaussian(-1),
        lambda: Taylor(-1),
        lambda: Polynomial(0, 1),
        lambda: Polynomial(2, -1),
        lambda: RandomFeatures(0, 1),
        lambda: RandomFeatures(3, -1),
    ],
)
def test_declarations(declare):
    with pytest.raises(ValueError, match=r"expected .*(got|of)"):
        declare()


def test_unknown_names_list_the_near_ones():
    for unknown in (lambda: catalog["bn+hs"], lambda: heads("linear_bn", 2)):
        with pytest.raises(ValueError, match=r"did you mean .*bn"):
            unknown()
    with pytest.raises(ValueError, match="expected one of softmax"):
        catalog["zzzz"]


@pytest.mark.parametrize(
    "q, k, v, mask",
    [
        (Q[:, :2], K, V, None),
        (Q, K, V[:6], None),
        (Q, NAN, V, None),
        (Q * np.inf, K, V, None),
        (Q * 1j, K, V, None),
        (Q, K.astype(object), V, None),
        (Q, np.array([["a"] * 3] * 7), V, None),
        (Q, K[:0], V[:0], None),
        (Q[:, :0], K[:, :0], V, None),
        (Q[0], K, V, None),
        (Q, K[0], V, None),
        (Q, [[1.0, 2.0], [1.0]], V, None),
        (Q, K, V, np.ones(6, bool)),
        (Q, K, V, np.ones(7)),
        (Q, K, V, np.zeros(7, bool)),
        (Q, K, V, True),
        (Q, K, V, np.array([[True] * 7, [False] * 7])),
        (np.ones((2, 5, 3)), np.ones((3, 7, 3)), V, None),
        (Q, K, V, "mask"),
    ],
)
def test_arrays_of_attention(q, k, v, mask):
    with pytest.raises(ValueError, match=r"expected .*got"):
        attention(Primal(), q, k, v, mask)


OPPOSITE = np.array([[1.0, 0, 0], [-1, 0, 0]])


@pytest.mark.parametrize(
    "primal, q, k, mask, message",
    [
        (Primal(support=Window(1)), np.ones((20, 3)), K, None, "query 8 sees no key"),
        (Primal(support=Window(0)), Q, K, np.arange(7) != 1, "query 1 sees no key"),
        (Primal(support=Mask(np.zeros((5, 7), bool))), Q, K, None, "query 0 sees no key"),
        (Primal(support=Mask(np.ones((7, 5), bool))), Q, K, None, r"expected a table \(5, 7\).*got \(7, 5\)"),
        (Primal(Polynomial(1, 0)), Q, OPPOSITE, None, "near zero"),
        (Primal(normalizer="one"), 1e3 * Q, K, None, "too large for a float"),
        (Heads(Primal(), Primal()), Q, K, None, r"expected \(..., 2 heads, tokens, features\); got \(5, 3\)"),
    ],
)
def test_primals_of_attention(primal, q, k, mask, message):
    with pytest.raises(ValueError, match=message):
        attention(primal, q, k, V[: len(k)], mask)


def test_other_entries():
    with pytest.raises(ValueError, match="expected shape"):
        attention_weights(Primal(), Q, K[0])
    with pytest.raises(ValueError, match="expected shape"):
        self_attention({}, K[0], Primal())
    with pytest.raises(ValueError, match=r"\(N, Dv\), .* got \(7,\); x\[:, None\] makes a column"):
        solve_dual(Primal(), K, V[:, 0], **SVR)
    with pytest.raises(ValueError, match="q: expected real numbers; got generator"):
        attention(Primal(), (x for x in Q), K, V)
    with pytest.raises(ValueError, match="q: expected real numbers; got dtype object"):
        attention(Primal(), [[None, 1.0]], K, V)
    with pytest.raises(ValueError, match=r"keys: expected shape \(N, D\), no axis empty; got \(7,\)$"):
        solve_dual(Primal(), K[:, 0], V, **SVR)
    with pytest.raises(ValueError, match=r"installed, .*; got 'Newton'"):
        solve_dual(Primal(), K, V, solver="Newton", **SVR)
    with pytest.raises(ValueError, match="is NaN or too large"):
        solve_dual(Primal(normalizer="one"), 100 * K, V, **SVR)


@pytest.mark.parametrize("solve", [solve_primal, solve_dual])
@pytest.mark.parametrize(
    "change",
    [
        dict(C=0),
        dict(C=-1.0),
        dict(C=np.inf),
        dict(C="1"),
        dict(epsilon=-0.1),
        dict(epsilon=np.nan),
        dict(solver="NONE"),
        dict(query=-1),
        dict(query=0.5),
        dict(keys=NAN),
        dict(keys=K[None]),
        dict(targets=V[:, 0]),
        dict(targets=V[:5]),
        dict(targets=V * np.nan),
        dict(primal=Primal(support=Causal())),
        dict(solver_options={"no_such_option": 1}),
        dict(solver_options={"max_iter": 1}),
        dict(primal=Heads(Primal(), Primal())),
        dict(primal=Primal(support=Mask(np.zeros((7, 7), bool))), query=3),
    ],
)
def test_solvers(solve, change):
    problem = dict(primal=Primal(), keys=K / 20, targets=V, **SVR) | change
    with pytest.raises(ValueError, match=r"expected .*|ended without a solution"):
        solve(problem.pop("primal"), problem.pop("keys"), problem.pop("targets"), **problem)


@pytest.mark.parametrize(
    "change",
    [
        dict(values=V[:6]),
        dict(values=NAN),
        dict(keys=K[None]),
        dict(C=0),
        dict(epsilon=-1),
        dict(targets=V[:5]),
        dict(query=-1),
        dict(query=0.5),
    ],
)
def test_certify(change):
    problem = dict(keys=K, values=V) | change
    with pytest.raises(ValueError, match=r"expected .*got"):
        certify(Primal(), problem.pop("keys"), problem.pop("values"), **problem)


class Broken:
    """A part that gives what it should not."""

    def __init__(self, result):
        self.result = result

    def log_gram(self, x, y):
        return self.result

    def sees(self, i, j):
        return self.result

    def fit(self, keys, valid):
        return lambda x: self.result


@pytest.mark.parametrize("result", [None, 1.0, np.ones(3)])
def test_parts_of_ones_own(result):
    for part in ("kernel", "support", "transform"):
        primal = Primal(**{part: Broken(result)})
        with pytest.raises(ValueError, match=r"expected .*got"):
            attention(primal, Q, K, V)
    with pytest.raises(ValueError, match="is NaN or too large"):
        attention(Primal(Broken(np.full((5, 7), np.nan))), Q, K, V)


@pytest.mark.parametrize("primal", ["bn", Primal, None])
def test_no_primal(primal):
    for f in (
        lambda: attention(primal, Q, K, V),
        lambda: solve_dual(primal, K, V, **SVR),
        lambda: certify(primal, K, V),
    ):
        with pytest.raises(ValueError, match="expected a Primal"):
            f()


def test_shapes_that_clash_in_a_certificate():
    with pytest.raises(ValueError, match="as many outputs as the values, 2; got"):
        certify(Primal(), K / 20, V, targets=K, C=1.0)
    with pytest.raises(ValueError, match=r"expected shape \(M, 3\)"):
        certify(Primal(), K / 20, V).error_bound(K[:, :2])
    with pytest.raises(ValueError, match="that a float can hold"):
        certify(Primal(), K / 20, 1e300 * V)


def test_heads_without_heads():
    for keys in (None, 3.0, [], K):
        with pytest.raises(ValueError, match=r"expected \(1, N, ...\)"):
            certify(Heads(Primal()), keys, V[None])
    solution = solve_dual(Heads(Primal()), K[None] / 20, V[None], **SVR)
    with pytest.raises(ValueError, match=r"expected \(1, N, ...\)"):
        solution.predict(K)


@pytest.mark.parametrize(
    "f",
    [
        lambda: attention(Primal(Polynomial(200, 1.0)), 30 * Q, 30 * K, V),
        lambda: attention(Primal(), Q, K, V, [[True] * 7, [True]]),
        lambda: Mask([[True], [True, False]]),
        lambda: Gaussian(10**400),
        lambda: encoder({}, K, Primal()),
        lambda: self_attention(None, K, Primal()),
        lambda: self_attention({"W_Q": K.T, "W_K": K.T, "W_V": K.T[:, :6], "W_O": K}, K, Primal()),
    ],
)
def test_more_bad_input(f):
    with pytest.raises(ValueError, match=r"expected|too large"):
        f()
    assert repr(Mask(np.ones((5, 7), bool))) == "Mask(table of 5 x 7)"


def test_values_whose_average_no_float_holds_are_refused():
    with pytest.raises(ValueError, match=r"attention: Exponential\(scale=None\) of these .* too large for a float"):
        attention(Primal(), Q, 0 * K, np.full((7, 1), 1.7e308))


def test_parameters_of_an_encoder():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="width: expected a multiple of 3 heads; got 32"):
        encoder_params(rng, features=3, tokens=7, classes=2, heads=3)
    params = encoder_params(rng, features=3, tokens=7, classes=2)
    for name in ("b_E", "layers", "W", "b"):
        with pytest.raises(ValueError, match=rf"params: expected those of encoder_params; got none named {name}$"):
            encoder({other: x for other, x in params.items() if other != name}, K, Primal())
