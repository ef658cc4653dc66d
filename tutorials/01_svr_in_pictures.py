# %% [markdown]
# # 1. SVR in pictures
#
# Support vector regression (SVR) fits a function. Errors of up to $\epsilon$ are free, and what goes beyond $\epsilon$
# is paid for in proportion to its size. We build SVR from ridge regression on one-dimensional data: one coefficient of
# a spoken vowel over time. The next tutorial turns it into attention.
#
# You will learn
# - how a kernel method writes its function as a sum over training points,
# - what the tube, the slack and the support vectors are,
# - how the dual problem follows from the Lagrangian, why its value is that of the primal, and what their gap proves,
# - what $C$ and $\epsilon$ do.

# %%
import warnings
from math import factorial

import cvxpy as cp
import matplotlib.pyplot as plt
import numpy as np

from primal_dual import Primal, Taylor, attention, certify, solve_dual, solve_primal, svr_path
from primal_dual.io.datasets import japanese_vowels

plt.style.use("tableau-colorblind10")

# %% [markdown]
# ## The data
#
# The recording is cut into 25 frames; each frame has 12 coefficients, of which we take the second. The input $x$ is
# time, scaled to $[-2, 2]$.

# %%
frames, _ = japanese_vowels()
y = frames[:, 1]
n = len(y)
x = np.linspace(-2, 2, n)
grid = np.linspace(-2, 2, 200)  # where functions are drawn

# %% [markdown]
# ## Features
#
# A straight line is too stiff, so let the model be linear in features of $x$:
#
# $$ f(x) = \langle w, \Phi(x) \rangle, \qquad \Phi_t(x) = \frac{x^t}{\sqrt{t!}}, \quad t = 0, \dots, 8 $$
#
# The square roots give the inner product of two feature vectors a simple form, the *kernel*:
#
# $$ K(x, x') = \langle \Phi(x), \Phi(x') \rangle = \sum_{t=0}^{8} \frac{(x x')^t}{t!} $$
#
# It is the power series of $e^{x x'}$, cut off after the term of degree 8.


# %%
def Phi(x):
    t = np.arange(9)
    return x[:, None] ** t / np.sqrt([factorial(i) for i in t])


Z = Phi(x)  # (25, 9): a row of features for each training point
K = Z @ Z.T  # (25, 25): the Gram matrix

# %%
kernel_is_the_series = np.array([[sum((a * b) ** t / factorial(t) for t in range(9)) for b in x] for a in x])
assert np.allclose(K, kernel_is_the_series, rtol=0, atol=1e-12)
assert np.allclose(Z, Taylor(8).features(x[:, None]), rtol=0, atol=1e-12)  # the package has the same features

# %% [markdown]
# ## Ridge regression, twice
#
# Ridge regression minimises $\sum_j (y_j - \langle w, \Phi(x_j) \rangle)^2 + \lambda |w|^2$. Its solution is one line,
# and can be written in two ways: in feature space, or as a sum over training points.
#
# $$ w = (Z^\top Z + \lambda I)^{-1} Z^\top y = \sum_j \delta_j \Phi(x_j), \qquad \delta = (K + \lambda I)^{-1} y $$
#
# The second is a *dual* form: a number $\delta_j$ for each training point, and then $f(x) = \sum_j \delta_j K(x, x_j)$.

# %%
ridge_w = np.linalg.solve(Z.T @ Z + 0.1 * np.eye(9), Z.T @ y)
ridge_delta = np.linalg.solve(K + 0.1 * np.eye(n), y)

# %%
weights_are_a_sum_over_points = np.allclose(ridge_w, Z.T @ ridge_delta, rtol=0, atol=1e-10)
assert weights_are_a_sum_over_points
every_point_contributes = abs(ridge_delta).min() > 1e-3
assert every_point_contributes

