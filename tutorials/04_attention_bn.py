# %% [markdown]
# # 4. Attention-BN: batch normalisation in the primal
#
# The primal of attention is a neural network layer, $f(x) = W\,\Phi(x)/h(x)$, here without a bias. Networks often
# normalise the input of a layer. Here we do the same, take the dual, and read off which attention it gives. The data is
# a spoken vowel.
#
# You will learn
# - which attention has batch normalisation in its primal;
# - what its parameter $\beta$ does, and how to choose it;
# - why a key that is like many others loses weight;
# - why only the query changes, so that Attention-BN costs hardly more than softmax attention;
# - how to make it causal, so that no output depends on the future;
# - why it goes on learning where large keys stop softmax attention.

# %%
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from aeon.datasets import load_japanese_vowels

from primal_dual import BatchNorm, Primal, attention, attention_weights, catalog, solve_dual, solve_primal
from primal_dual.io.datasets import japanese_vowels

plt.style.use("tableau-colorblind10")

# %% [markdown]
# A key is a frame of the vowel: twelve cepstral coefficients. The target is the next frame. The coefficients are
# standardised over the frames of all speakers. This is one utterance of one speaker, and its own mean is far from zero.

# %%
keys, targets = japanese_vowels()
N, D = keys.shape
print(f"{N} frames of {D} coefficients, whose means reach from {keys.mean(0).min():.1f} to {keys.mean(0).max():.1f}")

# %% [markdown]
# ## Step 1: normalise the input, take the dual
#
# Batch normalisation takes its statistics from the training set of the layer, and the training set of the SVR are the
# keys $k_1, \dots, k_N$. In each coordinate, with their mean $\mu$ and their variance $\sigma^2$,
#
# $$T x = \frac{x - \beta\mu}{\sqrt{\sigma^2 + \text{eps}}}, \qquad
#   \mu = \frac1N\sum_j k_j, \qquad \sigma^2 = \frac1N\sum_j (k_j - \mu)^2 .$$
#
# The number $\beta$ says how much of the mean is subtracted; step 2 shows what it does. The tiny constant eps, here
# $10^{-5}$, avoids a division by zero. It is often written $\epsilon$; we call it eps, as the code does, since
# $\epsilon$ is the half-width of the tube.
#
# Nothing else changes in $f(x) = W\,\Phi(Tx)/h(x)$. The keys are fixed while the SVR is solved, so $T$ is fixed
# too. The support vector expansion is the same as before, with $Tx$ in place of $x$ and $Tk_j$ in place of $k_j$:
#
# $$f(x) = \sum_j v_j \frac{\exp(Tx \cdot Tk_j/\sqrt D)}{\sum_l \exp(Tx \cdot Tk_l/\sqrt D)} .$$


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
# **Claim.** Primal and dual have the same value, and both give softmax attention between normalised frames.

# %%
values = (dual.alpha - dual.alpha_tilde) / kernel.sum(1, keepdims=True)
expansion = kernel / kernel.sum(1, keepdims=True) @ values
assert abs(primal.value / dual.value - 1) < 1e-10, "primal and dual have the same value"
assert abs(primal.predict(keys) - expansion).max() < 1e-8, "the primal's function is the expansion"
assert abs(attention(bn, keys, keys, dual.values) - expansion).max() < 1e-12, "the expansion is Attention-BN"

# %% [markdown]
# ## Step 2: what the mean does to softmax attention
#
# The exponents in softmax attention are its *logits*, $q\cdot k_j/\sqrt D$ for a query $q$. Write key and query as the
# mean plus a difference, $k_j = \mu + (k_j-\mu)$ and $q = \mu + (q-\mu)$:
#
# $$\frac{q\cdot k_j}{\sqrt D} \;=\; \frac{q\cdot\mu}{\sqrt D} \;+\;
#   \underbrace{\frac{(q-\mu)\cdot(k_j-\mu)}{\sqrt D}}_{\text{this query's own interest}} \;+\;
#   \underbrace{\frac{\mu\cdot(k_j-\mu)}{\sqrt D}}_{\text{a vote that all queries share}} .$$
#
# The first term is the same for all keys $j$. It multiplies numerator and denominator of the softmax by the same
# factor, and cancels. We write $a_j \simeq c_j$ if $a_j - c_j$ is the same for all $j$, so that $a$ and $c$ have the
# same softmax. The vote does not depend on the query: it favours the same keys for every query. With batch
# normalisation, in the same way,
#
# $$\frac{Tq\cdot Tk_j}{\sqrt D} \;\simeq\; \frac{q-\mu}{\sigma^2+\text{eps}}\cdot\frac{k_j-\mu}{\sqrt D} \;+\;
#   (1-\beta)\,\frac{\mu}{\sigma^2+\text{eps}}\cdot\frac{k_j-\mu}{\sqrt D} .$$
#
# So $\beta$ sets how much the vote counts: at $\beta = 0$ in full, at $\beta = 1$ not at all.

