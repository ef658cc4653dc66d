# %% [markdown]
# # 2. Softmax attention is an SVR
#
# Take the support vector regression of the last tutorial, with the exponential as its kernel and a normaliser in its
# model. Write its function as a sum over training points: it is softmax attention. The training inputs are the keys,
# the dual variables give the values, and a query is a point where the function is evaluated.
#
# You will learn
# - which features belong to the softmax, and how many of them it takes,
# - how keys, values and queries come out of an SVR,
# - that the primal, the dual and attention are one function, up to rounding errors,
# - that *every* attention head solves an SVR, however its values were found.

# %%
from itertools import product
from math import comb, factorial

import matplotlib.pyplot as plt
import numpy as np

from primal_dual import Primal, Taylor, attention, certify, plots, solve_dual, solve_primal
from primal_dual.io.datasets import japanese_vowels

plt.style.use("tableau-colorblind10")

# %% [markdown]
# ## Attention
#
# A head has keys $k_j$ and values $v_j$. Its output for a query $x$ is a weighted average of the values. Keys and
# queries are vectors of $D$ numbers, their coordinates:
#
# $$ f(x) = \frac{\sum_j e^{x \cdot k_j / \sqrt{D}} \, v_j}{\sum_j e^{x \cdot k_j / \sqrt{D}}} $$
#
# The keys are frames of a spoken vowel. We begin with two of their coefficients, so that everything can be drawn. The
# targets are the next frames: the SVR is to learn to forecast.

# %%
all_frames, all_next_frames = japanese_vowels()
keys, targets = all_frames[:, :2], all_next_frames[:, :2]
n, D = keys.shape
rng = np.random.default_rng(0)
queries = rng.standard_normal((50, D))
some_values = rng.standard_normal((n, 3))
output = attention(Primal(), queries, keys, some_values)  # Primal() without arguments is softmax attention

# %%
scores = np.exp(queries @ keys.T / np.sqrt(D))
attention_is_the_formula = abs(output - scores @ some_values / scores.sum(axis=1, keepdims=True)).max() < 1e-12
assert attention_is_the_formula

# %% [markdown]
# ## The features of the softmax
#
# Is $e^{x \cdot k / \sqrt{D}}$ an inner product $\langle \Phi(x), \Phi(k) \rangle$? Expand it. With
# $x' = x / D^{1/4}$ and $k' = k / D^{1/4}$, which have the coordinates $x'_l$ and $k'_l$, the multinomial theorem gives
#
# $$ e^{x' \cdot k'} = \sum_{t=0}^\infty \frac{(x' \cdot k')^t}{t!}
# = \sum_{m_1, \dots, m_D \geq 0} \frac{\prod_l x_l'^{m_l}}{\sqrt{m_1! \cdots m_D!}}
# \, \frac{\prod_l k_l'^{m_l}}{\sqrt{m_1! \cdots m_D!}} $$
#
# So the features $\Phi(x)$ are all monomials of $x'$, each divided by the square root of the factorials of its
# exponents $m_l$. There are $\binom{D+p}{p}$ of them up to degree $p$.


# %%
def Phi(x, degree):
    """All monomials up to a degree: (M, D) -> (M, features)."""
    D = x.shape[1]
    powers = np.array([m for m in product(range(degree + 1), repeat=D) if sum(m) <= degree])
    factorials = np.array([np.prod([float(factorial(m_l)) for m_l in m]) for m in powers])
    return np.prod((x / D**0.25)[:, None] ** powers, axis=-1) / np.sqrt(factorials)


degrees = np.arange(0, 31, 2)
exact = np.exp(keys @ keys.T / np.sqrt(D))
errors = [abs(Phi(keys, t) @ Phi(keys, t).T - exact).max() for t in degrees]

# %%
counts = [comb(D + t, t) for t in degrees]
plt.figure(figsize=(7, 4), layout="constrained")
plt.semilogy(degrees, errors, "o-")
for t, error, count in zip(degrees[::3], errors[::3], counts[::3], strict=True):
    plt.annotate(f"F = {count}", (t, error), xytext=(6, 6), textcoords="offset points", fontsize="small")
