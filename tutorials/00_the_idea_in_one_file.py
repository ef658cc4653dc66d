# %% [markdown]
# # 0. The idea in one file
#
# Attention is a support vector regression (SVR) whose model is a layer of a neural network. Its training inputs are the
# keys $k_1, ..., k_N$, each with a target $y_j$. Training it makes the values. A query $x$ is a new input.

# %%
import cvxpy as cp
import numpy as np

rng = np.random.default_rng(0)
keys, queries = rng.uniform(-1, 2, (12, 2)), rng.uniform(-1, 2, (7, 2))  # N = 12 keys; an input has D = 2 coordinates
targets = np.sin(keys @ rng.standard_normal((2, 3)))  # three outputs
precise = dict(solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)

# %% [markdown]
# ## 1. The primal: train a layer that has a normaliser
# $$ f(x) = W \Phi(T x) / h(x), \qquad h(x) = \sum_j \langle \Phi(T x), \Phi(T k_j) \rangle $$
# $W$ is a matrix to be trained, $T x = x$ until section 3, and $\Phi$ makes a vector of features, with inner products
# $\langle \Phi(x), \Phi(y) \rangle = e^{x \cdot y / \sqrt{D}}$. Since $e^{ab} = \sum_t a^t b^t / t!$, a number $a$ has
# the features $a^t / \sqrt{t!}$ with $t = 0, 1, ...$; here 30 are enough. With the two coordinates of $x$ divided by
# $D^{1/4}$, $\Phi(x)$ has all products of a feature of the one and a feature of the other. With $z_j = \Phi(T k_j) /
# h(k_j)$, a residual $y_j - W z_j$ of an output is free up to $\epsilon$, and each unit beyond costs $C$:
# $$ \min_W \ \frac{1}{2} |W|^2 + C \sum_j \max(|y_j - W z_j| - \epsilon, 0) $$


# %%
def features(x):
    t = np.arange(30)
    powers = (x[:, :, None] / 2**0.25) ** t / np.sqrt(np.cumprod(np.maximum(t, 1.0)))  # a^t / sqrt(t!)
    return (powers[:, 0, :, None] * powers[:, 1, None, :]).reshape(len(x), -1)


def solve_primal(z, targets, C, epsilon):
    W = cp.Variable((targets.shape[1], z.shape[1]))  # a row for each output
    beyond_the_tube = cp.pos(cp.abs(targets - z @ W.T) - epsilon)
    optimum = cp.Problem(cp.Minimize(cp.sum_squares(W) / 2 + C * cp.sum(beyond_the_tube))).solve(**precise)
    return W.value, optimum


# %% [markdown]
# ## 2. The dual: its solution is attention
# A residual $r$ costs $C \max(|r| - \epsilon, 0)$, which is the largest value of $(\alpha - \tilde\alpha) r - \epsilon
# (\alpha + \tilde\alpha)$ for $\alpha$ and $\tilde\alpha$ from 0 to $C$. Insert this for every example, with $\delta_j
# = \alpha_j - \tilde\alpha_j$. Minimum and maximum may change places: the sum is convex in $W$, linear in the others.
# The minimum is at $W = \sum_j \delta_j z_j^\top$. The dual remains, which needs only $G_{ij} = z_i \cdot z_j$:
# $$ \max_{0 \le \alpha, \tilde\alpha \le C} \ \sum_j (y_j \delta_j - \epsilon (\alpha_j + \tilde\alpha_j))
# - \frac{1}{2} \delta^\top G \delta $$
# Support vectors have $\delta_j \ne 0$. With this $W$, $f$ is softmax attention with values $v_j = \delta_j / h(k_j)$:
# $$ f(x) = \sum_j \delta_j z_j \cdot \Phi(T x) / h(x) = \sum_j v_j e^{T x \cdot T k_j / \sqrt{D}} / h(x) $$


