# %% [markdown]
# # 4. Attention-BN: batch normalisation in the primal
#
# The primal of attention is a neural network layer, $f(x) = W\,\Phi(x)/h(x) + b$. A network would normalise the layer's
# input. Here we do that, take the dual, and read off the attention that comes out. The data is a spoken vowel.
#
# You will learn
# - which attention has batch normalisation in its primal;
# - why a key that is like many others loses weight, and what $\beta$ does;
# - why it is a change of the query alone, and so costs nothing;
# - how to make it causal, without a look at the future.

# %%
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np

from primal_dual import BatchNorm, Primal, attention, attention_weights, catalog, solve_dual, solve_primal
from primal_dual.io.datasets import japanese_vowels

plt.style.use("tableau-colorblind10")

# %% [markdown]
# A key is a frame of the vowel: twelve cepstral coefficients. The target is the next frame. The frames are standardised
# over all speakers, but this is one utterance of one of them: its own mean is far from zero.

# %%
keys, targets = japanese_vowels()
N, D = keys.shape
print(f"{N} frames of {D} coefficients, whose means reach from {keys.mean(0).min():.1f} to {keys.mean(0).max():.1f}")

# %% [markdown]
# ## Step 1: normalise the input, take the dual
#
# Batch normalisation takes its statistics from the training set of the layer. The training set of the SVR are the keys:
#
# $$T x = \frac{x - \beta\mu}{\sqrt{\sigma^2 + \epsilon}}, \qquad
#   \mu = \frac1N\sum_j k_j, \qquad \sigma^2 = \frac1N\sum_j (k_j - \mu)^2 .$$
#
# Nothing else changes in $f(x) = W\,\Phi(Tx)/h(x) + b$. To the SVR the keys are given numbers, so $T$ is a given
# function. The support vector expansion is that of before, with $Tx$ for $x$:
#
# $$f(x) = \sum_j v_j \frac{\exp(Tx \cdot Tk_j/\sqrt D)}{\sum_i \exp(Tx \cdot Tk_i/\sqrt D)} .$$


# %%
def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


mu, variance = keys.mean(0), keys.var(0) + 1e-5
normalised = (keys - mu) / np.sqrt(variance)  # beta = 1
kernel = np.exp(normalised @ normalised.T / np.sqrt(D))

bn = Primal(transform=BatchNorm(beta=1.0, eps=1e-5))
problem = dict(C=10 * np.median(kernel.sum(1)), epsilon=0.1)
primal, dual = solve_primal(bn, keys, targets, **problem), solve_dual(bn, keys, targets, **problem)
print(f"primal value {primal.value:.12g}, dual value {dual.value:.12g}")

# %% [markdown]
# **Claim.** Primal and dual have one value, and both are softmax attention between normalised frames.

# %%
values = (dual.alpha - dual.alpha_tilde) / kernel.sum(1, keepdims=True)
expansion = kernel / kernel.sum(1, keepdims=True) @ values
assert abs(primal.value / dual.value - 1) < 1e-10, "primal and dual have one value"
assert abs(primal.predict(keys) - expansion).max() < 1e-8, "the primal's function is the expansion"
assert abs(attention(bn, keys, keys, dual.values) - expansion).max() < 1e-12, "the expansion is Attention-BN"

# %% [markdown]
# ## Step 2: what the mean does to softmax attention
#
# Write a key as the mean and its difference from it. In softmax, terms that are the same for all keys cancel. What is
# left of a logit is
#
# $$\frac{q\cdot k_j}{\sqrt D} \;\simeq\;
#   \underbrace{\frac{(q-\mu)\cdot(k_j-\mu)}{\sqrt D}}_{\text{this query's own interest}} \;+\;
#   \underbrace{\frac{\mu\cdot(k_j-\mu)}{\sqrt D}}_{\text{a vote that all queries share}} .$$
#
# The vote has no query in it. It gives every query the same favourite keys. With batch normalisation, likewise,
#
# $$\frac{Tq\cdot Tk_j}{\sqrt D} \;\simeq\; \frac{q-\mu}{\sigma^2+\epsilon}\cdot\frac{k_j-\mu}{\sqrt D} \;+\;
#   (1-\beta)\,\frac{\mu}{\sigma^2+\epsilon}\cdot\frac{k_j-\mu}{\sqrt D} .$$
#
# So $\beta$ is a dial: at $\beta = 0$ there is the whole vote, at $\beta = 1$ none.

