"""Arrays that are something else: refused by name, or taken for the numbers that they are."""

import numpy as np
import torch

import torch_impl
from primal_dual import (
    SVRAttention,
    attention,
    attention_weights,
    catalog,
    certify,
    leave_one_out,
    solve_dual,
    solve_primal,
    svr_path,
)
from tests.attacks.attempts import attack, choice, refused

N, D, DV = 7, 4, 3
SOLVED = dict(C=2.0, epsilon=0.1)
NAMES = ["softmax", "bn", "sh", "window", "linear", "rbf"]


def as_masked(x, rng):
    return np.ma.masked_array(x, mask=rng.random(x.shape) < 0.3)


MUST_BE_REFUSED = {
    "None": lambda x, rng: None,
    "text": lambda x, rng: "keys",
    "texts": lambda x, rng: x.astype(str),
    "bytes": lambda x, rng: b"1234",
    "complex": lambda x, rng: x + 1j,
    "objects": lambda x, rng: np.array([[{} for _ in row] for row in x]),
    "ragged": lambda x, rng: [list(row[: 1 + i % 3]) for i, row in enumerate(x)],
    "dates": lambda x, rng: x.astype("timedelta64[s]"),
    "masked": as_masked,
    "NaN": lambda x, rng: np.where(np.arange(x.size).reshape(x.shape) == rng.integers(x.size), np.nan, x),
    "infinite": lambda x, rng: np.where(np.arange(x.size).reshape(x.shape) == rng.integers(x.size), -np.inf, x),
    "no number": lambda x, rng: x[:0, :0],
    "one axis": lambda x, rng: x[0],
    "a number": lambda x, rng: 3.0,
    "sparse": lambda x, rng: torch.tensor(x).to_sparse(),
    "with a gradient": lambda x, rng: torch.tensor(x, requires_grad=True),
    "a set": lambda x, rng: {1.0, 2.0},
    "a function": lambda x, rng: as_masked,
    "huge integers": lambda x, rng: [[10**400] * x.shape[1]] * len(x),
}
MAY_BE_TAKEN = {
    "columns first": lambda x, rng: np.asfortranarray(x),
    "backwards": lambda x, rng: np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1],
    "read-only": lambda x, rng: np.frombuffer(x.tobytes()).reshape(x.shape),
    "lists": lambda x, rng: x.tolist(),
    "a tensor": lambda x, rng: torch.tensor(x),
    "big-endian": lambda x, rng: x.astype(">f8"),
    "integers": lambda x, rng: x.round().astype(np.int8),
    "single": lambda x, rng: x.astype(np.float32),
    "half": lambda x, rng: x.astype(np.float16),
    "large": lambda x, rng: x * 10.0 ** rng.integers(1, 308),
    "tiny": lambda x, rng: x * 10.0 ** -rng.integers(1, 320),
    "more rows": lambda x, rng: np.concatenate([x, x]),
    "fewer columns": lambda x, rng: x[:, 1:],
    "another axis": lambda x, rng: x[None],
    "nobody": lambda x, rng: x[:0],
}
SPOILERS = MUST_BE_REFUSED | MAY_BE_TAKEN


def in_torch(primal, q, k, v):
    return torch_impl.attention(primal, q, k, v).detach().numpy()


CALLS = {  # the call, and which of its arguments are arrays
    "attention": (lambda p, q, k, v: attention(p, q, k, v), ("q", "k", "v")),
    "attention_weights": (lambda p, q, k: attention_weights(p, q, k), ("q", "k")),
    "certify": (lambda p, k, v: certify(p, k, v).relative_gap, ("keys", "values")),
    "solve_dual": (lambda p, k, v: solve_dual(p, k, v, **SOLVED, solver="newton").values, ("keys", "targets")),
    "solve_primal": (lambda p, k, v: solve_primal(p, k, v, **SOLVED, solver="newton").bias, ("keys", "targets")),
    "predict": (lambda p, q: solve_dual(p, KEYS, TARGETS, **SOLVED, solver="newton").predict(q), ("x",)),
    "leave_one_out": (lambda p, k, v: leave_one_out(p, k, v, **SOLVED), ("keys", "targets")),
    "svr_path": (lambda p, k, v: svr_path(p, k, v, 0.1).at(2.0).values, ("keys", "targets")),
    "SVRAttention": (lambda p, k, v: SVRAttention(p).fit(k, v).predict(KEYS), ("X", "y")),
    "torch": (in_torch, ("query", "key", "value")),
}
KEYS, TARGETS = np.random.default_rng(0).standard_normal((2, N, D))
TARGETS = TARGETS[:, :DV]


def attempt(rng):
    name = choice(rng, list(CALLS))
    call, arguments = CALLS[name]
    primal = catalog[
        choice(rng, NAMES if name in ("attention", "attention_weights", "certify", "torch") else ["softmax", "rbf"])
    ]
    arrays = [TARGETS if each in ("v", "values", "targets", "value", "y") else KEYS for each in arguments]
    place, kind = int(rng.integers(len(arrays))), choice(rng, list(SPOILERS))
    spoiled = SPOILERS[kind](arrays[place], rng)
    if name == "torch":
        arrays = [torch.tensor(x) for x in arrays]
        if kind == "with a gradient":
            return
    given = [*arrays[:place], spoiled, *arrays[place + 1 :]]
    sklearns = name == "SVRAttention"  # whose messages, and numbers as text, are scikit-learn's
    found, message = refused(call, primal, *given, lines=sklearns)
    told = f"{name}, {arguments[place]} {kind}: {message or found!r}"
    if kind in MUST_BE_REFUSED and not (sklearns and kind == "texts"):
        assert message is not None, told
    if message is None:
        found = np.asarray(found)
        assert found.dtype == float and np.isfinite(found).all(), told
        plain = [np.array(x.tolist() if torch.is_tensor(x) else x, dtype=float) for x in given]
        if name == "torch":
            plain = [torch.tensor(x) for x in plain]
        np.testing.assert_allclose(found, call(primal, *plain), atol=1e-9, err_msg=told)


def test_arrays_that_are_something_else(attempts_of):
    attack("arrays", attempts_of(2_500), attempt)