# %%
def solve_dual(gram, targets, C, epsilon):
    alpha, alpha_tilde = cp.Variable(targets.shape, nonneg=True), cp.Variable(targets.shape, nonneg=True)
    delta = alpha - alpha_tilde
    quadratic = sum(cp.quad_form(column, cp.psd_wrap(gram)) for column in delta.T)  # a column for each output
    objective = cp.sum(cp.multiply(targets, delta)) - epsilon * cp.sum(alpha + alpha_tilde) - quadratic / 2
    optimum = cp.Problem(cp.Maximize(objective), [alpha <= C, alpha_tilde <= C]).solve(**precise)
    return alpha.value, alpha_tilde.value, optimum


def attention(queries, keys, values):
    weights = np.exp(queries @ keys.T / np.sqrt(keys.shape[1]))
    return weights / weights.sum(axis=1, keepdims=True) @ values


# %%
def train(name, queries, keys, targets, epsilon=0.1):
    h = (features(keys) @ features(keys).T).sum(axis=1, keepdims=True)
    z, C = features(keys) / h, 10 * np.median(h)  # C is in units of h: the values are at most C / h
    W, primal = solve_primal(z, targets, C, epsilon)
    alpha, alpha_tilde, dual = solve_dual(z @ z.T, targets, C, epsilon)
    values = (alpha - alpha_tilde) / h
    layer = features(queries) @ W.T / (features(queries) @ features(keys).T).sum(axis=1, keepdims=True)
    gap, error = abs(primal - dual) / primal, abs(layer - attention(queries, keys, values)).max()
    assert gap <= 1e-10 and error <= 1e-8, (name, gap, error)
    print(f"{name}: primal {primal:.4f} = dual {dual:.4f}, relative gap {gap:.0e}; layer = attention to {error:.0e}")
    return values


values = train("softmax attention", queries, keys, targets)

# %% [markdown]
# ## 3. Change the primal, and another attention comes out
# Attention-BN has batch normalisation for $T$: $T x = (x - \beta \mu) / \sigma$. In each coordinate, $\mu$ is the mean
# of the keys and $\sigma^2$ their variance plus a tiny `eps`. Terms of $T x \cdot T k_j$ without $k_j$ are the same for
# all keys and cancel in the softmax. So this is softmax attention of the query $(x - \beta \mu) / \sigma^2$ to $k_j$.
# Attention-SH, for scaled heads, trains the layer on less: on keys and targets that are averaged three at a time.


# %%
def batch_norm(x, keys, beta=1.0, eps=1e-5):
    return (x - beta * keys.mean(axis=0)) / np.sqrt(keys.var(axis=0) + eps)


beta, mu, variance = 0.5, keys.mean(axis=0), keys.var(axis=0) + 1e-5
T_queries, T_keys = batch_norm(queries, keys, beta), batch_norm(keys, keys, beta)
values = train("Attention-BN", T_queries, T_keys, targets)
by_other_query = attention((queries - beta * mu) / variance, keys, values)
error = abs(attention(T_queries, T_keys, values) - by_other_query).max()
assert error <= 1e-12, error
print(f"Attention-BN = softmax attention with another query, to {error:.0e}")
group_values = train("Attention-SH", queries, keys.reshape(4, 3, 2).mean(axis=1), targets.reshape(4, 3, 3).mean(axis=1))

# %% [markdown]
# ## 4. The converse: every attention head is an SVR
# Take any values, and as targets the outputs of the head at its keys. With $\epsilon = 0$, $\delta_j = h(k_j) v_j$ and
# $C = \max |\delta|$, primal and dual have the same value. No dual value is above a primal one, so both are optimal.

# %%
values = rng.standard_normal((12, 3))
h = (features(keys) @ features(keys).T).sum(axis=1, keepdims=True)
outputs, delta, z = attention(keys, keys, values), h * values, features(keys) / h
W, C = delta.T @ z, abs(delta).max()
primal = (W**2).sum() / 2 + C * abs(outputs - z @ W.T).sum()
dual = (outputs * delta).sum() - np.trace(delta.T @ (z @ z.T) @ delta) / 2
gap = abs(primal - dual) / primal
assert gap <= 1e-12 and (abs(delta) <= C).all(), (gap, C)
print(f"any attention head: primal {primal:.4f} = dual {dual:.4f}, relative gap {gap:.0e}")
