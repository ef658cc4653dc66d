# %% [markdown]
# # 3. One primal, many attentions
#
# Softmax attention came out of one primal. The parts of a primal can be chosen one by one: the features, which keys
# train the SVR, how keys and queries are transformed before that, how many SVRs there are. Each choice gives a known
# attention, and choices combine. So this is a construction kit.
#
# You will learn
# - which part of the primal makes linear, sparse, causal, multi-head and convolution attention,
# - how to check that a new attention is the solution of the SVR that you declared,
# - why the list of attentions is a product of choices.

# %%
from dataclasses import dataclass, replace

import matplotlib.pyplot as plt
import numpy as np

from primal_dual import Heads, Primal, attention, attention_weights, catalog, certify, plots, solve_dual, solve_primal
from primal_dual.io.datasets import japanese_vowels
from primal_dual.kernels import EluPlusOne, Gaussian
from primal_dual.supports import Causal, Strided, Window
from primal_dual.transforms import Convolution, UnitNorm

plt.style.use("tableau-colorblind10")

# %% [markdown]
# ## The kit
#
# The model of the SVR has weights $W$, features $\Phi$, an input transform $T$, a normaliser $h$ and perhaps a bias
# $b$:
#
# $$ f(x) = \frac{W \Phi(T x)}{h(x)} + b, \qquad h(x) = \sum_j \langle \Phi(T x), \Phi(T k_j) \rangle $$
#
# | part | in softmax attention | other choices |
# |---|---|---|
# | kernel $\langle \Phi(x), \Phi(y) \rangle$ | $e^{x \cdot y / \sqrt{D}}$ | any positive semidefinite kernel |
# | support: the keys that train the SVR of a query | all | a window, every third key, the past, any mask |
# | transform $T$ of keys and queries | none | convolution, batch normalisation, unit norm |
# | scale: how many keys are averaged to one training point | 1 | 2, 3, ... |
# | heads: how many independent SVRs | 1 | 2, 3, ... |
#
# The rest of the derivation does not change: the dual gives $\delta$, the values are $v_j = \delta_j / h(k_j)$, and
#
# $$ f(x) = \frac{\sum_j v_j \langle \Phi(T x), \Phi(T k_j) \rangle}
# {\sum_j \langle \Phi(T x), \Phi(T k_j) \rangle} + b $$
#
# We forecast the frames of a vowel again, now with all 12 coefficients.

# %%
keys, targets = japanese_vowels()
n, D = keys.shape
rng = np.random.default_rng(0)
values = rng.standard_normal((n, 4))
softmax = Primal()
print(softmax)


# %% [markdown]
# ## One check for all of them
#
# Whatever is declared, three things must be the same function: the layer of the primal, the expansion of the dual, and
# attention. The check solves the SVR twice, by its primal and by its dual, and compares. Where each query has an SVR of
# its own, `query` says which SVR to solve.


# %%
def primal_dual_and_attention_agree(primal, query=None):
    problem = dict(C=1000.0, epsilon=0.1, query=query)
    W = solve_primal(primal, keys, targets, **problem)
    v = solve_dual(primal, keys, targets, **problem)
    f = attention(primal, keys, keys, v.values)
    compared = slice(None) if query is None else query
    same_function = abs(W.predict(keys)[compared] - f[compared]).max() < 1e-8 * abs(targets).max()
    return same_function and abs(W.value / v.value - 1) < 1e-10


# %%
assert primal_dual_and_attention_agree(softmax)
scores = np.exp(keys @ keys.T / np.sqrt(D))
f = scores @ values / scores.sum(axis=1, keepdims=True)
softmax_is_the_formula = abs(attention(softmax, keys, keys, values) - f).max() < 1e-12
assert softmax_is_the_formula

# %% [markdown]
# ## Another kernel: linear attention
#
# Take $D$ features instead of infinitely many: $\Phi(x) = \mathrm{elu}(x) + 1$ in each coordinate, which is $x + 1$
# where $x > 0$ and $e^x$ elsewhere, and so always positive:
#
# $$ f(x) = \frac{\sum_j v_j \, \Phi(x) \cdot \Phi(k_j)}{\sum_j \Phi(x) \cdot \Phi(k_j)}
# = \frac{W \Phi(x)}{u \cdot \Phi(x)}, \qquad W = \sum_j v_j \Phi(k_j)^\top, \quad u = \sum_j \Phi(k_j) $$
#
# The right-hand side is the layer of the primal. It takes two sums over the keys, and then the keys are not needed any
# more. So the cost is linear in the number of keys: linear attention is computed in the primal form, softmax attention
# in the dual form. (This $u$ is a sum of features, and not $\delta/C$.)