plt.margins(0.13)  # room for the words beside the first and the last point
plt.xlabel("degree $p$ of the Taylor features")
plt.ylabel("largest error of the kernel at the keys")
plt.title("With more monomials, F in number, the kernel becomes the exponential")
plt.show()

# %%
a = abs(keys @ keys.T).max() / np.sqrt(D)
remainders = [np.exp(a) * a ** (t + 1) / factorial(t + 1) for t in degrees]
error_is_below_the_series_remainder = (np.array(errors) <= np.array(remainders) + 1e-12 * exact.max()).all()
assert error_is_below_the_series_remainder
degree_30_is_exact = np.allclose(Phi(keys, 30) @ Phi(keys, 30).T, exact, rtol=1e-12, atol=0)
assert degree_30_is_exact and Phi(keys, 30).shape == (n, 496)
# The package lists its monomials in another order, which changes no inner product.
assert np.allclose(Taylor(30).gram(keys, keys), Phi(keys, 30) @ Phi(keys, 30).T, rtol=1e-12, atol=0)

# %% [markdown]
# ## The model: a layer with a normaliser
#
# The model of the SVR is a neural network layer on these features, divided by a number that depends on the input:
#
# $$ f(x) = \frac{W \Phi(x)}{h(x)}, \qquad h(x) = \sum_j \langle \Phi(x), \Phi(k_j) \rangle $$
#
# Why divide by $h$? Because attention is an average. Without $h$, the output would be a sum of all values with the
# factors $e^{x \cdot k_j / \sqrt{D}}$, and it would grow with the number of keys and, exponentially, with the length of
# the query. Divided by $h$, these factors become weights that sum to one.
#
# Dividing does not make the training harder: $h$ does not depend on $W$, so it is known before anything is trained. So
# this is a linear model in the features $z(x) = \Phi(x) / h(x)$, and the training points are $z_j = z(k_j)$.


# %%
def h(x):
    return (Phi(x, 30) @ Phi(keys, 30).T).sum(axis=1)


def z(x):
    return Phi(x, 30) / h(x)[:, None]


# %%
h_is_the_denominator_of_the_softmax = np.allclose(h(queries), scores.sum(axis=1), rtol=1e-11, atol=0)
assert h_is_the_denominator_of_the_softmax
weights_sum_to_one = np.allclose((z(queries) @ Phi(keys, 30).T).sum(axis=1), 1, rtol=0, atol=1e-12)
assert weights_sum_to_one

# %% [markdown]
# ## The primal
#
# $$ \min_W \ P(W) = \frac{1}{2} |W|^2 + C \sum_{j,d} \max(|y_{jd} - w_d \cdot z_j| - \epsilon, 0) $$
#
# It is the problem of the last tutorial, once for each output $d$, with a row $w_d$ of $W$. `Taylor(30)` has the
# features above, and the primal is solved in them.
#
# How large should $C$ be? The dual variables will be at most $C$, and we shall see below that the values of the
# attention are the dual variables divided by $h(k_j)$. So no value can exceed $C / h(k_j)$. The outputs are averages of
# the values; to come near targets of size one, the values must be able to have that size and more. So $C$ must be
# several times $h(k_j)$: we take ten times its median. With $C$ far below $h$, the function is held near zero, whatever
# the targets.

# %%
C, epsilon = 10 * np.median(h(keys)), 0.1
primal_solution = solve_primal(Primal(Taylor(30)), keys, targets, C=C, epsilon=epsilon)
W = primal_solution.weight
print("W:", W.shape, "  primal value:", primal_solution.value)

# %%
z_package = Taylor(30).features(keys) / h(keys)[:, None]  # in the order of the package's W
slack = np.maximum(abs(targets - z_package @ W.T) - epsilon, 0)
value_is_the_formula = np.isclose(primal_solution.value, (W**2).sum() / 2 + C * slack.sum(), rtol=1e-10, atol=0)
assert value_is_the_formula and W.shape == (2, 496)
low_C = solve_primal(Primal(Taylor(30)), keys, targets, C=np.median(h(keys)) / 100, epsilon=epsilon)
a_small_C_holds_the_function_near_zero = abs(low_C.predict(keys)).max() < 0.05 * abs(targets).max()
assert a_small_C_holds_the_function_near_zero

