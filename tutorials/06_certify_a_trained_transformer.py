# %% [markdown]
# # 6. Certify a trained transformer
#
# So far we wrote down an SVR and found an attention. Now we go the other way. We train a small transformer on images of
# digits, by gradient descent, without any SVR. Then we take its heads and ask of each: which SVR does it solve, and how
# exactly?
#
# You will learn
# - which SVR is solved by given keys and values, and what its targets are;
# - how the duality gap proves that for the numbers at hand;
# - how the gap bounds the error of a head whose values are not exact, at every query.

# %%
import matplotlib.pyplot as plt
import numpy as np

from primal_dual import BatchNorm, Primal, attention, certify, encoder, heads, solve_dual
from primal_dual.classifier import accuracy, digits, train

plt.style.use("tableau-colorblind10")
softmax_attention = Primal()

# %% [markdown]
# ## Step 1: train
#
# A token is a row of an image, which has eight pixels. The encoder has one layer of four heads, and autograd computes
# its gradient.

# %%
images, labels, test_images, test_labels = digits()
params = train("softmax", images, labels, count=4, steps=500)
right = accuracy(params, "softmax", test_images, test_labels)
print(f"{right:.1%} of {len(test_labels)} test images are recognised")

# %% [markdown]
# We want the queries, keys and values of its heads. They are projections of the embedded rows to 32 numbers, of which
# each of the four heads takes eight. The embedding has the weights $W_E$ and the bias $b_E$, and adds a vector $p$ for
# the position of the row (`params["P"]` in the code):
#
# $$x = \text{row}\cdot W_E + b_E + p, \qquad q = xW_Q, \quad k = xW_K, \quad v = xW_V .$$

# %%
layer = params["layers"][0]


def embed(images):
    return images @ params["W_E"] + params["b_E"] + params["P"]


def project(images, name):
    """(images, heads, rows, features)."""
    x = embed(images) @ layer[name]
    return x.reshape(len(images), 8, 4, 8).swapaxes(1, 2)


q, k, v = (project(test_images, name) for name in ("W_Q", "W_K", "W_V"))

# %% [markdown]
# **Claim.** The model recognises digits, and these are its heads: with them, the rest of the encoder, written in plain
# NumPy, gives the same outputs as the model.


# %%
def norm(x):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)


weights = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(8))
f = weights @ v / weights.sum(-1, keepdims=True)
x = norm(embed(test_images) + f.swapaxes(1, 2).reshape(-1, 8, 32) @ layer["W_O"])
x = norm(x + np.maximum(x @ layer["W_1"] + layer["b_1"], 0) @ layer["W_2"] + layer["b_2"])
logits = x.mean(1) @ params["W"] + params["b"]
assert right > 0.9, "the model recognises digits"
assert abs(logits - encoder(params, test_images, heads("softmax", 4))).max() < 1e-10, "these are the model's heads"

# %% [markdown]
# ## Step 2: the SVR of a head
#
# In the support vector expansion, $v_j = \delta_j / h(k_j)$ with $\delta = \alpha - \tilde\alpha$ and the normaliser
# $h(x) = \sum_j K(x, k_j)$, where $K(x, k) = e^{x\cdot k/\sqrt8}$ is the kernel for eight features. Read it backwards:
# given keys and values, put
#
# $$\delta_j = h(k_j)\,v_j, \qquad y_j = f(k_j), \qquad C = \max_{j,d}|\delta_{jd}|, \qquad \epsilon = 0 ,$$
#
# where $d$ counts the outputs. The targets $y_j$ are the head's own outputs at its keys: $f$ meets them, so no slack is
# needed. With $W = \sum_j \delta_j \Phi(k_j)^\top/h(k_j)$, the primal value $P$ and the dual value $Q$ are
#
# $$P = \frac12|W|^2 + C\cdot 0, \qquad Q = -\frac12|W|^2 + \sum_j y_j\cdot\delta_j, \qquad
#   |W|^2 = \sum_{i,j} v_i\cdot v_j\, K(k_i, k_j) = \sum_i \delta_i\cdot y_i .$$
#
# So $P = Q$: the head is optimal. It is the function of least norm through its own outputs at its keys.


# %%
def svr_of(keys, values):
    """Targets, C, and primal and dual value, by the formulas above."""
    K = np.exp(keys @ keys.T / np.sqrt(keys.shape[1]))
    h = K.sum(1, keepdims=True)
    delta, y = h * values, K @ values / h
    square = (values * (K @ values)).sum()
    return y, abs(delta).max(), square / 2, -square / 2 + (y * delta).sum()


image, head = 0, 0
keys, values = k[image, head], v[image, head]
certificate = certify(softmax_attention, keys, values)
print(f"primal {certificate.primal_value:.15g}, dual {certificate.dual_value:.15g}, gap {certificate.relative_gap:.1g}")