# %%
linear = replace(softmax, kernel=EluPlusOne())
print(linear)


def Phi(x):
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


# %%
W, u = values.T @ Phi(keys), Phi(keys).sum(axis=0)
f = Phi(keys) @ W.T / (Phi(keys) @ u)[:, None]
two_sums_are_enough = abs(attention(linear, keys, keys, values) - f).max() < 1e-12
assert two_sums_are_enough
assert primal_dual_and_attention_agree(linear)

# %%
figure, panels = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for axes, (name, primal) in zip(
    panels, {"softmax: peaked": softmax, "linear: nearly even": linear}.items(), strict=True
):
    labels = {"title": name, "xlabel": "key (frame)", "ylabel": "query (frame)"}
    plots.attention_map(primal, keys, largest=0.2, axes=axes, colorbar=False, **labels)
figure.colorbar(panels[0].images[0], ax=panels, label="attention weight", extend="max")
plt.show()

# %% [markdown]
# ## Another support: sparse attention
#
# Give each query $i$ an SVR of its own, trained only on the keys $S_i$ that it may see. Its sums run over these keys:
#
# $$ f(q_i) = \frac{\sum_{j \in S_i} v_j \, e^{q_i \cdot k_j / \sqrt{D}}}
# {\sum_{j \in S_i} e^{q_i \cdot k_j / \sqrt{D}}} $$
#
# With a window, query $i$ sees the keys with $|i - j| \leq 3$; with a stride, every third key, those where $i - j$ is a
# multiple of 3; and with causal attention the past, $j \leq i$. So a language model has one SVR for each token, each
# with one training point more than the SVR before.
#
# Trained on the same targets, these SVRs would give a key another value for each query, so their solutions do not make
# one head. Below, we therefore take the SVR of query 10, and compare its function with attention at query 10. The
# converse of tutorial 2 holds for one head, though: for any values $v_j$ that all queries share, the SVR of query $i$
# has $\delta_j = h_i(k_j)\, v_j$ as its solution, where $h_i$ sums over $S_i$, with targets of its own.

# %%
sparse = {
    "window": replace(softmax, support=Window(3)),
    "strided": replace(softmax, support=Strided(3)),
    "causal": replace(softmax, support=Causal()),
}
i, j = np.arange(n)[:, None], np.arange(n)
seen = {"window": abs(i - j) <= 3, "strided": (i - j) % 3 == 0, "causal": j <= i}

# %%
for name, primal in sparse.items():
    masked = np.where(seen[name], scores, 0)
    f = masked @ values / masked.sum(axis=1, keepdims=True)
    sums_run_over_the_support = abs(attention(primal, keys, keys, values) - f).max() < 1e-12
    assert sums_run_over_the_support
    assert primal_dual_and_attention_agree(primal, query=10)
    alone = solve_dual(primal, keys, targets, C=1000.0, epsilon=0.1, query=10)
    unseen_keys_have_no_value = (alone.values[~seen[name][10]] == 0).all() and alone.values.any()
    assert unseen_keys_have_no_value

# %%
figure, panels = plt.subplots(1, 4, figsize=(13, 4), sharey=True, layout="constrained")
for axes, (name, primal) in zip(panels, ({"everything": softmax} | sparse).items(), strict=True):
    count = seen[name][10].sum() if name in seen else n
    title = f"{name}: query 10's SVR\nhas {count} training points"
    plots.attention_map(primal, keys, largest=0.3, axes=axes, colorbar=False, xlabel="key (frame)", title=title)
    axes.axhline(10, color="white", linestyle=":")
panels[0].set_ylabel("query (frame)")
figure.colorbar(panels[0].images[0], ax=panels, label="attention weight", extend="max", shrink=0.7)
plt.show()