# %% [markdown]
# ## The tube and the slack
#
# The square gives points that are far away a large influence. SVR measures an error $r$ by another loss. It is zero
# inside a tube of half-width $\epsilon$, and linear outside:
#
# $$ \ell_\epsilon(r) = \max(|r| - \epsilon, 0) $$
#
# How far a point is outside the tube is its *slack*: $\xi$ above, $\tilde\xi$ below.

# %%
C, epsilon = 1.0, 0.2
r = np.linspace(-1.2, 1.2, 241)
plt.figure(figsize=(6, 3.5), layout="constrained")
plt.plot(r, r**2, "--", label="ridge: $r^2$")
plt.plot(r, np.maximum(abs(r) - epsilon, 0), label=r"SVR: $\max(|r| - \epsilon, 0)$")
plt.axvspan(-epsilon, epsilon, color="C2", alpha=0.3, label=r"tube, $|r| \leq \epsilon$")
plt.xlabel("error $r = y - f(x)$")
plt.ylabel("loss")
plt.title("Inside the tube errors are free")
plt.legend()
plt.show()

# %%
loss = np.maximum(abs(r) - epsilon, 0)
xi, xi_tilde = np.maximum(r - epsilon, 0), np.maximum(-r - epsilon, 0)
loss_is_the_sum_of_both_slacks = np.allclose(loss, xi + xi_tilde, rtol=0, atol=1e-15)
assert loss_is_the_sum_of_both_slacks and (xi * xi_tilde == 0).all()

# %% [markdown]
# ## The primal problem
#
# We want small weights and little slack; $C$ says how many units of $\frac{1}{2} |w|^2$ a unit of slack costs:
#
# $$ \min_{w, \xi, \tilde\xi} \ \frac{1}{2} |w|^2 + C \sum_j (\xi_j + \tilde\xi_j) $$
# $$ y_j - \langle w, \Phi(x_j) \rangle \leq \epsilon + \xi_j, \qquad
# \langle w, \Phi(x_j) \rangle - y_j \leq \epsilon + \tilde\xi_j, \qquad \xi, \tilde\xi \geq 0 $$
#
# The program for cvxpy reads almost the same.

# %%
accurate = dict(solver="CLARABEL", tol_gap_abs=1e-13, tol_gap_rel=1e-13, tol_feas=1e-13)
w = cp.Variable(9)
above, below = cp.Variable(n, nonneg=True), cp.Variable(n, nonneg=True)  # slacks xi and xi~
primal = cp.Problem(
    cp.Minimize(cp.sum_squares(w) / 2 + C * cp.sum(above + below)),
    [y - Z @ w <= epsilon + above, Z @ w - y <= epsilon + below],
)
primal.solve(**accurate)
f = Z @ w.value

# %%
slack = np.maximum(abs(y - f) - epsilon, 0)
slack_is_as_small_as_the_constraints_allow = np.allclose(above.value + below.value, slack, rtol=0, atol=1e-8)
assert slack_is_as_small_as_the_constraints_allow
assert np.isclose(primal.value, w.value @ w.value / 2 + C * slack.sum(), rtol=1e-10, atol=0)