# %% [markdown]
# **Claim.** The certificate has these targets and this $C$, and its primal and dual value agree. (Its values are in
# units of the exponential of `log_scale`, so that logits of any size can be certified.)

# %%
y, C, P, Q = svr_of(keys, values)
unit = np.exp(certificate.log_scale)
assert abs(certificate.targets - y).max() < 1e-12, "the targets are the head's outputs at its keys"
assert np.isclose(certificate.log_C, np.log(C), rtol=1e-12), "C is the largest delta"
assert np.allclose([certificate.primal_value * unit, certificate.dual_value * unit], [P, Q], rtol=1e-12), "P and Q"
assert abs(certificate.relative_gap) < 1e-12, "primal and dual value agree"

# %% [markdown]
# There is a second proof. Give the targets to a solver, which does not know the values, with a larger $C$ so that no
# bound is active. It must find the head.

# %%
solution = solve_dual(softmax_attention, keys, certificate.targets, C=2 * C, epsilon=0.0)

# %% [markdown]
# **Claim.** The solution of the SVR with these targets has the values that gradient descent found.

# %%
assert abs(solution.values - values).max() < 1e-8, "the SVR finds the head's values"

# %% [markdown]
# ### What the heads saw
#
# Walk through the space of keys, along straight lines from the key of the first row to that of the second, and so on.
# The function of each head passes through its targets. The targets are not the values: a target is a weighted average
# of the values of all rows.

# %%
path = np.linspace(0, 7, 281)
figure, axes = plt.subplots(1, 5, figsize=(14, 3.2), layout="constrained")
axes[0].imshow(test_images[image], cmap="gray_r")
axes[0].set(title=f"the image, a {test_labels[image]}", xlabel="column", ylabel="row")
for s, ax in enumerate(axes[1:]):
    between = np.stack([np.interp(path, np.arange(8), coordinate) for coordinate in k[image, s].T], axis=1)
    output = v[image, s].var(0).argmax()
    ax.plot(path, attention(softmax_attention, between, k[image, s], v[image, s])[:, output], label="f, the head")
    ax.plot(certify(softmax_attention, k[image, s], v[image, s]).targets[:, output], "o", label="targets y")
    ax.plot(v[image, s, :, output], "x", color="0.5", label="values v")
    ax.set(title=f"head {s + 1}", xlabel="key of row", ylabel=f"output {output + 1}")
axes[1].legend(fontsize="small")
plt.show()

# %% [markdown]
# ## Step 3: every head, on every image
#
# The keys of a head depend on the image. So each head solves a different SVR for each image: four times 450 SVRs.

# %%
certificates = [[certify(softmax_attention, *head) for head in zip(k[i], v[i], strict=True)] for i in range(len(k))]
gaps = np.array([[certificate.relative_gap for certificate in row] for row in certificates])
print(f"{gaps.size} certificates, the largest relative gap is {abs(gaps).max():.1g}")

# %% [markdown]
# **Claim.** All gaps are rounding errors, by the package and by the formulas above.

# %%
assert abs(gaps).max() < 1e-12, "every head solves its SVR on every image"
for i in range(len(k)):
    for s in range(4):
        y, _, P, Q = svr_of(k[i, s], v[i, s])
        assert abs(P - Q) < 1e-12 * P, "by the formulas, too"
        assert abs(certificates[i][s].targets - y).max() < 1e-11, "and the targets are theirs"

# %% [markdown]
# ## Step 4: perturb a value
#
# A certificate that always says yes would prove nothing. Keep the targets, and fix $C$ at one and a half times
# $\max|\delta|$. Then change one value, by $t$. This changes $f$, $W$ and $\delta$ to $\hat f$, $\hat W$ and
# $\hat\delta$. The new outputs miss the targets by $r_j = y_j - \hat f(k_j)$, and the gap is
#
# $$P - Q = \frac12|\hat W|^2 + C\sum_{j,d}|r_{jd}| + \frac12|\hat W|^2 - \sum_j y_j\cdot\hat\delta_j
#   = \sum_{j,d}(C\,|r_{jd}| - r_{jd}\,\hat\delta_{jd}) ,$$
#
# since $|\hat W|^2 = \sum_j \hat\delta_j\cdot\hat f(k_j)$. No term is negative as long as $|\hat\delta_{jd}| \le C$.
#
# The primal is strongly convex in $W$: half the squared distance to the optimum is at most the gap. So at every query
#
# $$|\hat f(x) - f(x)| \;\le\; \frac{|\Phi(x)|}{h(x)}\,|\hat W - W| \;\le\;
#   \frac{|\Phi(x)|}{h(x)}\sqrt{2\,(P - Q)} .$$
#
# The last bound needs neither $f$ nor $W$: it judges a solution without knowing the exact one.


