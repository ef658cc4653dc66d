# %% [markdown]
# # 5. Attention-SH: scaled heads
#
# An SVR is trained on the keys, and its cost grows with their number. But neighbouring keys are often similar. So a
# head can be trained on less data: on averages of a few neighbouring keys. How many are averaged is the *scale* of the
# head, and may differ from head to head. The data is again a spoken vowel.
#
# You will learn
# - which attention comes from an SVR with less training data;
# - what the averages do to the support vectors, the Gram matrix and the kernel of the SVR;
# - how much computation they save, counted and measured;
# - why scaled heads and batch normalisation go well together.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np

from primal_dual import (
    BatchNorm,
    Causal,
    Polynomial,
    Primal,
    attention,
    attention_weights,
    heads,
    solve_dual,
    solve_primal,
)
from primal_dual.io.datasets import japanese_vowels

# %%
plt.style.use("tableau-colorblind10")
keys, targets = (frames[:24] for frames in japanese_vowels())  # 24 frames, for groups of 2, 4 and 8
N, D = keys.shape

# %% [markdown]
# ## Step 1: an SVR with less training data
#
# Divide the $N$ keys into groups of $s$ neighbours, and average the keys of each group $g$, and their targets. With
# $N = 24$ and the scale $s = 4$, there are $n = N/s = 6$ groups. If $K$ has the keys as its rows (so it is no kernel
# here) and $Y$ the targets, the averages are the rows of $AK$ and $AY$, with an averaging matrix $A$ of shape $(n, N)$:
#
# $$\bar k_g = \frac1s \sum_{j \in g} k_j = (AK)_g, \qquad \bar y_g = (AY)_g, \qquad
#   A_{gj} = \frac1s \text{ if } j \in g, \text{ else } 0 .$$
#
# The primal is that of softmax attention, trained on these points. Its support vector expansion is a sum over the
# groups:
#
# $$f(x) = \sum_g \bar v_g\, \frac{\exp(x\cdot\bar k_g/\sqrt D)}{h(x)}, \qquad
#   h(x) = \sum_g \exp(x\cdot\bar k_g/\sqrt D) .$$