# %% [markdown]
# ## The Lagrangian
#
# Write each constraint as "something is at most zero", and give it a price (a Lagrange multiplier): $\alpha_j \geq 0$
# for a point above the tube, $\tilde\alpha_j \geq 0$ for a point below it. The *Lagrangian* is the objective plus each
# constraint times its price:
#
# $$ L = \frac{1}{2} |w|^2 + C \sum_j (\xi_j + \tilde\xi_j)
# + \sum_j \alpha_j ( y_j - \langle w, \Phi(x_j) \rangle - \epsilon - \xi_j )
# + \sum_j \tilde\alpha_j ( \langle w, \Phi(x_j) \rangle - y_j - \epsilon - \tilde\xi_j ) $$
#
# Where the constraints hold, the added terms are zero or negative, so $L$ is at most the objective. Hence, for any
# prices, the minimum of $L$ over *all* $w$ and all $\xi, \tilde\xi \geq 0$ is at most the optimum of the primal. That
# minimum can be written down:
#
# - Over $w$, the gradient $w - \sum_j (\alpha_j - \tilde\alpha_j) \Phi(x_j)$ must be zero. With
#   $\delta = \alpha - \tilde\alpha$ this says $w = \sum_j \delta_j \Phi(x_j)$: a sum over training points, as before.
# - Over $\xi_j \geq 0$, the terms with $\xi_j$ are $(C - \alpha_j) \xi_j$. If $\alpha_j \leq C$, they are smallest at
#   $\xi_j = 0$. If $\alpha_j > C$, they fall without end, and the bound is worthless. The same holds for $\tilde\xi_j$.
#
# Put $w = \sum_j \delta_j \Phi(x_j)$ and $\xi = \tilde\xi = 0$ into $L$. Its first term is
# $\frac{1}{2} \delta^\top K \delta$, and the prices times $\langle w, \Phi(x_j) \rangle$ are $-\delta^\top K \delta$:
#
# $$ \min L = -\frac{1}{2} \delta^\top K \delta - \epsilon \sum_j (\alpha_j + \tilde\alpha_j) + \sum_j y_j \delta_j $$


# %%
def lagrangian(w, xi, xi_tilde, alpha, alpha_tilde):
    above = y - Z @ w - epsilon - xi  # each constraint: above <= 0 and below <= 0
    below = Z @ w - y - epsilon - xi_tilde
    return w @ w / 2 + C * (xi + xi_tilde).sum() + alpha @ above + alpha_tilde @ below


def smallest_lagrangian(alpha, alpha_tilde):
    delta = alpha - alpha_tilde
    return -delta @ K @ delta / 2 - epsilon * (alpha + alpha_tilde).sum() + y @ delta


# %%
rng = np.random.default_rng(0)
for _ in range(100):
    prices = rng.uniform(0, C, (2, n))
    minimum = smallest_lagrangian(*prices)
    minimum_is_attained = np.isclose(lagrangian(Z.T @ (prices[0] - prices[1]), 0 * y, 0 * y, *prices), minimum)
    other_point = rng.standard_normal(9), *rng.exponential(size=(2, n))
    nothing_is_below_it = lagrangian(*other_point, *prices) >= minimum
    it_bounds_the_primal = minimum <= primal.value
    assert minimum_is_attained and nothing_is_below_it and it_bounds_the_primal

# %% [markdown]
# ## The dual problem
#
# Each choice of prices gives a lower bound on the primal. The dual problem asks for the best one:
#
# $$ \max_{0 \leq \alpha, \tilde\alpha \leq C} \ -\frac{1}{2} \delta^\top K \delta
# - \epsilon \sum_j (\alpha_j + \tilde\alpha_j) + \sum_j y_j \delta_j $$
#
# It reaches the optimum of the primal exactly, since the primal is convex and its constraints are linear. The features
# appear only in $K$. Below, $\delta^\top K \delta$ is written as $|Z^\top \delta|^2$.
#
# For a given $\delta_j$, the sum $\alpha_j + \tilde\alpha_j$ is smallest if one of the two is zero: no point is above
# the tube and below it. Then it is $|\delta_j|$, so that the dual is also
#
# $$ \max_{|\delta_j| \leq C} \ Q(\delta), \qquad Q(\delta) = -\frac{1}{2} \delta^\top K \delta
# - \epsilon \sum_j |\delta_j| + \sum_j y_j \delta_j . $$

# %%
alpha, alpha_tilde = cp.Variable(n, nonneg=True), cp.Variable(n, nonneg=True)
delta = alpha - alpha_tilde
dual = cp.Problem(
    cp.Maximize(-cp.sum_squares(Z.T @ delta) / 2 - epsilon * cp.sum(alpha + alpha_tilde) + y @ delta),
    [alpha <= C, alpha_tilde <= C],
)
dual.solve(**accurate)