# %%
betas = (0.0, 0.5, 1.0)
maps = {f"β = {beta:g}": attention_weights(replace(bn, transform=BatchNorm(beta)), keys, keys) for beta in betas}

# %% [markdown]
# **Claim.** Attention-BN is the softmax of own interest and $(1-\beta)$ times the vote.

# %%
interest = (keys - mu) / variance @ (keys - mu).T / np.sqrt(D)  # (queries, keys)
vote = mu / variance @ (keys - mu).T / np.sqrt(D)  # (keys,): no query in it
for beta, weights in zip(betas, maps.values(), strict=True):
    by_parts = softmax(interest + (1 - beta) * vote)
    assert abs(by_parts - weights).max() < 1e-13, "beta dials the vote"
assert maps["β = 0"].mean(0).max() > 0.25, "with the whole vote, one key takes a quarter of all attention"

# %%
maps = {"softmax": attention_weights(catalog["softmax"], keys, keys)} | maps
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained", sharey=True)
for ax, (name, weights) in zip(axes, maps.items(), strict=True):
    image = ax.imshow(weights, cmap="cividis", vmin=0, vmax=0.4)
    ax.set(title=name if name == "softmax" else f"Attention-BN, {name}", xlabel="key (frame)")
axes[0].set_ylabel("query (frame)")
figure.colorbar(image, ax=axes, label="attention weight")
figure.suptitle("The bright column is the vote: a key that every query favours. At β = 1 it is gone.")
plt.show()

# %% [markdown]
# At $\beta = 0$ one key, whatever is asked, takes over a quarter of all attention. At $\beta = 1$ each frame attends
# to frames like itself.
#
# ## Step 3: a key like many others loses weight
#
# At $\beta = 1$ a logit is $(q-\mu)\cdot(k_j-\mu)/((\sigma^2+\epsilon)\sqrt D)$. A key near the mean has a logit near
# zero for every query. Where many keys are alike, the mean is near them. So being common costs weight.
#
# Let the speaker hold one sound: one frame is repeated $m$ times. We watch the weight that the copies have together.

# %%
held, repeats = 20, np.unique(np.geomspace(1, 200, 25).astype(int))


def weight_of_copies(name, m):
    """The weight of frame `held` and its m - 1 copies, on average over the queries."""
    longer = np.concatenate([keys, np.repeat(keys[[held]], m - 1, axis=0)])
    copies = [held, *range(N, N + m - 1)]
    return attention_weights(catalog[name], keys, longer)[:, copies].sum(1).mean()


share = {name: np.array([weight_of_copies(name, m) for m in repeats]) for name in ("softmax", "bn")}

# %% [markdown]
# **Claim.** In softmax attention, the copies' weight grows towards one. In Attention-BN, it rises, turns and falls: the
# more common the sound, the less it weighs. Both curves follow from $m$ equal terms in the sum,
#
# $$\frac{m\, e^{a}}{m\, e^{a} + \sum_{j\ne\text{held}} e^{a_j}},$$
#
# where only Attention-BN's logits $a$ depend on $m$, through the weighted statistics of the keys.


# %%
def by_formula(m, normalise):
    count = np.where(np.arange(N) == held, m, 1)
    mean = count @ keys / count.sum() if normalise else 0.0
    divisor = count @ (keys - mean) ** 2 / count.sum() + 1e-5 if normalise else 1.0
    terms = count * np.exp((keys - mean) / divisor @ (keys - mean).T / np.sqrt(D))
    return (terms[:, held] / terms.sum(1)).mean()


for name, normalise in (("softmax", False), ("bn", True)):
    expected = [by_formula(m, normalise) for m in repeats]
    assert abs(share[name] - expected).max() < 1e-12, "m copies are m equal terms"