# %%
betas = (0.0, 0.5, 1.0)
maps = {f"β = {beta:g}": attention_weights(replace(bn, transform=BatchNorm(beta)), keys, keys) for beta in betas}

# %% [markdown]
# **Claim.** Attention-BN is the softmax of the query's own interest plus $(1-\beta)$ times the vote.

# %%
interest = (keys - mu) / variance @ (keys - mu).T / np.sqrt(D)  # (queries, keys)
vote = mu / variance @ (keys - mu).T / np.sqrt(D)  # (keys,): no query in it
for beta, weights in zip(betas, maps.values(), strict=True):
    by_parts = softmax(interest + (1 - beta) * vote)
    assert abs(by_parts - weights).max() < 1e-13, "beta sets how much the vote counts"
assert maps["β = 0"].mean(0).max() > 0.25, "with the whole vote, one key takes a quarter of all attention"

# %%
maps = {"softmax": attention_weights(catalog["softmax"], keys, keys)} | maps
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained", sharey=True)
for ax, (name, weights) in zip(axes, maps.items(), strict=True):
    image = ax.imshow(weights, cmap="cividis", vmin=0, vmax=0.4)
    ax.set(title=name if name == "softmax" else f"Attention-BN, {name}", xlabel="key (frame)")
axes[0].set_ylabel("query (frame)")
figure.colorbar(image, ax=axes, label="attention weight")
figure.suptitle("The bright column is the vote, which favours one key for all queries. At β = 1 it is gone.")
plt.show()

# %% [markdown]
# At $\beta = 0$ one key has over a quarter of all attention, on average over the queries. Queries whose own interest
# points away from the mean still give it next to nothing. At $\beta = 1$ each frame attends to frames like itself.
#
# In softmax attention, the vote is there, too, but small on this utterance: its strongest key has 6% of all attention,
# where 4% would be even. It is the division by $\sigma^2$ that makes it large, in coordinates whose mean is large and
# whose spread is small, and $\beta = 1$ that removes it.
#
# ### Which $\beta$?
#
# Start with $\beta = 1$, the default. Try smaller values if it may help that all queries attend to the same few keys:
# for instance if one token, such as a class token, holds what every query needs, or if the mean of the keys says
# something that softmax attention would use. Which value is better depends on the data. Choose it like any other
# hyperparameter, on folds of the training split (`primal-dual train NAME --attention bn --beta 0.5 --folds 3`), or let
# training find it: in `torch_impl.MultiheadAttention(..., primal="bn", learn_beta=True)` each head learns its own
# $\beta$.
#
# ## Step 3: a key like many others loses weight
#
# At $\beta = 1$, logits are $a_j = \frac{q-\mu}{\sigma^2+\text{eps}}\cdot\frac{k_j-\mu}{\sqrt D}$, up to a constant. A
# key near the mean has a logit near zero for every query, and a term near $e^0 = 1$ in the sum of the softmax. A key
# far from the mean has large logits, positive for some queries and negative for others. These do not balance: where the
# logit is $a$, the term $e^a$ is far above 1; where it is $-a$, the term $e^{-a}$ is below 1, but not below 0; and
# their average, $\frac12(e^a + e^{-a})$, is above 1. So on average over the queries, a key far from the mean has the
# larger terms, and tends to get more weight.
#
# Where many keys are alike, the mean is near them. So a key that is like many others tends to lose weight.
#
# **Claim.** If the queries are the keys, the logits of each key are zero on average over the queries, and its terms are
# on average at least one, the more so the farther the key is from the mean.

# %%
distance = np.linalg.norm(normalised, axis=1)  # of each key from the mean, in standard deviations
terms = np.exp(interest).mean(0)  # of each key, on average over the queries
assert abs(interest.mean(0)).max() < 1e-14, "logits are zero on average"
assert (terms >= 1).all(), "terms are at least one on average"
assert np.corrcoef(distance.argsort().argsort(), terms.argsort().argsort())[0, 1] > 0.9, "and grow with the distance"

# %% [markdown]
# Let the speaker hold one sound: one frame is repeated $m$ times. We watch the weight that the copies have together.

# %%
held, repeats = 20, np.unique(np.geomspace(1, 200, 25).astype(int))