# %%
d = delta.value
values_meet = abs(primal.value - (-d @ K @ d / 2 - epsilon * abs(d).sum() + y @ d)) < 1e-9
assert values_meet
expansion_is_the_primal_function = np.allclose(Phi(grid) @ w.value, Phi(grid) @ Z.T @ d, rtol=0, atol=1e-8)
assert expansion_is_the_primal_function

# %% [markdown]
# ## Support vectors
#
# At the optimum of both problems, the smallest value of $L$ equals the objective. The value of $L$ at the optimal $w,
# \xi, \tilde\xi$ is between the two, so this point minimises $L$, and each added term is zero there: a price is above
# zero only where its constraint holds with equality. And since $\xi_j \geq 0$ minimises $(C - \alpha_j) \xi_j$, this
# product is zero: where there is slack, the price is $C$. So every point is one of three kinds:
#
# $$ |y_j - f(x_j)| < \epsilon \Rightarrow \delta_j = 0, \qquad |y_j - f(x_j)| = \epsilon \Rightarrow |\delta_j| \leq C,
# \qquad |y_j - f(x_j)| > \epsilon \Rightarrow |\delta_j| = C $$
#
# The points with $\delta_j \neq 0$ are the *support vectors*. The others could be left out, and $f$ would be the same.

# %%
size = abs(d)
kinds = {
    "inside: $\\delta_j = 0$": ("o", "C3", size < 1e-6),
    "on the edge: $0 < |\\delta_j| < C$": ("v", "C0", (size >= 1e-6) & (size <= C - 1e-6)),
    "outside: $|\\delta_j| = C$": ("s", "C1", size > C - 1e-6),
}

# %%
f_grid = Phi(grid) @ w.value
plt.figure(figsize=(8, 4.5), layout="constrained")
plt.fill_between(grid, f_grid - epsilon, f_grid + epsilon, color="C2", alpha=0.3, label="tube")
plt.plot(grid, f_grid, label="SVR")
plt.plot(grid, Phi(grid) @ ridge_w, ":", color="black", label="ridge")
plt.vlines(x, y, np.clip(y, f - epsilon, f + epsilon), color="C1", label=r"slack $\xi_j$")
for label, (marker, colour, chosen) in kinds.items():
    plt.plot(x[chosen], y[chosen], marker, color=colour, label=label)
plt.xlabel("time $x$")
plt.ylabel("coefficient of the vowel")
plt.title("Only points on the tube's edge or outside it count")
plt.legend(fontsize="small")
plt.show()

# %%
inside, edge, outside = (chosen for _, _, chosen in kinds.values())
distance = abs(y - f)
assert (distance[inside] < epsilon).all() and (distance[outside] > epsilon).all()
edge_points_are_at_distance_epsilon = np.allclose(distance[edge], epsilon, rtol=0, atol=1e-8)
assert edge_points_are_at_distance_epsilon

kept = edge | outside
w_kept = cp.Variable(9)
objective = cp.sum_squares(w_kept) / 2 + C * cp.sum(cp.pos(cp.abs(y[kept] - Z[kept] @ w_kept) - epsilon))
cp.Problem(cp.Minimize(objective)).solve(**accurate)
others_can_be_left_out = np.allclose(w_kept.value, w.value, rtol=0, atol=1e-8)
assert others_can_be_left_out

# %% [markdown]
# ## The same in one line each
#
# The package declares a model by its parts. Here they are the kernel `Taylor(8)` and no normaliser; a normaliser is a
# function by which the output is divided, and comes in the next tutorial. From the declaration, the package writes both
# problems and solves them. Inputs and targets are matrices with one row for each point. A solution has a `value`, the
# optimum; that of the dual has `values`, too, which are the $v_j$ of an attention, and here the $\delta_j$.

# %%
declared = Primal(Taylor(8), normalizer="one")
keys, targets = x[:, None], y[:, None]
primal_solution = solve_primal(declared, keys, targets, C=C, epsilon=epsilon)
dual_solution = solve_dual(declared, keys, targets, C=C, epsilon=epsilon)
print("primal value", primal_solution.value, "  dual value", dual_solution.value)