assert (np.diff(share["softmax"]) > 0).all(), "softmax: more copies, more weight"
assert share["bn"][-1] < share["bn"].max() / 2, "Attention-BN: many copies lose weight again"

# %%
received = {name: attention_weights(catalog[name], keys, keys).mean(0) for name in ("softmax", "bn")}
distance = np.linalg.norm(normalised, axis=1)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for (name, label), marker in zip({"softmax": "softmax", "bn": "Attention-BN"}.items(), "os", strict=True):
    left.plot(distance, received[name], marker, label=label)
    right.plot(repeats, share[name], marker + "-", markersize=4, label=label)
left.set(xlabel="distance of a key from the mean (in deviations)", ylabel="weight it receives, mean over queries")
left.set_title("A usual key weighs little, an unusual one much")
right.set(xscale="log", xlabel="copies m of one frame", ylabel="weight of all copies together", ylim=(0, 1))
right.set_title("A sound that is held takes over softmax, not BN")
left.legend()
right.legend()
plt.show()

# %% [markdown]
# **Claim.** In this utterance the left picture's trend is Attention-BN's more than softmax attention's.

# %%
likeness = {name: np.corrcoef(distance, weight)[0, 1] for name, weight in received.items()}
print("correlation of weight and distance from the mean:", {name: f"{r:.2f}" for name, r in likeness.items()})
assert likeness["bn"] > likeness["softmax"], "Attention-BN favours keys that are unlike the others"

# %% [markdown]
# ## Step 4: a change of the query alone
#
# In the logit of step 2, put $1/(\sigma^2+\epsilon)$ and $\beta\mu$ both on the side of the query:
#
# $$\operatorname{Attention-BN}(q, k, v) \;=\;
#   \operatorname{softmax-attention}\!\Big(\frac{q-\beta\mu}{\sigma^2+\epsilon},\; k-\mu,\; v\Big) .$$
#
# The keys may even stay as they are: $-\mu$ on the keys adds the same number to all logits of a query, and cancels.

# %%
beta = 0.5
half = Primal(transform=BatchNorm(beta))
query = (keys - beta * mu) / variance
f = attention(half, keys, keys, values)

# %% [markdown]
# **Claim.** The equation holds to rounding, with centred and with raw keys. Subtracting $\beta\mu$ matters.

# %%
centred = softmax(query @ (keys - mu).T / np.sqrt(D)) @ values
raw = softmax(query @ keys.T / np.sqrt(D)) @ values
scaled_alone = softmax(keys / variance @ keys.T / np.sqrt(D)) @ values
assert abs(f - centred).max() < 1e-13, "Attention-BN is softmax attention with another query"
assert abs(f - raw).max() < 1e-13, "centring the keys changes no weight"
assert abs(f - scaled_alone).max() > 0.1, "scaling the query without beta mu is another attention"

# %% [markdown]
# ### What it costs
#
# Attention of $N$ queries to $N$ keys takes $2N^2D$ multiplications: logits, and weights times values. The statistics
# take $ND$ squares, and the query at most $2ND$ more. So the extra share is $3/(2N)$, and it vanishes as $N$ grows. And
# since no key and no weight is touched, any softmax kernel, however fused, runs Attention-BN as it is.


# %%
def seconds(function, times=5):
    def once():
        start = time.process_time()  # of the processor: other programs do not count
        function()
        return time.process_time() - start

    return min(once() for _ in range(times))


many, width = 1500, 64
q, k, v = np.random.default_rng(0).standard_normal((3, many, width))
plain = seconds(lambda: softmax(q @ k.T / np.sqrt(width)) @ v)
extra = seconds(lambda: (q - k.mean(0)) / (k.var(0) + 1e-5))
print(f"N = {many}: softmax attention {1e3 * plain:.1f} ms, the change of the query {1e3 * extra:.2f} ms more")

# %% [markdown]
# **Claim.** At this size it is a thousandth of the multiplications, and measured less than a tenth of the time. (An
# element-wise pass over memory is slower than its multiplications say.)