# %%
def perturbed(keys, values, t):
    """The values, with one number at the key of largest h changed by t, towards zero."""
    changed = values.copy()
    j = np.exp(keys @ keys.T / np.sqrt(8)).sum(1).argmax()
    changed[j, 0] -= t * np.sign(values[j, 0])
    return changed


sizes = np.geomspace(1e-6, 0.1, 16)
y, C, _, _ = svr_of(keys, values)
C = 1.5 * C
judged = [certify(softmax_attention, keys, perturbed(keys, values, t), targets=y, C=C) for t in sizes]

# %% [markdown]
# **Claim.** The gap is the sum above, and it grows with $t$.

# %%
K = np.exp(keys @ keys.T / np.sqrt(8))
h = K.sum(1, keepdims=True)
gap = []
for t in sizes:
    changed = perturbed(keys, values, t)
    residual = y - K @ changed / h
    gap.append((C * abs(residual) - residual * h * changed).sum())
by_certificate = [(one.primal_value - one.dual_value) * np.exp(one.log_scale) for one in judged]
assert np.allclose(by_certificate, gap, rtol=1e-6), "the gap is the price of the residuals"
assert (np.diff(gap) > 0).all(), "it grows with the perturbation"

# %% [markdown]
# **Claim.** Both inequalities hold at all queries of this head, those of the 3600 rows of all test images, although it
# has only eight keys.


# %%
def error_and_bounds(queries, keys, values, changed, gap):
    """The error |f^ - f|, and the two bounds on it in the order of the formula, (M,) each."""
    rows = np.exp(queries @ keys.T / np.sqrt(8))
    h = rows.sum(1)
    length = np.exp((queries**2).sum(1) / np.sqrt(8) / 2) / h  # |Phi(x)| / h(x)
    d = changed - values
    error = np.linalg.norm(rows @ d, axis=1) / h
    distance = np.sqrt((d * (np.exp(keys @ keys.T / np.sqrt(8)) @ d)).sum())  # |W^ - W|
    return error, length * distance, length * np.sqrt(2 * gap)


queries = q[:, head].reshape(-1, 8)
for t, one, its_gap in zip(sizes, judged, gap, strict=True):
    error, by_distance, by_gap = error_and_bounds(queries, keys, values, perturbed(keys, values, t), its_gap)
    assert np.allclose(one.error_bound(queries), by_gap, rtol=1e-6), "the bound is |Phi| / h sqrt(2 gap)"
    assert (error <= by_distance).all() and (by_distance <= by_gap).all(), "and it holds at every query"

# %% [markdown]
# Values with $|\hat\delta_{jd}| > C$ are not feasible in the dual. The certificate says so, with an infinite gap.

# %%
outside = certify(softmax_attention, keys, 2 * values, targets=y, C=C)
assert outside.relative_gap == np.inf and outside.feasibility > 0, "values that are not feasible have no certificate"

# %% [markdown]
# And now all heads and images: one value of each is changed by 0.1. At the query of the image where the error is
# largest, we compare the error with its bound.


# %%
def judge(q, keys, values, t=0.1):
    """The largest error of a perturbed head at its queries, and the certificate's bound at that query."""
    y, C, _, _ = svr_of(keys, values)
    changed = perturbed(keys, values, t)
    certificate = certify(softmax_attention, keys, changed, targets=y, C=1.5 * C)
    rows = np.exp(q @ keys.T / np.sqrt(8))
    error = np.linalg.norm(rows @ (changed - values), axis=1) / rows.sum(1)
    return error.max(), certificate.error_bound(q)[error.argmax()]


pairs = np.array([judge(q[i, s], k[i, s], v[i, s]) for i in range(len(k)) for s in range(4)])
errors, bounds = pairs.T.reshape(2, len(k), 4)

# %% [markdown]
# **Claim.** The bound holds for each of the 1800 pairs of a head and an image.

# %%
assert (errors <= bounds).all(), "the bound holds for every head and image"
ratio = bounds / errors
print(f"the bound is {ratio.min():.0f} times the error at best, {np.median(ratio):.0f} times at the median")

# %%
own = q[image, head]
curves = []
for t, its_gap in zip(sizes, gap, strict=True):
    each = error_and_bounds(own, keys, values, perturbed(keys, values, t), its_gap)
    curves.append([one[each[0].argmax()] for one in each])  # at the query of largest error

# %%
figure, (one_head, all_heads) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
names = "true error", "bound by the distance", "bound by the gap"
for curve, label, marker in zip(np.transpose(curves), names, "os^", strict=True):
    one_head.loglog(sizes, curve, marker + "-", label=label)