# %%
values = [primal_solution.value, dual_solution.value]
assert np.allclose(values, [primal.value, dual.value], rtol=1e-10, atol=0)
same_weights = np.allclose(primal_solution.weight[0], w.value, rtol=0, atol=1e-8)
same_prices = np.allclose((dual_solution.alpha - dual_solution.alpha_tilde)[:, 0], d, rtol=0, atol=1e-8)
assert same_weights and same_prices
f_attention = attention(declared, grid[:, None], keys, dual_solution.values)[:, 0]
f_is_the_expansion = abs(f_attention - Phi(grid) @ w.value).max() < 1e-8
assert f_is_the_expansion

# %% [markdown]
# ## The gap closes
#
# Let $P(w)$ be the primal objective at $w$ with the smallest slack that $w$ allows, and $Q(\delta)$ the dual objective.
# For every $w$, and every $\delta$ with $|\delta_j| \leq C$, $Q(\delta)$ is at most the optimum, and $P(w)$ is at least
# the optimum. So the gap $P(w) - Q(\delta)$ bounds how far each is from the optimum. It even bounds the distance to the
# optimal weights $w^*$, since the primal is strongly convex:
#
# $$ \frac{1}{2} |w - w^*|^2 \leq P(w) - P(w^*) \leq P(w) - Q(\delta) $$
#
# We stop the solver early, after more and more iterations, and watch the gap close.

# %%
P, Q, weights = [], [], []
for iterations in range(1, 13):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the warning says that the solver was stopped early, as we want
        primal.solve(**accurate, max_iter=iterations)
        dual.solve(**accurate, max_iter=iterations)
    d_k = np.clip(delta.value, -C, C)
    weights.append(w.value)
    P.append(w.value @ w.value / 2 + C * np.maximum(abs(y - Z @ w.value) - epsilon, 0).sum())
    Q.append(-d_k @ K @ d_k / 2 - epsilon * abs(d_k).sum() + y @ d_k)
P, Q = np.array(P), np.array(Q)

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.plot(range(1, 13), P, "o-", label="primal value")
left.plot(range(1, 13), Q, "s--", label="dual value")
left.set(xlabel="iterations of the solver", ylabel="value", title="Primal and dual value meet", ylim=(0, 1))
left.legend()
right.semilogy(range(1, 13), np.maximum(P - Q, 1e-16), "o-", color="C3")
right.set(
    xlabel="iterations of the solver", ylabel="gap: primal value $-$ dual value", title="Their gap falls to rounding"
)
plt.show()

# %%
dual_value_is_never_above_the_primal_value = (Q[:, None] <= P + 1e-12).all()
assert dual_value_is_never_above_the_primal_value
assert P[-1] - Q[-1] < 1e-10 < 1e-3 < P[0] - Q[0]
gap_bounds_the_weights = (((np.array(weights) - primal_solution.weight) ** 2).sum(axis=1) / 2 <= P - Q + 1e-12).all()
assert gap_bounds_the_weights

# %% [markdown]
# ## What C and epsilon do
#
# $C$ is the price of slack: a higher $C$ bends $f$ towards the points. $\epsilon$ is the size of an error that is free:
# a higher $\epsilon$ leaves fewer support vectors and a flatter $f$.

# %%
Cs, epsilons = (0.1, 1.0, 100.0), (0.05, 0.2, 0.6)
solved = {(c, e): solve_dual(declared, keys, targets, C=c, epsilon=e) for c in Cs for e in epsilons}