# %%
share_of_multiplications = 3 * many * width / (2 * many**2 * width)
assert np.isclose(share_of_multiplications, 3 / (2 * many)) and share_of_multiplications <= 1e-3, "a thousandth"
assert extra < 0.1 * plain, "the change of the query costs next to nothing"

# %% [markdown]
# ## Step 5: causal
#
# A model of language may not look ahead: query $i$ sees the keys $0..i$. In the primal this is an SVR for each query,
# trained on those keys. Its statistics are those of its own training set:
#
# $$\mu_i = \frac1{i+1}\sum_{j\le i} k_j, \qquad \sigma_i^2 = \frac1{i+1}\sum_{j\le i} k_j^2 - \mu_i^2 .$$
#
# They are running sums. And they still touch only the query, so that the keys stay shared between all queries.


# %%
def causal_bn(x, v, statistics):
    mu, variance = statistics(x)
    logits = (x - mu) / (variance + 1e-5) @ x.T / np.sqrt(D)
    return softmax(np.where(np.tri(len(x), dtype=bool), logits, -np.inf)) @ v


def of_the_past(x):
    count = np.arange(1, len(x) + 1)[:, None]
    mu = x.cumsum(0) / count
    return mu, (x**2).cumsum(0) / count - mu**2


def of_everything(x):
    return x.mean(0), x.var(0)


# %% [markdown]
# **Claim.** Running statistics give what an SVR for each query gives, one after the other, in the package and by hand.

# %%
f = causal_bn(keys, values, of_the_past)
assert abs(f - attention(catalog["causal-bn"], keys, keys, values)).max() < 1e-9, "running sums are the causal form"
for i in range(N):
    seen = keys[: i + 1]
    own = softmax((keys[i] - seen.mean(0)) / (seen.var(0) + 1e-5) @ seen.T / np.sqrt(D)) @ values[: i + 1]
    assert abs(f[i] - own).max() < 1e-9, "each query has the statistics of its own training set"

# %% [markdown]
# ### Does the future leak?
#
# Change one frame, as a query and as a key, and see which outputs move. None before the frame may. It is tempting to
# keep a causal mask and take the statistics over all keys. That leaks: the mean knows the future.


# %%
def moves(function):
    """(outputs, frames): how far output i moves when frame t is changed."""

    def moved(t):
        changed = keys.copy()
        changed[t] += np.random.default_rng(t).standard_normal(D)
        return np.linalg.norm(function(changed) - function(keys), axis=1)

    return np.stack([moved(t) for t in range(N)], axis=1)


ours = moves(lambda x: attention(catalog["causal-bn"], x, x, values))
leaking = moves(lambda x: causal_bn(x, values, of_everything))

# %% [markdown]
# **Claim.** With the statistics of the past, no output before the frame moves: not by one bit. With those of
# everything, almost all do.

# %%
before = ~np.tri(N, dtype=bool)
assert (ours[before] == 0).all(), "the future does not leak"
assert (moves(lambda x: causal_bn(x, values, of_the_past))[before] == 0).all(), "nor in our own running sums"
assert (leaking[before] > 1e-6).mean() > 0.9, "statistics of everything leak"

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
titles = "statistics of the past (causal)", "statistics of everything (leaks)"
for ax, change, title in zip(axes, (ours, leaking), titles, strict=True):
    logarithm = np.log10(np.where(change > 0, change, np.nan))  # white where nothing moves
    image = ax.imshow(logarithm, cmap="cividis", vmin=-4, vmax=1)
    ax.set(title=title, xlabel="frame that is changed")
axes[0].set_ylabel("output")
figure.colorbar(image, ax=axes, label="how far the output moves, log10 (white: not at all)")
plt.show()

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: another microphone
# A microphone's frequency response adds a constant to each cepstral coefficient. An amplifier's drift scales them. Show
# that Attention-BN at $\beta = 1$ does not notice either, as $\epsilon \to 0$. Does softmax attention?