# %% [markdown]
# ## The dual
#
# The dual sees the features only through their inner products,
#
# $$ G_{ij} = z_i \cdot z_j = \frac{e^{k_i \cdot k_j / \sqrt{D}}}{h(k_i) h(k_j)} $$
#
# So it needs no Taylor series that is cut off: it can use the infinite feature map. With
# $\delta = \alpha - \tilde\alpha$, whose column of output $d$ is $\delta_d$, the dual problem is, as in tutorial 1,
#
# $$ \max_{|\delta_{jd}| \leq C} \ Q(\delta) = \sum_d \left( -\frac{1}{2} \delta_d^\top G \delta_d
# - \epsilon \sum_j |\delta_{jd}| + \sum_j y_{jd} \delta_{jd} \right) $$

# %%
dual_solution = solve_dual(Primal(), keys, targets, C=C, epsilon=epsilon)
delta = dual_solution.alpha - dual_solution.alpha_tilde
print("delta:", delta.shape, "  dual value:", dual_solution.value)

# %%
G = exact / np.outer(exact.sum(axis=1), exact.sum(axis=1))
Q = -np.trace(delta.T @ G @ delta) / 2 - epsilon * abs(delta).sum() + (targets * delta).sum()
values_meet = np.isclose(Q, primal_solution.value, rtol=1e-10, atol=0)
assert values_meet and np.isclose(Q, dual_solution.value, rtol=1e-10, atol=0)
assert abs(delta).max() <= C
no_point_is_above_and_below_the_tube = (dual_solution.alpha * dual_solution.alpha_tilde == 0).all()
assert no_point_is_above_and_below_the_tube

# %% [markdown]
# ## The expansion is attention
#
# The optimal weights are a sum over training points, $W = \sum_j \delta_j z_j^\top$. Put it into the model, and call
# $v_j = \delta_j / h(k_j)$:
#
# $$ f(x) = \frac{W \Phi(x)}{h(x)} = \sum_j \frac{\delta_j}{h(k_j)} \frac{\langle \Phi(x), \Phi(k_j) \rangle}{h(x)}
# = \frac{\sum_j v_j \, e^{x \cdot k_j / \sqrt{D}}}{\sum_j e^{x \cdot k_j / \sqrt{D}}} $$
#
# That is softmax attention with keys $k_j$ and values $v_j$. And since $|\delta_{jd}| \leq C$, no value exceeds
# $C / h(k_j)$, as announced.

# %%
v = delta / h(keys)[:, None]

# %%
f_primal = (Taylor(30).features(queries) / h(queries)[:, None]) @ W.T
f_dual = (z(queries) @ z(keys).T) @ delta
f_attention = scores / scores.sum(axis=1, keepdims=True) @ v
size = abs(f_attention).max()
three_times_the_same_function = max(abs(f_primal - f_attention).max(), abs(f_dual - f_attention).max()) < 1e-8 * size
assert three_times_the_same_function
assert np.allclose(f_attention, attention(Primal(), queries, keys, dual_solution.values), rtol=0, atol=1e-10 * size)
assert np.allclose(W, delta.T @ z_package, rtol=0, atol=1e-7 * abs(W).max())
values_are_bounded = (abs(v) <= C / h(keys)[:, None] * (1 + 1e-12)).all()
assert values_are_bounded

# %%
frame = np.arange(n)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
left.plot(frame, primal_solution.predict(keys)[:, 1], linewidth=5, color="0.8", label="primal: $W \\Phi(k) / h(k)$")
plots.tube(Primal(), keys, v, targets=targets, epsilon=epsilon, output=1, axes=left, xlabel="frame")
left.set(ylabel="second coefficient", title="One function: the SVR's, and attention")
left.legend(fontsize="small")
right.stem(frame, v[:, 1] * h(keys) / C, basefmt=" ")
right.axhline(1, linestyle=":", color="C3")
right.axhline(-1, linestyle=":", color="C3")
right.set(xlabel="key (frame)", ylabel="$v_j h(k_j) / C$", title="Values within the bounds of the dual; some are zero")
plt.show()