# %%
figure, panels = plt.subplots(3, 3, figsize=(10, 8), sharex=True, sharey=True, layout="constrained")
for axes, ((c, e), v) in zip(panels.flat, solved.items(), strict=True):
    f = v.predict(grid[:, None])[:, 0]
    support = (v.alpha + v.alpha_tilde)[:, 0] > 1e-6 * c
    axes.fill_between(grid, f - e, f + e, color="C2", alpha=0.3)
    axes.plot(grid, f)
    axes.plot(x[~support], y[~support], "o", color="C3", markersize=4)
    axes.plot(x[support], y[support], "s", color="C1", markersize=4)
    axes.set_title(f"C = {c}, $\\epsilon$ = {e}: {support.sum()} support vectors", fontsize="medium")
figure.supxlabel("time $x$")
figure.supylabel("coefficient; support vectors are orange squares")
plt.show()


# %%
def norm_and_slack(v, e):
    d = (v.alpha - v.alpha_tilde)[:, 0]
    return d @ K @ d / 2, np.maximum(abs(y - K @ d) - e, 0).sum()


table = np.array([[norm_and_slack(solved[c, e], e) for e in epsilons] for c in Cs])  # (C, epsilon, norm or slack)
higher_C_means_larger_weights = (np.diff(table[:, :, 0], axis=0) >= -1e-9).all()
higher_C_means_less_slack = (np.diff(table[:, :, 1], axis=0) <= 1e-9).all()
assert higher_C_means_larger_weights and higher_C_means_less_slack
best_values = table[:, :, 0] + np.array(Cs)[:, None] * table[:, :, 1]
wider_tube_costs_less = (np.diff(best_values, axis=1) <= 1e-9).all()
assert wider_tube_costs_less

# %% [markdown]
# ## Every C at once
#
# As long as no point changes its kind, the conditions of the last sections are linear equations: points on the edge
# stay at distance $\epsilon$, and those outside have $|\delta_j| = C$. So $\delta$ is a *piecewise linear* function of
# $C$, with a corner wherever a point enters or leaves the edge. `svr_path` follows it from corner to corner.

# %%
path = svr_path(declared, keys, targets, epsilon)
corners = path.outputs[0]
shown = np.geomspace(1e-3, 100, 301)
deltas = np.array([(path.at(c).alpha - path.at(c).alpha_tilde)[:, 0] for c in shown])
plt.figure(figsize=(8, 4), layout="constrained")
plt.semilogx(shown, deltas / shown[:, None])
for c in corners.C[corners.C >= 1e-3]:
    plt.axvline(c, color="gray", linewidth=0.3)
plt.xlabel("penalty $C$; each grey line is a corner")
plt.ylabel(r"$\delta_j / C$, one line for each point")
plt.title(r"As $C$ grows, points leave the bounds $\pm C$")
plt.show()

# %%
path_is_exact = all(abs(path.at(c).relative_gap) < 1e-10 for c in [*shown, 1e3])
solutions_agree = all(np.isclose(path.at(c).value, solved[c, epsilon].value, rtol=1e-10, atol=0) for c in Cs)
assert path_is_exact and solutions_agree