# %% [markdown]
# ## Several SVRs: multi-head attention
#
# Head $a$ is an SVR with keys and values of its own. The SVRs are independent; their outputs are multiplied by matrices
# and added up:
#
# $$ f(x) = \sum_a W_O^a f^a(W_Q^a x) $$
#
# Independent problems are one problem whose objective is the sum of theirs. So their primal values add up, and so do
# their dual values.

# %%
two_heads = Heads(softmax, linear)  # the heads may differ
head_keys = np.stack([keys[:, :6], keys[:, 6:]])  # (heads, tokens, features of a head)
head_targets = np.stack([targets[:, :6], targets[:, 6:]])
problem = dict(C=1000.0, epsilon=0.1)
together = solve_dual(two_heads, head_keys, head_targets, **problem)
alone = [solve_dual(*each, **problem) for each in zip(two_heads, head_keys, head_targets, strict=True)]

# %%
values_add_up = np.isclose(together.value, alone[0].value + alone[1].value, rtol=1e-12, atol=0)
assert values_add_up
f = attention(two_heads, head_keys, head_keys, together.values)  # (heads, tokens, 6)
head_scores = np.exp(head_keys[0] @ head_keys[0].T / np.sqrt(6)), Phi(head_keys[1]) @ Phi(head_keys[1]).T
for a, K in enumerate(head_scores):
    each_head_is_its_own_attention = abs(f[a] - K @ alone[a].values / K.sum(axis=1, keepdims=True)).max() < 1e-10
    assert each_head_is_its_own_attention
assert np.isclose(solve_primal(two_heads, head_keys, head_targets, **problem).value, together.value, rtol=1e-10)

# %% [markdown]
# ## Another transform: convolution
#
# Let $T$ be a convolution along the tokens, of keys and queries alike, with the coefficients (taps)
# $c_0, \dots, c_{2r}$. A token is then compared together with its $r$ neighbours on each side:
#
# $$ (T x)_i = \sum_{t=0}^{2r} c_t \, x_{i+t-r}, \qquad
# f(x_i) = \frac{\sum_j v_j \, e^{(T x)_i \cdot (T k)_j / \sqrt{D}}}{\sum_j e^{(T x)_i \cdot (T k)_j / \sqrt{D}}} $$
#
# If `Convolution` is given a `width`, the tokens are patches of an image with that many patches in a row, and the
# convolution has two dimensions.

# %%
taps = (0.25, 0.5, 0.25)
convolve_sequence = replace(softmax, transform=Convolution(taps))
print(convolve_sequence)

# %%
padded = np.pad(keys, ((1, 1), (0, 0)))  # a zero token before and after
Tk = sum(c * padded[t : t + n] for t, c in enumerate(taps))
conv_scores = np.exp(Tk @ Tk.T / np.sqrt(D))
f = conv_scores @ values / conv_scores.sum(axis=1, keepdims=True)
tokens_are_compared_after_the_convolution = abs(attention(convolve_sequence, keys, keys, values) - f).max() < 1e-12
assert tokens_are_compared_after_the_convolution
assert primal_dual_and_attention_agree(convolve_sequence)

# %% [markdown]
# ## The catalog
#
# The parts are chosen one by one, so the number of attentions is a product: four kernels, four supports, four
# transforms and two scales already make 128. The package has names for some of them. The two new choices, batch
# normalisation and scale, are the subject of the next two tutorials.

# %%
single = {name: primal for name, primal in catalog.items() if isinstance(primal, Primal)}
print(f"{'name':14}{'kernel':14}{'transform':14}{'support':14}scale")
for name, primal in single.items():
    kernel, transform, support = (type(part).__name__ for part in (primal.kernel, primal.transform, primal.support))
    print(f"{name:14}{kernel:14}{transform:14}{support:14}{primal.scale}")

# %%
figure, panels = plt.subplots(4, 5, figsize=(11, 9.5), sharex=True, sharey=True, layout="constrained")
for axes, (name, primal) in zip(panels.flat, single.items(), strict=True):
    weights = attention_weights(primal, keys, keys)
    axes.imshow(weights / weights.max(axis=1, keepdims=True), cmap="cividis", vmin=0, vmax=1)
    axes.set_title(name)
figure.supxlabel("key (frame)")
figure.supylabel("query (frame); each row divided by its largest weight")
plt.show()