# %% [markdown]
# ## In all twelve coefficients
#
# Two coefficients were convenient, but not necessary: only the monomials had to be listed, and for $D = 12$ and degree
# 30 there are more than $10^{10}$ of them. The dual does not need them. For the primal, note that the optimal $W$ is a
# sum over the 25 training points; the package writes $W$ in the space that they span, which has at most 25 dimensions.

# %%
full_C = 10 * np.median(np.exp(all_frames @ all_frames.T / np.sqrt(12)).sum(axis=1))
problem = dict(C=full_C, epsilon=epsilon)
full_primal = solve_primal(Primal(), all_frames, all_next_frames, **problem)
full_dual = solve_dual(Primal(), all_frames, all_next_frames, **problem)

# %%
full_scores = np.exp(all_frames @ all_frames.T / np.sqrt(12))
full_f = full_scores / full_scores.sum(axis=1, keepdims=True) @ full_dual.values
values_meet_in_twelve_dimensions = np.isclose(full_primal.value, full_dual.value, rtol=1e-10, atol=0)
assert values_meet_in_twelve_dimensions
attention_is_the_primal_function = np.allclose(full_primal.predict(all_frames), full_f, rtol=0, atol=1e-8)
assert attention_is_the_primal_function and comb(12 + 30, 30) > 1e10

# %% [markdown]
# ## The converse: every head solves an SVR
#
# So far the SVR came first. Now take the keys and values of any head, trained or random, and look for an SVR that has
# them as its solution. Put
#
# $$ \delta_j = h(k_j) v_j, \qquad y_j = f(k_j), \qquad C \geq \max_{j,d} |\delta_{jd}|, \qquad \epsilon = 0 $$
#
# Then $f$ meets all its targets, so there is no slack, and the primal value is $P = \frac{1}{2} |W|^2$. In the dual,
# $y_d = G \delta_d$, so the dual value is
#
# $$ Q = \sum_d \left( -\frac{1}{2} \delta_d^\top G \delta_d + \delta_d^\top G \delta_d \right) = \frac{1}{2} |W|^2 . $$
#
# The two values are equal, so both $W$ and $\delta$ are optimal. `certify` computes the two values for any keys and
# values.

# %%
any_keys, any_values = rng.standard_normal((40, 16)), rng.standard_normal((40, 8))
certificate = certify(Primal(), any_keys, any_values)
print(f"(P - Q) / P: {certificate.relative_gap:.1e}  for targets {certificate.targets.shape}")

# %%
K = np.exp(any_keys @ any_keys.T / np.sqrt(16))
any_h = K.sum(axis=1, keepdims=True)
any_delta, any_G = any_h * any_values, K / (any_h * any_h.T)
y = K / any_h @ any_values  # the outputs of the head at its own keys
P = np.trace(any_delta.T @ any_G @ any_delta) / 2
Q = -P + (y * any_delta).sum()
any_values_are_optimal = abs(P - Q) < 1e-12 * P and abs(certificate.relative_gap) < 1e-12
assert any_values_are_optimal
assert np.allclose(certificate.targets, y, rtol=0, atol=1e-12)

# %% [markdown]
# ## The minimum-norm function
#
# With $\epsilon = 0$ and $C$ large enough, the SVR looks for the smallest $W$ that meets all targets. So *an attention
# head is the minimum-norm function through its own outputs at its keys*. Any other function with those outputs has
# weights $W + W_\perp$ with $W_\perp z_j = 0$ for all $j$. So $W_\perp$ is orthogonal to $W$, which is a sum of terms
# $\delta_j z_j^\top$, and
#
# $$ |W + W_\perp|^2 = |W|^2 + |W_\perp|^2 $$
#
# To see this, take a head with seven keys, and other functions that have the same outputs at the keys, but different
# outputs halfway between neighbouring keys.

# %%
few_keys, few_values = keys[::4], targets[::4, 1]
halfway = (few_keys[:-1] + few_keys[1:]) / 2
sum_of_keys = Phi(few_keys, 30).sum(axis=0)