last = np.searchsorted(corners.C, 1.0)
for k in (1, last // 2, last - 1):  # halfway between two corners, delta is halfway between theirs
    halfway = solve_dual(declared, keys, targets, C=corners.C[k : k + 2].mean(), epsilon=epsilon)
    delta_there = (halfway.alpha - halfway.alpha_tilde)[:, 0]
    delta_is_linear = np.allclose(delta_there, corners.delta[k : k + 2].mean(axis=0), rtol=0, atol=1e-7)
    assert delta_is_linear

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: The widest useful tube
#
# From which $\epsilon$ on is $f = 0$? Find it without solving anything, then check both sides of it.

# %% [markdown]
# **Solution.** $w = 0$ costs nothing as soon as all targets are inside the tube around zero:
# $\epsilon \geq \max_j |y_j|$. If $\epsilon$ is a little smaller, only the largest target $y_j$ is outside that tube,
# and only its point becomes a support vector: $f(x) = \delta_j K(x, x_j)$ has to come so close to $y_j$ that the point
# is on the edge of the tube, so $|\delta_j| = (|y_j| - \epsilon) / K(x_j, x_j)$.

# %%
widest = abs(y).max()
beyond = solve_dual(declared, keys, targets, C=C, epsilon=1.01 * widest)
before = solve_dual(declared, keys, targets, C=C, epsilon=0.99 * widest)
nothing_is_left_beyond_the_largest_target = abs(beyond.values).max() < 1e-8
assert nothing_is_left_beyond_the_largest_target

j = np.argmax(abs(y))
largest_target_alone = np.zeros(n)
largest_target_alone[j] = np.sign(y[j]) * 0.01 * widest / K[j, j]
assert np.allclose(before.values[:, 0], largest_target_alone, rtol=0, atol=1e-8)

# %% [markdown]
# ### Exercise 2: A bias
#
# Let $f(x) = \langle w, \Phi(x) \rangle + b$ with a free $b$ that costs nothing. Which constraint does the dual gain?
# Solve both problems, and compare with `Primal(..., bias=True)`.

# %% [markdown]
# **Solution.** With $\langle w, \Phi(x_j) \rangle + b$ in its constraints, the Lagrangian gains the term
# $-b \sum_j \delta_j$. It is linear in $b$, so its minimum over $b$ is finite only if $\sum_j \delta_j = 0$. The bias
# itself follows from any point on the edge of the tube: $b = y_j - \langle w, \Phi(x_j) \rangle - \epsilon\,
# \mathrm{sign}(\delta_j)$.

# %%
b = cp.Variable()
slack = cp.pos(cp.abs(y - Z @ w - b) - epsilon)
biased_primal = cp.Problem(cp.Minimize(cp.sum_squares(w) / 2 + C * cp.sum(slack)))
biased_dual = cp.Problem(dual.objective, [*dual.constraints, cp.sum(delta) == 0])
biased_primal.solve(**accurate)
biased_dual.solve(**accurate)
biased = solve_dual(Primal(Taylor(8), normalizer="one", bias=True), keys, targets, C=C, epsilon=epsilon)

values_meet_with_a_bias = np.allclose([biased_dual.value, biased.value], biased_primal.value, rtol=1e-9, atol=0)
assert values_meet_with_a_bias and abs(delta.value.sum()) < 1e-8
assert np.isclose(biased.bias[0], b.value, rtol=0, atol=1e-6)

# %% [markdown]
# ### Exercise 3: An outlier
#
# Take the point that is farthest above the tube, and move it up by 10. What happens to ridge regression, and what to
# the SVR? Say why before you compute. `certify(declared, keys, values, targets=..., C=..., epsilon=...)` judges values
# that you already have; without a normaliser, the values are the $\delta_j$.

# %% [markdown]
# **Solution.** Nothing happens to the SVR. The price of this point is already the highest, $C$, and it stays $C$
# however far the point moves: the old $\delta$ still meets every condition of the optimum. Ridge regression moves,
# since its $\delta_j = r_j / \lambda$ grows with the error.

# %%
moved = targets.copy()
moved[np.argmax(y - K @ d)] += 10
certificate = certify(declared, keys, d[:, None], targets=moved, C=C, epsilon=epsilon)
again = solve_primal(declared, keys, moved, C=C, epsilon=epsilon)
ridge_moved = np.linalg.solve(Z.T @ Z + 0.1 * np.eye(9), Z.T @ moved[:, 0])

svr_does_not_move = np.allclose(again.weight, primal_solution.weight, rtol=0, atol=1e-8)
ridge_does = abs(Z @ ridge_moved - Z @ ridge_w).max() > 1
assert certificate.relative_gap < 1e-9 and svr_does_not_move and ridge_does

# %% [markdown]
# Next: [2. Softmax attention is an SVR](02_softmax_attention_is_an_svr.ipynb), where the kernel becomes the exponential
# and the sum over training points becomes attention.
#
# Try it in the browser: run `primal-dual explore`, then open [An SVR is an attention](http://127.0.0.1:5006/).