def weight_of_copies(name, m):
    """The weight of frame `held` and its m - 1 copies, on average over the queries."""
    longer = np.concatenate([keys, np.repeat(keys[[held]], m - 1, axis=0)])
    copies = [held, *range(N, N + m - 1)]
    return attention_weights(catalog[name], keys, longer)[:, copies].sum(1).mean()


together = {name: np.array([weight_of_copies(name, m) for m in repeats]) for name in ("softmax", "bn")}

# %% [markdown]
# **Claim.** In softmax attention, the weight of the copies grows towards one. In Attention-BN, it rises at first, and
# then falls: the more common the sound, the less weight it has. Both curves follow from $m$ equal terms in the sum.
# With the logit $a$ of the held frame and the logits $a_j$ of the others, the weight is
#
# $$\frac{m\, e^{a}}{m\, e^{a} + \sum_{j\ne\text{held}} e^{a_j}} .$$
#
# Only in Attention-BN do the logits themselves depend on $m$: the copies count in the mean and the variance of the
# keys.


# %%
def by_formula(m, normalise):
    count = np.where(np.arange(N) == held, m, 1)
    mean = count @ keys / count.sum() if normalise else 0.0
    divisor = count @ (keys - mean) ** 2 / count.sum() + 1e-5 if normalise else 1.0
    terms = count * np.exp((keys - mean) / divisor @ (keys - mean).T / np.sqrt(D))
    return (terms[:, held] / terms.sum(1)).mean()


for name, normalise in (("softmax", False), ("bn", True)):
    expected = [by_formula(m, normalise) for m in repeats]
    assert abs(together[name] - expected).max() < 1e-12, "m copies are m equal terms"
assert (np.diff(together["softmax"]) > 0).all(), "softmax: more copies, more weight"
assert together["bn"][-1] < together["bn"].max() / 2, "Attention-BN: many copies lose weight again"

# %%
received = {name: attention_weights(catalog[name], keys, keys).mean(0) for name in ("softmax", "bn")}
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for (name, label), marker in zip({"softmax": "softmax", "bn": "Attention-BN"}.items(), "os", strict=True):
    left.plot(distance, received[name], marker, label=label)
    right.plot(repeats, together[name], marker + "-", markersize=4, label=label)
left.set(xlabel="distance of a key from the mean (standard deviations)", ylabel="its weight, mean over queries")
left.set_title("In Attention-BN, far keys get more weight")
right.set(xscale="log", xlabel="copies m of one frame", ylabel="weight of all copies together", ylim=(0, 1))
right.set_title("A held sound takes over softmax, not BN")
left.legend()
right.legend()
plt.show()

# %% [markdown]
# The left picture is one utterance, and its two farthest keys would determine any line through the points. So we
# compare ranks, which no outlier can dominate, and do it for all 270 utterances of the training split.
#
# **Claim.** In every utterance, keys farther from the mean tend to get more weight in Attention-BN: the rank
# correlation of distance and weight is positive. It is larger than in softmax attention in more than four utterances of
# five.


# %%
def rank_correlation(name, frames):
    apart = np.linalg.norm((frames - frames.mean(0)) / frames.std(0), axis=1)
    weight = attention_weights(catalog[name], frames, frames).mean(0)
    return np.corrcoef(apart.argsort().argsort(), weight.argsort().argsort())[0, 1]


utterances, _ = load_japanese_vowels(split="train")  # each (12, frames)
everything = np.concatenate(utterances, axis=1)
centre, spread = everything.mean(1), everything.std(1)
frames = [(each.T - centre) / spread for each in utterances]
trend = {name: np.array([rank_correlation(name, each) for each in frames]) for name in together}
print("rank correlation of distance and weight, mean:", {name: f"{each.mean():.2f}" for name, each in trend.items()})
assert len(utterances) == 270 and (trend["bn"] > 0).all(), "in every utterance, far keys get more weight"
assert (trend["bn"] > trend["softmax"]).mean() > 0.8, "and more clearly so than in softmax attention"

# %% [markdown]
# ## Step 4: a change of the query alone
#
# In the logit of step 2, put $1/(\sigma^2+\text{eps})$ and $\beta\mu$ both on the side of the query:
#
# $$\text{Attention-BN}(q,\; k,\; v) \;=\;
#   \text{softmax attention}\left(\frac{q-\beta\mu}{\sigma^2+\text{eps}},\; k-\mu,\; v\right) .$$
#
# The keys may even stay as they are: to subtract $\mu$ from the keys adds the same number to all logits of a query,
# which cancels.