def z_few(x):
    return Phi(x, 30) / (Phi(x, 30) @ sum_of_keys)[:, None]


w_head = (few_values * (Phi(few_keys, 30) @ sum_of_keys)) @ z_few(few_keys)  # (496,)
passed = np.vstack([z_few(few_keys), z_few(halfway)])  # 13 points
others = []
for shift in 0.05 * rng.standard_normal((3, 6)):
    bends = np.concatenate([np.zeros(7), shift])  # at the keys, and halfway
    others.append(w_head + np.linalg.pinv(passed) @ bends)

# %%
time = np.linspace(0, 6, 601)  # from key to key along straight lines
path = np.stack([np.interp(time, np.arange(7), coefficient) for coefficient in few_keys.T], axis=1)
plt.figure(figsize=(9, 4), layout="constrained")
for other, line in zip(others, (":", "--", "-."), strict=True):
    norm = np.linalg.norm(other) / np.linalg.norm(w_head)
    plt.plot(time, z_few(path) @ other, line, color="C1", label=f"another function, norm {norm:,.0f}")
plt.plot(time, z_few(path) @ w_head, linewidth=3, color="C0", label="the attention head, norm 1")
plt.plot(range(7), z_few(few_keys) @ w_head, "ko", zorder=4, label="outputs at the keys")
plt.xlabel("place on the path from key to key")
plt.ylabel("output")
plt.title("Of all functions through these points, attention has the smallest norm")
plt.legend(fontsize="small")
plt.show()

# %%
few_scores = np.exp(few_keys @ few_keys.T / np.sqrt(D))
head_at_keys = few_scores @ few_values / few_scores.sum(axis=1)
assert np.allclose(z_few(few_keys) @ w_head, head_at_keys, rtol=0, atol=1e-12)
for other in others:
    same_outputs_at_the_keys = np.allclose(z_few(few_keys) @ other, head_at_keys, rtol=0, atol=1e-8)
    squares_add_up = np.isclose(other @ other, w_head @ w_head + (other - w_head) @ (other - w_head), rtol=1e-8, atol=0)
    assert same_outputs_at_the_keys and squares_add_up and other @ other > w_head @ w_head

# %% [markdown]
# ## Queries and keys may come from different matrices
#
# In a transformer, queries and keys come from tokens by different matrices, $W_Q$ and $W_K$, and the matrix of scores
# is not symmetric. A kernel is symmetric. This is no contradiction: the kernel $e^{x \cdot k / \sqrt{D}}$ compares two
# points of one space, and keys and queries are different points in it. The SVR is trained at the keys; its Gram matrix
# compares keys with keys, and is symmetric and positive definite. The queries are the points at which its function is
# evaluated.
#
# So the head's outputs at the queries follow from its keys and its outputs at the keys, without its values.

# %%
W_Q, W_K, W_V = rng.standard_normal((3, 12, 8)) / np.sqrt(12)
q, k, values = all_frames @ W_Q, all_frames @ W_K, all_frames @ W_V
at_keys, at_queries = attention(Primal(), k, k, values), attention(Primal(), q, k, values)

# %%
K_keys, K_queries = np.exp(k @ k.T / np.sqrt(8)), np.exp(q @ k.T / np.sqrt(8))
h_keys, h_queries = K_keys.sum(axis=1), K_queries.sum(axis=1)
Gram = K_keys / np.outer(h_keys, h_keys)
gram_matrix_is_symmetric_scores_are_not = (Gram == Gram.T).all() and abs(K_queries - K_queries.T).max() > 1
assert gram_matrix_is_symmetric_scores_are_not and np.linalg.eigvalsh(K_keys).min() > 0
fitted = np.linalg.solve(Gram, at_keys)  # the SVR's delta, from the outputs at the keys
predicted = K_queries / np.outer(h_queries, h_keys) @ fitted
outputs_at_queries_follow = np.allclose(predicted, at_queries, rtol=0, atol=1e-8)
assert outputs_at_queries_follow

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: The residual connection
#
# A transformer layer has the output $x + f(x)$. Which SVR does it solve? Train one that forecasts the next frame with a
# residual connection, and check it by `certify`.