# %%
def averaging(N, scale):
    """A, (N / scale, N)."""
    return np.kron(np.eye(N // scale), np.full((1, scale), 1 / scale))


def kernel(x, y):
    return np.exp(x @ y.T / np.sqrt(D))


def solve(scale, epsilon=0.1):
    """C, ten times the median of h at the training points, and the solutions of the primal and of the dual."""
    points = averaging(N, scale) @ keys
    problem = dict(C=10 * np.median(kernel(points, points).sum(1)), epsilon=epsilon)
    primal = Primal(scale=scale)
    return problem["C"], solve_primal(primal, keys, targets, **problem), solve_dual(primal, keys, targets, **problem)


scales = (1, 2, 4, 8)
solved = {scale: solve(scale) for scale in scales}

# %% [markdown]
# **Claim.** At each scale, primal and dual have the same value, and both give attention over the groups.

# %%
for scale, (_, primal, dual) in solved.items():
    points = averaging(N, scale) @ keys
    h = kernel(points, points).sum(1, keepdims=True)
    v = (dual.alpha - dual.alpha_tilde) / h  # a value for each group
    f = kernel(keys, points) @ v / kernel(keys, points).sum(1, keepdims=True)
    assert abs(primal.value / dual.value - 1) < 1e-10, "primal and dual have the same value"
    assert abs(primal.predict(keys) - f).max() < 1e-8, "the primal's function is the expansion over groups"
    assert abs(attention(Primal(scale=scale), keys, keys, dual.values) - f).max() < 1e-12, "it is Attention-SH"

# %% [markdown]
# As a layer, Attention-SH takes $N$ keys and $N$ values, like any other attention, and averages both. So it can take
# the place of softmax attention in any model. `dual.values` has a row for each key; the rows of a group are equal.
#
# ## Step 2: what the averages do to the SVR
#
# There are fewer training points, and so fewer support vectors, though more of the points are such: averages leave
# fewer of them inside the tube. A point can be a support vector only if its target is on the edge of the tube, whose
# half-width is $\epsilon$, or outside. With the residual $r_g = \bar y_g - f(\bar k_g)$ in one output, and $\delta =
# \alpha - \tilde\alpha$,
#
# $$|r_g| < \epsilon \Rightarrow \delta_g = 0, \qquad |r_g| > \epsilon \Rightarrow |\delta_g| = C .$$

# %%
support_vectors = {}
for scale, (C, _, dual) in solved.items():
    support_vectors[scale] = int((abs(dual.alpha - dual.alpha_tilde) > 1e-6 * C).sum())
    print(f"scale {scale}: {support_vectors[scale]} support vectors, {dual.alpha.size} pairs of a point and an output")

# %% [markdown]
# **Claim.** Points inside the tube are not support vectors, points outside it have $|\delta_g| = C$, and a larger scale
# has fewer support vectors.

# %%
for scale, (C, _, dual) in solved.items():
    A = averaging(N, scale)
    weights = kernel(A @ keys, A @ keys)
    delta = dual.alpha - dual.alpha_tilde
    h = weights.sum(1, keepdims=True)
    residual = abs(A @ targets - weights / h @ (delta / h))
    assert (abs(delta[residual < 0.1 - 1e-6]) < 1e-6 * C).all(), "inside the tube: no support vector"
    assert (abs(delta[residual > 0.1 + 1e-6]) > (1 - 1e-6) * C).all(), "outside the tube: at the bound"
assert (np.diff(list(support_vectors.values())) < 0).all(), "a larger scale has fewer support vectors"

# %% [markdown]
# We look at the coefficient that varies most, and at the Gram matrices, with the entries
# $\bar G_{gg'} = \bar z_g\cdot\bar z_{g'}$ for groups $g$ and $g'$, where $\bar z_g = \Phi(\bar k_g)/h(\bar k_g)$.


# %%
def gram(scale):
    points = averaging(N, scale) @ keys
    products = kernel(points, points)
    h = products.sum(1)
    return products / h / h[:, None]


output = targets.var(0).argmax()

# %%
figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained", height_ratios=(1, 1.2))
for (top, bottom), (scale, (_, _, dual)) in zip(axes.T, solved.items(), strict=True):
    centres, averages = averaging(N, scale) @ np.arange(N), averaging(N, scale) @ targets
    top.plot(targets[:, output], ".", color="0.6", label="next frame")
    top.plot(centres, averages[:, output], "s", label="averaged target")
    top.plot(dual.predict(keys)[:, output], label="attention")
    top.set(title=f"scale {scale}: {N // scale} points,\n{support_vectors[scale]} support vectors", xlabel="frame")
    image = bottom.imshow(gram(scale) / gram(scale).max(), cmap="cividis", vmin=0, extent=(0, N, N, 0))
    bottom.set(xlabel="frame")
axes[0, 0].set_ylabel(f"coefficient {output}")
axes[1, 0].set_ylabel("Gram matrix: frame")
axes[0, 0].legend(fontsize="small")
figure.colorbar(image, ax=axes[1], label="Gram matrix, divided by its largest entry")
plt.show()

# %% [markdown]
# The forecast follows the averaged targets, and so it is smoother. The Gram matrix keeps its blocks and loses its
# detail, like an image that is made smaller.
#
# ### Averaging before the kernel
#
# An image is made smaller by averaging its entries. Is a kernel of averages the average of the kernel? Let the kernel
# matrix of all keys be $S$, and that of the averages $\bar S$. For the linear kernel $x\cdot k/\sqrt D$,
# $\bar S = A S A^\top$, the average of each block of entries. The exponential kernel averages in the exponent instead:
#
# $$\exp(x\cdot\bar k_g/\sqrt D) = \prod_{j\in g}\exp(x\cdot k_j/\sqrt D)^{1/s}
#   \;\le\; \frac1s\sum_{j\in g}\exp(x\cdot k_j/\sqrt D) .$$
#
# So the term of a group in the softmax is the geometric mean of the terms of its keys. It is at most their arithmetic
# mean; the more the keys of a group differ in their terms, the smaller it is.

# %%
A = averaging(N, 4)


def kernel_with_averages(primal):
    """<Phi(k_i), Phi(average of group g)>, (N, N / 4): with the normaliser "one", attention to the unit vectors."""
    return attention(primal, keys, keys, np.eye(N)).reshape(N, -1, 4).sum(-1)


linear = kernel_with_averages(Primal(Polynomial(degree=1, offset=0.0), normalizer="one", scale=4))
exponential = kernel_with_averages(Primal(normalizer="one", scale=4))

# %% [markdown]
# **Claim.** The linear kernel of averages is the average of the kernel. The exponential kernel of averages is the
# geometric mean, which is at most the average.

# %%
assert abs(A @ linear - A @ (keys @ keys.T / np.sqrt(D)) @ A.T).max() < 1e-12, "linear: averages"
members = kernel(keys, keys).reshape(N, -1, 4)
assert np.allclose(exponential, members.prod(-1) ** (1 / 4), rtol=1e-12, atol=0), "exponential: geometric means"
assert (exponential <= members.mean(-1)).all(), "which are at most the averages"
print(f"the geometric mean is up to {1 - (exponential / members.mean(-1)).min():.0%} below the average")

# %% [markdown]
# ## Step 3: average the tokens, not the keys
#
# In a transformer, keys and values are projections of the tokens. If the tokens are the rows of $X$, then $K = XW_K$
# and $V = XW_V$. Averages commute with these projections:
#
# $$A(XW_K) = (AX)W_K .$$
#
# So average the tokens first. Then the projections, too, take only the fraction $1/s$ of the work.

# %%
rng = np.random.default_rng(0)
W_Q, W_K, W_V = rng.standard_normal((3, D, D)) / np.sqrt(D)
layer = attention(Primal(scale=4), keys @ W_Q, keys @ W_K, keys @ W_V)

# %% [markdown]
# **Claim.** Averaged tokens give the same layer.

# %%
tokens = averaging(N, 4) @ keys
logits = keys @ W_Q @ (tokens @ W_K).T / np.sqrt(D)
weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
assert abs(layer - weights @ (tokens @ W_V)).max() < 1e-12, "average and projection commute"

# %% [markdown]
# ## Step 4: a scale for each head
#
# One head may need every frame, another only the slow changes of the sound. `heads("sh", 8)` gives eight heads the
# scales 1, 1, 2, 2, 4, 4, 8, 8. A head of scale $s$ needs $N \cdot \frac Ns \cdot D$ multiplications for the logits and
# as many for weights times values. If head $t$ of $H$ heads has the scale $s_t$, their multiplications compare as
#
# $$\frac{\text{Attention-SH}}{\text{softmax attention}}
#   = \frac1H\sum_{t=1}^H \frac1{s_t} = \frac14\left(1 + \frac12 + \frac14 + \frac18\right)
#   = \frac{15}{32} \approx 0.47 .$$
#
# (The averages take additions, and so few divisions that we neglect them.) We count the multiplications of each head,
# and then measure the time.


# %%
def attend(q, k, v, scale):
    """One scaled head in NumPy, and how many multiplications its two matrix products take."""
    k, v = (x.reshape(-1, scale, x.shape[-1]).mean(1) for x in (k, v))
    logits = q @ k.T / np.sqrt(q.shape[1])
    weights = np.exp(logits - logits.max(1, keepdims=True))
    f = weights @ v / weights.sum(1, keepdims=True)
    return f, logits.size * q.shape[1] + weights.size * v.shape[1]


def seconds(q, k, v, scale):
    start = time.process_time()  # of the processor: other programs do not count
    attend(q, k, v, scale)
    return time.process_time() - start


# %%
H, long, width = 8, 2048, 32
declared = [primal.scale for primal in heads("sh", H)]
q, k, v = rng.standard_normal((3, H, long, width))
multiplications = [attend(q[t], k[t], v[t], scale)[1] for t, scale in enumerate(declared)]
rounds = [[seconds(q[t], k[t], v[t], scale) for t, scale in enumerate(declared)] for _ in range(5)]
measured = np.min(rounds, axis=0)
print("scales", declared)
print("fraction of the multiplications:", sum(multiplications) / (H * multiplications[0]))
print("fraction of the time:", round(sum(measured) / (H * measured[0]), 2))

# %% [markdown]
# **Claim.** Scaled heads take 47% of the multiplications, and less time than heads of scale 1. The package computes the
# same.

# %%
assert sum(multiplications) == H * multiplications[0] * (1 + 1 / 2 + 1 / 4 + 1 / 8) / 4, "47% of the multiplications"
assert sum(measured) < H * measured[0], "and less time"
by_hand = np.stack([attend(q[t, :64], k[t], v[t], scale)[0] for t, scale in enumerate(declared)])
assert abs(attention(heads("sh", H), q[:, :64], k, v) - by_hand).max() < 1e-12, "they are the package's heads"

# %%
figure, ax = plt.subplots(figsize=(6, 4), layout="constrained")
ax.loglog(declared, np.array(multiplications) / multiplications[0], "-", label="multiplications")
ax.loglog(declared, np.array(measured) / measured[0], "o", label="measured time")
ax.set(xlabel="scale of the head", ylabel="relative to a head of scale 1", title="A head of scale s costs 1/s")
ax.set_xticks(scales, scales)
ax.set_yticks([1, 1 / 2, 1 / 4, 1 / 8], ["1", "1/2", "1/4", "1/8"])
ax.minorticks_off()
ax.legend()
plt.show()

# %% [markdown]
# ## Step 5: with batch normalisation
#
# Averages of keys lie nearer to the mean of all keys than the keys themselves, on average. In each coordinate, let
# $\mu$ be the mean of all keys. If all groups have the same size, the variance is a sum of two parts:
#
# $$\underbrace{\frac1N\sum_j (k_j-\mu)^2}_{\text{of the keys}} \;=\;
#   \underbrace{\frac1n\sum_g (\bar k_g-\mu)^2}_{\text{of the groups}} \;+\;
#   \underbrace{\frac1N\sum_g\sum_{j\in g} (k_j-\bar k_g)^2}_{\text{within the groups}} .$$
#
# The second part is lost. So averaged keys differ less from each other, and attention distinguishes them less. Batch
# normalisation makes up for that. Its statistics are those of the training set, which is now the set of averages: each
# coefficient of them gets the standard deviation 1 again, whatever the scale.


# %%
def variances(scale):
    """Variance of the groups, and within them, (D,) each."""
    points = averaging(N, scale) @ keys
    return points.var(0), ((keys - np.repeat(points, scale, 0)) ** 2).mean(0)


split = {scale: variances(scale) for scale in scales}

# %% [markdown]
# **Claim.** The variance is the sum of both. Attention-BN+SH is softmax attention to normalised averages, with the
# statistics of the averages.

# %%
for scale, (of_groups, within) in split.items():
    assert abs(keys.var(0) - of_groups - within).max() < 1e-13, "the variance is a sum of two"
    points = averaging(N, scale) @ keys
    deviation = np.sqrt(of_groups + 1e-5)
    logits = (keys - points.mean(0)) / deviation @ ((points - points.mean(0)) / deviation).T / np.sqrt(D)
    weights = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    by_package = attention_weights(Primal(transform=BatchNorm(), scale=scale), keys, keys)
    assert abs(by_package - np.repeat(weights / scale, scale, 1)).max() < 1e-13, "the statistics are the groups'"

# %% [markdown]
# How sharply does a query choose between groups? The more its logits differ, the more sharply. We take the standard
# deviation of the logits of a query over the groups, on average over the queries, and call it the contrast.


# %%
def contrast(transform, scale):
    weights = attention_weights(Primal(transform=transform, scale=scale), keys, keys)
    return np.log(weights[:, ::scale]).std(1).mean()  # the log weights are the logits plus a constant for each query


contrasts = {
    "Attention-SH": [contrast((), scale) for scale in scales],
    "Attention-BN+SH": [contrast(BatchNorm(), scale) for scale in scales],
}
print({name: np.round(each, 2).tolist() for name, each in contrasts.items()})

# %% [markdown]
# **Claim.** With a larger scale, Attention-SH loses contrast. Attention-BN+SH does not lose contrast; it even gains,
# since the queries, too, are divided by the standard deviations of the averages, which get smaller.

# %%
for scale, plain, normalised in zip(scales, *contrasts.values(), strict=True):
    points = averaging(N, scale) @ keys
    interest = (keys - points.mean(0)) / (points.var(0) + 1e-5) @ points.T / np.sqrt(D)
    assert np.isclose(plain, (keys @ points.T / np.sqrt(D)).std(1).mean(), rtol=1e-12), "that of the logits"
    assert np.isclose(normalised, interest.std(1).mean(), rtol=1e-12), "that of the logits with BN"
assert (np.diff(contrasts["Attention-SH"]) < 0).all(), "averaging alone loses contrast"
assert (np.diff(contrasts["Attention-BN+SH"]) > 0).all(), "with batch normalisation it does not"

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
of_groups, within = (np.array([each[i].mean() for each in split.values()]) for i in (0, 1))
names = [str(scale) for scale in scales]
left.bar(names, of_groups, label="of the groups")
left.bar(names, within, bottom=of_groups, hatch="//", label="within the groups, lost")
left.set(xlabel="scale", ylabel="variance of the keys, mean over features", title="Averaging loses variance")
left.legend(loc="lower left")
for (name, each), marker in zip(contrasts.items(), "os", strict=True):
    right.plot(names, each, marker + "-", label=name)
right.set(xlabel="scale", ylabel="standard deviation of a query's logits", ylim=(0, None))
right.set_title("Batch normalisation keeps the contrast")
right.legend(loc="upper left")
plt.show()

# %%
figure, axes = plt.subplots(2, 4, figsize=(12, 6), layout="constrained", sharex=True, sharey=True)
for row, (name, transform) in zip(axes, {"SH": (), "BN+SH": BatchNorm()}.items(), strict=True):
    for ax, scale in zip(row, scales, strict=True):
        weights = attention_weights(Primal(transform=transform, scale=scale), keys, keys)
        image = ax.imshow(weights * scale, cmap="cividis", vmin=0, vmax=0.6)
        ax.set_title(f"{name}, scale {scale}")
    row[0].set_ylabel("query (frame)")
figure.colorbar(image, ax=axes, label="weight of a key's group")
figure.supxlabel("key (frame)", fontsize="medium")
figure.suptitle("Four heads on the same frames, from fine to coarse")
plt.show()

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: the short group
# With 25 keys and a scale of 4, the last group has a single key. Let all keys be equal. What is the weight of each key?

# %% [markdown]
# **Solution.** There are seven groups, and each gets the same weight, 1/7. In the first six groups, four keys share it,
# so each gets 1/28; the last key does not share it and gets 1/7. A group counts as one training point, however many
# keys it has.

# %%
equal = np.ones((25, D))
weights = attention_weights(Primal(scale=4), equal, equal)
assert abs(weights[:, :24] - 1 / 28).max() < 1e-15 and abs(weights[:, 24] - 1 / 7).max() < 1e-15, "a group is one point"

# %% [markdown]
# ### Exercise 2: low rank
# The attention weights of a head are an $(N, N)$ matrix. What is the largest rank that it can have at scale $s$? Do
# heads of scale 1, 2, 4 and 8 have that rank on the vowel?

# %% [markdown]
# **Solution.** The matrix of weights is an $(N, N/s)$ matrix times $A$, which has the rank $N/s$. So the rank is at
# most $N/s$. On the vowel, the heads have it.

# %%
ranks = [np.linalg.matrix_rank(attention_weights(Primal(scale=scale), keys, keys)) for scale in scales]
assert ranks == [24, 12, 6, 3], "the rank is the number of groups"

# %% [markdown]
# ### Exercise 3: causal scaled heads
# Query $i$ may see the keys $0, \dots, i$ only. Write down its training set, and the attention. Show that the package's
# `causal-sh` is the same, and that the future does not leak. (Groups are counted from the first token, so that the last
# one may be incomplete.)

# %% [markdown]
# **Solution.** The SVR of query $i$ is trained on the averages of the keys that it sees: the complete groups of the
# past, and the group of the query, up to the query.


# %%
def causal_sh(x, v, scale=2):
    f = []
    for i in range(len(x)):
        groups = np.split(np.arange(i + 1), range(scale, i + 1, scale))
        points, values = (np.stack([a[group].mean(0) for group in groups]) for a in (x, v))
        weights = kernel(x[i], points)
        f.append(weights @ values / weights.sum())
    return np.stack(f)


causal = Primal(support=Causal(), scale=2)
f = causal_sh(keys, targets)
assert abs(f - attention(causal, keys, keys, targets)).max() < 1e-12, "the package computes the same"
changed = np.concatenate([keys[:15], rng.standard_normal((9, D))])
moved = abs(attention(causal, changed, changed, targets) - f).max(1)
assert moved[:15].max() < 1e-12 and moved[15:].min() > 1e-6, "the future does not leak"

# %% [markdown]
# Next: [6. Certify a trained transformer](06_certify_a_trained_transformer.ipynb), where we begin with keys and values,
# and look for the SVR that they solve.
#
# Try it in the browser: run `primal-dual explore`, then open [What scaled heads see](http://127.0.0.1:5006/scales).