# %% [markdown]
# **Solution.** With $x \to a \odot x + c$ for queries and keys, $\mu \to a\odot\mu + c$ and $\sigma \to |a|\,\sigma$.
# So $Tx \to \operatorname{sign}(a)\odot Tx$, and the signs cancel in $Tx\cdot Tk_j$. Softmax attention notices much.

# %%
rng = np.random.default_rng(0)
recorded = keys * rng.uniform(0.5, 2, D) + rng.standard_normal(D)
strict = Primal(transform=BatchNorm(eps=1e-14))
change = {
    name: abs(attention_weights(primal, recorded, recorded) - attention_weights(primal, keys, keys)).max()
    for name, primal in (("bn", strict), ("softmax", catalog["softmax"]))
}
print({name: f"{value:.1g}" for name, value in change.items()})
assert change["bn"] < 1e-10, "Attention-BN does not notice the microphone"
assert change["softmax"] > 0.1, "softmax attention does"

# %% [markdown]
# ### Exercise 2: sixteen bits
# Step 4 says that the keys need no centring. Yet fast kernels round keys to 16 bits. Give the keys a mean of ten
# deviations and round them, raw and centred. Which is the better attention, and why?

# %% [markdown]
# **Solution.** A float of 16 bits has a relative error of up to $2^{-11}$. For raw keys that is a share of the mean,
# for centred keys a share of a deviation, which is a tenth. So centre first, and then round.

# %%
far = rng.standard_normal((N, D)) + 10
query = (far - far.mean(0)) / (far.var(0) + 1e-5)
exact = softmax(query @ far.T / np.sqrt(D))
error = {}
for name, key in (("raw", far), ("centred", far - far.mean(0))):
    rounded = key.astype(np.float16).astype(float)
    error[name] = abs(softmax(query @ rounded.T / np.sqrt(D)) - exact).max()
print({name: f"{value:.1g}" for name, value in error.items()}, f"{error['raw'] / error['centred']:.1f} times")
assert error["raw"] > 3 * error["centred"], "centre the keys before they are rounded"

# %% [markdown]
# ### Exercise 3: a variance without a difference of squares
# In step 5, $\frac1{i+1}\sum_j k_j^2 - \mu_i^2$ is a small difference of large numbers. In 32 bits it loses all digits
# for keys far from zero. Show that
#
# $$\sigma_i^2 = \frac1{i+1}\sum_{t=1}^{i}\frac{t}{t+1}\,(k_t - \mu_{t-1})^2$$
#
# is the same number, and that it keeps its digits.

# %% [markdown]
# **Solution.** Let $S_i = (i+1)\,\sigma_i^2$, the sum of squares about the mean of $i+1$ keys. The new key lies
# $k_i - \mu_{i-1}$ from the old mean and moves it by $1/(i+1)$ of that. So
# $S_i = S_{i-1} + i\,\big(\tfrac{1}{i+1}\big)^2 d^2 + \big(\tfrac{i}{i+1}\big)^2 d^2 = S_{i-1} + \tfrac{i}{i+1}\,d^2$
# with $d = k_i - \mu_{i-1}$, and $S_0 = 0$. All terms are positive: nothing cancels. We take $k - k_0$ for $k$, which
# has the same variance and smaller means.


# %%
def running_variance(x):
    x = x - x[:1]
    t = np.arange(1, len(x), dtype=x.dtype)[:, None]
    means = x.cumsum(0)[:-1] / t  # mu_(t-1), of t keys
    squares = (t / (t + 1) * (x[1:] - means) ** 2).cumsum(0)
    return np.concatenate([np.zeros_like(x[:1]), squares / (t + 1)])


distant = 1000 + keys
exact = np.array([distant[: i + 1].var(0) for i in range(N)])
single = distant.astype(np.float32)
assert abs(running_variance(distant) - exact).max() < 1e-12, "the sum is the variance"
assert abs(running_variance(single) - exact).max() < 1e-3, "and keeps its digits in 32 bits"
assert abs(of_the_past(single)[1] - exact).max() > 0.05, "a difference of squares loses them"

# %% [markdown]
# Next: [5. Attention-SH](05_attention_sh.ipynb), scaled heads: an SVR with less training data.