# %%
for name, primal in single.items():
    weights = attention_weights(primal, keys, keys)
    attention_is_its_weights = np.allclose(weights @ values, attention(primal, keys, keys, values), rtol=0, atol=1e-12)
    weights_sum_to_one = np.allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert attention_is_its_weights and weights_sum_to_one
    any_values_are_the_optimum_of_its_svr = abs(certify(primal, keys, values).relative_gap) < 1e-12
    assert any_values_are_the_optimum_of_its_svr, name

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: A support of your own
#
# Let each query see itself and the four keys before it. Declare this support, and show that no query sees the future. A
# support is a frozen dataclass with a method `sees(i, j)`: whether query $i$ sees key $j$, for arrays of positions that
# broadcast.

# %% [markdown]
# **Solution.** Key $j$ is seen if it is not later than query $i$, and fewer than five positions away.


# %%
@dataclass(frozen=True)
class Recent:
    length: int

    def sees(self, i, j):
        return (j <= i) & (i - j < self.length)


recent = Primal(support=Recent(5))
masked = np.where((j <= i) & (i - j < 5), scores, 0)
f = attention(recent, keys, keys, values)
assert np.allclose(f, masked / masked.sum(axis=1, keepdims=True) @ values, rtol=0, atol=1e-12)
assert primal_dual_and_attention_agree(recent, query=10)

later = keys + 10 * (np.arange(n) > 12)[:, None]  # another future
the_past_is_unchanged = np.allclose(attention(recent, later, later, values)[:13], f[:13], rtol=0, atol=1e-12)
assert the_past_is_unchanged

# %% [markdown]
# ### Exercise 2: Two declarations, one attention
#
# With `transform=UnitNorm()`, which scales keys and queries to length 1, the kernels `Gaussian()` and `Exponential()`
# give the same attention. Why? The Gaussian kernel is $e^{-|x - y|^2 / (2 \rho^2)}$ with the bandwidth
# $\rho = D^{1/4}$.

# %% [markdown]
# **Solution.** For unit vectors, $-|x - y|^2 / (2 \rho^2) = -1 / \rho^2 + x \cdot y / \rho^2$, and $\rho^2 = \sqrt{D}$.
# The factor $e^{-1/\rho^2}$ cancels between numerator and denominator.

# %%
gaussian = Primal(Gaussian(), transform=UnitNorm())
cosine = Primal(transform=UnitNorm())

units = keys / np.linalg.norm(keys, axis=1, keepdims=True)
distances = ((units[:, None] - units) ** 2).sum(axis=-1)
K = np.exp(-distances / (2 * np.sqrt(D)))
f = K @ values / K.sum(axis=1, keepdims=True)
by_both = [attention(primal, keys, keys, values) for primal in (gaussian, cosine)]
for_unit_vectors_both_are_the_same = max(abs(each - f).max() for each in by_both) < 1e-12
assert for_unit_vectors_both_are_the_same

# %% [markdown]
# ### Exercise 3: A recurrent network
#
# Declare linear attention that is causal. Write it as a loop over tokens with a state of fixed size, a recurrent
# network, and check that both give the same outputs.

# %% [markdown]
# **Solution.** The two sums $W$ and $u$ of linear attention run over $j \leq i$. So the state at token $i$ consists of
# these two sums, and each token adds its own terms to them.

# %%
causal_linear = Primal(EluPlusOne(), support=Causal())
W, u, outputs = np.zeros((4, D)), np.zeros(D), []
for k, v in zip(keys, values, strict=True):
    W, u = W + np.outer(v, Phi(k)), u + Phi(k)
    outputs.append(W @ Phi(k) / (u @ Phi(k)))

f = attention(causal_linear, keys, keys, values)
causal_linear_attention_is_recurrent = abs(f - outputs).max() < 1e-12
assert causal_linear_attention_is_recurrent
assert primal_dual_and_attention_agree(causal_linear, query=10)

# %% [markdown]
# Next: [4. Attention-BN](04_attention_bn.ipynb), where the transform is batch normalisation.
#
# Try it in the browser: run `primal-dual explore`, then open [a causal support](http://127.0.0.1:5006/?support=causal&position=9).