# %%
beta = 0.5
half = Primal(transform=BatchNorm(beta))
query = (keys - beta * mu) / variance
f = attention(half, keys, keys, values)

# %% [markdown]
# **Claim.** The equation holds up to rounding errors, with centred and with raw keys. Subtracting $\beta\mu$ from the
# query does matter.

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
# Attention of $N$ queries to $N$ keys takes $2N^2D$ multiplications, for logits and for weights times values. The
# statistics take $ND$ squares, and the new query at most $2ND$ multiplications more. So the extra cost is the fraction
# $3/(2N)$, which vanishes as $N$ grows. And since keys and weights are left alone, any fast program for softmax
# attention runs Attention-BN too: it is only given another query.


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
# **Claim.** At this size the extra multiplications are a thousandth of all, and the extra time is measured to be less
# than a tenth. (An element-wise pass over memory takes longer than its number of multiplications suggests.)

# %%
fraction = 3 * many * width / (2 * many**2 * width)  # of the multiplications
assert np.isclose(fraction, 3 / (2 * many)) and fraction <= 1e-3, "a thousandth"
assert extra < 0.1 * plain, "the change of the query costs little"

# %% [markdown]
# ## Step 5: causal
#
# A language model may not look ahead: query $i$ sees the keys $0, \dots, i$ only. (We number queries and keys from 0
# here.) In the primal this is an SVR for each query, trained on those keys. Its statistics are those of its own
# training set:
#
# $$\mu_i = \frac1{i+1}\sum_{j\le i} k_j, \qquad \sigma_i^2 = \frac1{i+1}\sum_{j\le i} k_j^2 - \mu_i^2 .$$
#
# They are computed by running sums. And they still change only the query, so that all queries share the same keys.


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
# **Claim.** Running sums give the same as a separate attention for each query, computed one after the other, and the
# same as the package.

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
# Change one frame, as a query and as a key, and see which outputs change. No output before that frame may change. It is
# tempting to keep a causal mask and to take the statistics over all keys. That leaks: the mean depends on future keys.


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
# **Claim.** With the statistics of the past, no output before the frame changes by a single bit. With statistics over
# all keys, almost all of them change.

# %%
before = ~np.tri(N, dtype=bool)
assert (ours[before] == 0).all(), "the future does not leak"
assert (moves(lambda x: causal_bn(x, values, of_the_past))[before] == 0).all(), "nor in our own running sums"
assert (leaking[before] > 1e-6).mean() > 0.9, "statistics over all keys leak"

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained", sharey=True)
titles = "statistics of the past (causal)", "statistics over all keys (leaks)"
for ax, change, title in zip(axes, (ours, leaking), titles, strict=True):
    logarithm = np.log10(np.where(change > 0, change, np.nan))  # white where nothing moves
    image = ax.imshow(logarithm, cmap="cividis", vmin=-4, vmax=1)
    ax.set(title=title, xlabel="frame that is changed")
axes[0].set_ylabel("output")
figure.colorbar(image, ax=axes, label="how far the output moves, log10 (white: not at all)")
plt.show()

# %% [markdown]
# ## Step 6: keys that grow
#
# Training makes queries and keys longer, and the more so, the larger the learning rate is. What do they do when all of
# them are multiplied by a factor $c$? The logits $q\cdot k_j/\sqrt D$ of softmax attention are multiplied by $c^2$, so
# that at last each query attends to a single key. There learning stops: the derivative of a weight $w$ by its logit is
# $w\,(1-w)$, which is zero for a weight of zero or one. In Attention-BN, $\sigma$ is multiplied by $c$ as well, and
# nothing changes.


# %%
def slope(primal, factor):
    """The largest w (1 - w) of each query, their mean."""
    weights = attention_weights(primal, factor * keys, factor * keys)
    return (weights * (1 - weights)).max(axis=1).mean()


factors = np.geomspace(1, 30, 13)
slopes = {name: np.array([slope(catalog[name], c) for c in factors]) for name in ("softmax", "bn", "qk-norm")}

# %%
plt.figure(figsize=(7, 3.5), layout="constrained")
for (name, each), marker in zip(slopes.items(), "osv", strict=True):
    plt.semilogx(factors, each, marker + "-", label=name)
plt.xlabel("factor by which queries and keys are multiplied")
plt.ylabel("derivative of a weight by its logit")
plt.ylim(bottom=0)
plt.legend()
plt.show()

# %% [markdown]
# **Claim.** In softmax attention the derivatives vanish as keys grow; in Attention-BN they stay. (So they do in
# QK-norm, another remedy, which divides each query and each key by its own length.)