one_head.set(xlabel="change t of one value", ylabel="at the query of largest error", title="One head: error and bounds")
one_head.legend()
for s, marker in enumerate("os^v"):
    all_heads.loglog(errors[:, s], bounds[:, s], marker, markersize=3, alpha=0.6, label=f"head {s + 1}")
all_heads.loglog([1e-6, 0.1], [1e-6, 0.1], color="0.2", label="bound = error")
all_heads.set(xlabel="true error", ylabel="bound by the gap", title="All heads and images: none below the line")
all_heads.legend(fontsize="small")
plt.show()

# %% [markdown]
# The bound holds, but it is loose. The first inequality loses little: the distance $|\hat W - W|$ bounds the error
# well. The second is loose. The distance is proportional to $t$; but so is the gap, for small $t$, and the bound has
# its square root, which is much larger than $t$. Besides, the gap counts each residual at the price $C$, which is set
# by the key with the largest $|\delta|$, and is too high for the others.
#
# ## Exercises
#
# ### Exercise 1: a tube
# The tube of the SVR in step 2 has the half-width $\epsilon = 0$. Which targets make the same values the optimum of an
# SVR with $\epsilon = 0.2$?

# %% [markdown]
# **Solution.** Where $\delta_j > 0$ the target lies on the upper edge of the tube, where $\delta_j < 0$ on the lower:
# $y_j = f(k_j) + \epsilon\,\text{sign}(\delta_j)$. Then no slack is needed, and
# $Q = -\frac12|W|^2 - \epsilon\sum|\delta| + \sum y\cdot\delta = \frac12|W|^2 = P$. So one head solves many SVRs.

# %%
tube = certify(softmax_attention, keys, values, epsilon=0.2)
y, _, _, _ = svr_of(keys, values)
assert abs(tube.targets - y - 0.2 * np.sign(values)).max() < 1e-12, "targets on the edges of the tube"
assert abs(tube.relative_gap) < 1e-12, "and the values are still the optimum"

# %% [markdown]
# ### Exercise 2: another attention
# Train the same encoder with Attention-BN and certify its heads. Compute $P$ and $Q$ of one certificate yourself.

# %% [markdown]
# **Solution.** Only the keys change: the SVR has the normalised keys.

# %%
params_bn = train("bn", images, labels, count=4, steps=150)
print(f"Attention-BN, 150 steps: {accuracy(params_bn, 'bn', test_images, test_labels):.1%}")
x = test_images @ params_bn["W_E"] + params_bn["b_E"] + params_bn["P"]
k_bn, v_bn = ((x @ params_bn["layers"][0][name])[..., :8] for name in ("W_K", "W_V"))  # the first head
bn = Primal(transform=BatchNorm())
gaps_bn = [certify(bn, keys, values).relative_gap for keys, values in zip(k_bn, v_bn, strict=True)]
normalised = (k_bn[0] - k_bn[0].mean(0)) / np.sqrt(k_bn[0].var(0) + 1e-5)
y, _, P, Q = svr_of(normalised, v_bn[0])
assert max(map(abs, gaps_bn)) < 1e-12 and abs(P - Q) < 1e-12 * P, "heads of Attention-BN solve their SVRs, too"
assert abs(certify(bn, k_bn[0], v_bn[0]).targets - y).max() < 1e-12, "with normalised keys"

# %% [markdown]
# ### Exercise 3: half precision
# Round the values of the head to float16. How large can the error of its outputs be at the queries of the image, by the
# distance and by the gap, and how large is it?

# %% [markdown]
# **Solution.** Rounding is a perturbation; targets and $C$ are those of the exact head. The bound by the distance is
# close to the error, but needs the exact values. The bound by the gap does not need them, and is looser.

# %%
y, C, _, _ = svr_of(keys, values)
rounded = values.astype(np.float16).astype(float)
certificate = certify(softmax_attention, keys, rounded, targets=y, C=1.01 * C)
its_gap = (certificate.primal_value - certificate.dual_value) * np.exp(certificate.log_scale)
error, by_distance, by_gap = error_and_bounds(own, keys, values, rounded, its_gap)
worst = error.argmax()
print(f"error {error[worst]:.1g}, by the distance {by_distance[worst]:.1g}, by the gap {by_gap[worst]:.1g}")
assert 1e-6 < certificate.relative_gap < 1e-2, "rounding opens a gap"
assert (error <= by_distance).all() and (by_distance <= certificate.error_bound(own)).all(), "and the bounds hold"

# %% [markdown]
# Next: [7. Invent your own](07_invent_your_own.ipynb): write a kernel and a transform that the package does not have.
#
# Try it in the browser: run `primal-dual explore`, then open [A real head](http://127.0.0.1:5006/head).