# %% [markdown]
# **Solution.** The residual is a known offset: $y_j \approx k_j + f(k_j)$ is the same as $y_j - k_j \approx f(k_j)$. So
# the SVR has the targets $y_j - k_j$, the *change* from frame to frame.

# %%
change = targets - keys
residual = solve_dual(Primal(), keys, change, C=C, epsilon=epsilon)
layer = keys + attention(Primal(), keys, keys, residual.values)
judged = certify(Primal(), keys, residual.values, targets=change, C=C, epsilon=epsilon)

residual_layer_is_optimal = abs(judged.relative_gap) < 1e-10
assert residual_layer_is_optimal
slack = np.maximum(abs(targets - layer) - epsilon, 0)  # of the layer's output, against the targets themselves
norm = np.trace(residual.values.T @ exact @ residual.values)
assert np.isclose(norm / 2 + C * slack.sum(), residual.value, rtol=1e-9, atol=0)

# %% [markdown]
# ### Exercise 2: Values that are not optimal
#
# Change one of the solution's values by a tenth. How large is the gap, and what does it say about the error of $f$?
# Give `certify` the old `targets`, `C` and `epsilon`: without targets, it takes the outputs of the changed head, and
# every gap is zero. (The numbers of a certificate are in units of `exp(log_scale)`, so that none is too large for a
# float.)

# %% [markdown]
# **Solution.** The primal is strongly convex, $\frac{1}{2} |W - W^*|^2 \leq P(W) - Q(\delta)$, and
# $|f(x) - f^*(x)| \leq |W - W^*| \, |z(x)|$. So a gap bounds the error at every $x$; that is `error_bound`. The changed
# $\delta$ must still satisfy $|\delta_{jd}| \leq C$, so we change a value that is well inside these bounds.

# %%
changed = v.copy()
j = np.argmax((abs(delta[:, 1]) > 0.01 * C) & (abs(delta[:, 1]) < 0.9 * C))
changed[j, 1] *= 1.1
judged = certify(Primal(), keys, changed, targets=targets, C=C, epsilon=epsilon)
error = np.linalg.norm(attention(Primal(), queries, keys, changed) - f_attention, axis=1)
lengths = np.sqrt(np.exp((queries**2).sum(axis=1) / np.sqrt(D))) / h(queries)  # |z(x)|

assert judged.relative_gap > 1e-6
gap = (judged.primal_value - judged.dual_value) * np.exp(judged.log_scale)
gap_bounds_the_error = (error <= lengths * np.sqrt(2 * gap)).all() and error.max() > 0
assert gap_bounds_the_error
assert np.allclose(judged.error_bound(queries), lengths * np.sqrt(2 * gap), rtol=1e-6, atol=0)

# %% [markdown]
# ### Exercise 3: Temperature
#
# Divide the logits by a temperature $\tau$: $e^{x \cdot k / (\tau \sqrt{D})}$. Is it still an SVR? How many Taylor
# features does it take for a relative error of $10^{-6}$ at the keys, at $\tau = 4$, 1 and $\frac{1}{2}$?

# %% [markdown]
# **Solution.** Yes: it is the same kernel for $x / \sqrt{\tau}$. A low temperature makes longer inputs, and the series
# needs higher degrees: sharper attention has more features.


# %%
def features_needed(temperature):
    x = keys / np.sqrt(temperature)
    tempered = np.exp(keys @ keys.T / (temperature * np.sqrt(D)))
    for degree in range(60):
        if abs(Taylor(degree).gram(x, x) / tempered - 1).max() < 1e-6:
            return comb(D + degree, degree)


counts = [features_needed(temperature) for temperature in (4, 1, 0.5)]
print("features at temperature 4, 1, 0.5:", counts)
sharper_attention_has_more_features = counts[0] < counts[1] < counts[2]
assert sharper_attention_has_more_features

# %% [markdown]
# Next: [3. One primal, many attentions](03_one_primal_many_attentions.ipynb), where each part of the primal is
# exchanged, one after the other.
#
# Try it in the browser: run `primal-dual explore`, then open [stop the solver early, and see the bound](http://127.0.0.1:5006/?digits=1).