# %%
assert slopes["softmax"][-1] < 0.2 * slopes["softmax"].max(), "softmax attention stops learning"
assert abs(slopes["bn"] - slopes["bn"][-1]).max() < 1e-3, "Attention-BN does not depend on the factor (but for eps)"
assert abs(slopes["qk-norm"] - slopes["qk-norm"][0]).max() < 1e-12, "neither does QK-norm"

# %% [markdown]
# This is where Attention-BN pays in training. At a learning rate that is well chosen for softmax attention, we found no
# difference in accuracy. But with eight times that rate, a transformer on the series of *Handwriting* reaches an
# accuracy of about 17% with softmax attention, and of 66% with Attention-BN (with $\beta = 0$; at four times that rate,
# $\beta$ made no difference). It is no rule: where keys hardly differ, $\sigma$ is small, and the division by it makes
# attention fall on single keys. The page *When do they help?* of the documentation has the measurements.
#
# ## Exercises
#
# ### Exercise 1: another microphone
# Another microphone adds a constant to each cepstral coefficient. Suppose that it also scales each of them. Show that
# Attention-BN at $\beta = 1$ stays the same, as $\text{eps} \to 0$. Does softmax attention?

# %% [markdown]
# **Solution.** Let queries and keys change from $x$ to $g \odot x + c$, where $\odot$ multiplies coordinate by
# coordinate. Then $\mu$ becomes $g\odot\mu + c$, $\sigma$ becomes $|g|\odot\sigma$, and so $Tx$ becomes
# $\text{sign}(g)\odot Tx$. The signs cancel in $Tx\cdot Tk_j$. Softmax attention changes much.

# %%
rng = np.random.default_rng(0)
recorded = keys * rng.uniform(0.5, 2, D) + rng.standard_normal(D)
strict = Primal(transform=BatchNorm(eps=1e-14))
change = {
    name: abs(attention_weights(primal, recorded, recorded) - attention_weights(primal, keys, keys)).max()
    for name, primal in (("bn", strict), ("softmax", catalog["softmax"]))
}
print({name: f"{value:.1g}" for name, value in change.items()})
assert change["bn"] < 1e-10, "Attention-BN does not depend on the microphone"
assert change["softmax"] > 0.1, "softmax attention does"

# %% [markdown]
# ### Exercise 2: sixteen bits
# Step 4 says that the keys need no centring. But fast programs round keys to 16 bits. Give the keys a mean of ten
# standard deviations and round them, raw and centred. Which attention is more accurate, and why?

# %% [markdown]
# **Solution.** A number in float16 has a relative rounding error of up to $2^{-11}$. Raw keys are about as large as
# their mean, centred keys about as large as their standard deviation, which is a tenth of it. So their rounding errors
# are about a tenth, too. Centre first, and then round.

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
# In step 5, $\frac1{i+1}\sum_j k_j^2 - \mu_i^2$ is a small difference of large numbers. In float32 it loses all its
# digits if the keys are far from zero. Show that
#
# $$\sigma_i^2 = \frac1{i+1}\sum_{t=1}^{i}\frac{t}{t+1}\,(k_t - \mu_{t-1})^2$$
#
# is the same number, and that it keeps its digits in float32.

# %% [markdown]
# **Solution.** Let $S_i = (i+1)\,\sigma_i^2$, the sum of squared differences from the mean of the first $i+1$ keys. The
# new key $k_i$ differs from the old mean by $d = k_i - \mu_{i-1}$, and moves the mean by $\frac{d}{i+1}$. The
# differences of the $i$ old keys from the old mean sum to zero; so this shift of the mean adds $i\,\frac{d^2}{(i+1)^2}$
# to their sum of squares. The new key differs from the new mean by $\frac{i}{i+1}\,d$. Together
#
# $$S_i = S_{i-1} + \frac{i}{(i+1)^2}\,d^2 + \frac{i^2}{(i+1)^2}\,d^2 = S_{i-1} + \frac{i}{i+1}\,d^2, \qquad S_0 = 0 .$$
#
# No term is negative, so nothing cancels. The code takes $k - k_0$ in place of $k$: it has the same variance and
# smaller means.


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
assert abs(running_variance(single) - exact).max() < 1e-3, "and keeps its digits in float32"
assert abs(of_the_past(single)[1] - exact).max() > 0.05, "a difference of squares loses them"

# %% [markdown]
# Next: [5. Attention-SH](05_attention_sh.ipynb), scaled heads: an SVR with less training data.
#
# Try it in the browser: run `primal-dual explore`, then open [What batch normalisation changes](http://127.0.0.1:5006/normalisation).
