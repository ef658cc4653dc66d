# %% [markdown]
# # 9. Errors on new data
#
# So far an SVR was judged on its own training points. What does it do on data that it has not seen? Here an attention
# forecasts the frames of a spoken vowel in *other* utterances of the same speaker. We look at what $C$, $\epsilon$,
# batch normalisation and scaled heads do to its errors there, and explain it by the margin and the support vectors.
#
# You will learn
# - why a larger $C$ makes the training error smaller, and from some point on the error on new data larger;
# - what leave-one-out estimates, and when it is blind;
# - what support vectors say about errors on new data, and why attention needs more care than a plain SVR;
# - what batch normalisation and scaled heads do here, over nine speakers.

# %%
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from aeon.datasets import load_japanese_vowels
from scipy.stats import t

from primal_dual import BatchNorm, Primal, leave_one_out, solve_dual

plt.style.use("tableau-colorblind10")

# %% [markdown]
# ## Step 1: training and held-out utterances
#
# Nine speakers have said the same vowel thirty times each. For each speaker, four utterances are the training set, and
# the other 26 are held out. A key $k_j$ is a frame, and the target $y_j$ is its change until the next frame. So the
# forecast of the next frame is $x + f(x)$, a layer with a residual connection; and $f = 0$ is the forecast that nothing
# changes. We give each error in units of that forecast's error. A second simple forecast is the mean change of the
# training frames, whatever the frame.

# %%
utterances, speakers = load_japanese_vowels(split="train")  # each (12, frames)
everything = np.concatenate(utterances, axis=1)
centre, spread = everything.mean(axis=1), everything.std(axis=1)


def of_speaker(name):
    """The utterances of a speaker, (frames, 12) each, with an even number of pairs of a frame and the next one."""
    each = [(u.T - centre) / spread for u, speaker in zip(utterances, speakers, strict=True) if speaker == name]
    return [u[: (len(u) - 1) // 2 * 2 + 1] for u in each]


def frames_and_changes(some):
    return np.concatenate([u[:-1] for u in some]), np.concatenate([np.diff(u, axis=0) for u in some])


def relative_error(f, changes):
    return np.sqrt(((f - changes) ** 2).mean() / (changes**2).mean())


# %%
utterances_of_2 = of_speaker("2")
keys, changes = frames_and_changes(utterances_of_2[:4])
new, new_changes = frames_and_changes(utterances_of_2[4:])
N, D = keys.shape
print(f"{N} training frames, {len(new)} held-out frames of {D} coefficients")

# %%
assert np.allclose((keys + changes)[0], keys[1], rtol=0, atol=1e-12), "a frame and its change make the next frame"
assert N % 2 == 0, "no average of two neighbours reaches into another utterance"
mean_change = relative_error(changes.mean(axis=0), new_changes)
print(f"error of the mean change: {mean_change:.2f}")
assert relative_error(0, new_changes) == 1 and 0.8 < mean_change < 1, "the mean change is little better than no change"

# %% [markdown]
# ## Step 2: what C does
#
# We train softmax attention for several $C$, in multiples of the median of $h(k_j)$, and compute four errors: on the
# training frames; on the held-out utterances; and two estimates that do not look at the held-out utterances. Leave out
# one *frame*, train on the others, and forecast it (we do so for every third frame); or leave out one *utterance*.


# %%
def unit(primal, keys):
    """The median of h at the training points."""
    pairs = keys.reshape(-1, primal.scale, D).mean(axis=1)
    if isinstance(primal.transform, BatchNorm):
        pairs = (pairs - pairs.mean(axis=0)) / np.sqrt(pairs.var(axis=0) + 1e-5)
    return np.median(np.exp(pairs @ pairs.T / np.sqrt(D)).sum(axis=1))


def trained(primal, keys, changes, C, epsilon=0.1):
    return solve_dual(primal, keys, changes, C=C * unit(primal, keys), epsilon=epsilon, solver="newton")


softmax, Cs = Primal(), np.array([0.03, 0.1, 0.3, 1, 3, 10, 30])
by_C = [trained(softmax, keys, changes, C) for C in Cs]
on_training = np.array([relative_error(each.predict(keys), changes) for each in by_C])
on_new = np.array([relative_error(each.predict(new), new_changes) for each in by_C])

# %%
group = np.repeat(np.arange(4), [len(u) - 1 for u in utterances_of_2[:4]])  # the utterance of a training frame
third = np.arange(0, N, 3)


def without_frame(C):
    return leave_one_out(softmax, keys, changes, C=C * unit(softmax, keys), epsilon=0.1, left_out=third)


def without_utterance(C):
    f = np.empty_like(changes)
    for g in range(4):
        others = trained(softmax, keys[group != g], changes[group != g], C)
        f[group == g] = others.predict(keys[group == g])
    return f


left_frames = np.array([relative_error(without_frame(C), changes[third]) for C in Cs])
left_utterances = np.array([relative_error(without_utterance(C), changes) for C in Cs])

# %%
plt.figure(figsize=(8, 4.5), layout="constrained")
plt.semilogx(Cs, on_training, "o:", label="training frames")
plt.semilogx(Cs, left_frames, "v--", label="one frame left out")
plt.semilogx(Cs, left_utterances, "s--", label="one utterance left out")
plt.semilogx(Cs, on_new, "o-", linewidth=3, label="held-out utterances")
plt.axhline(1, color="black", linewidth=0.8)
plt.xlabel("penalty $C$, in multiples of the median of $h(k_j)$")
plt.ylabel("error / error of no change")
plt.title("A large $C$ fits the training frames, not the speaker")
plt.legend()
plt.show()

# %% [markdown]
# **Claim.** A larger $C$ always means a smaller training error. The error on new utterances falls at first, and then
# rises, up to that of no change. Leaving out one utterance shows this, with a higher level; leaving out one frame does
# not: its error stays low for the largest $C$.
#
# Leave-one-out estimates the error on a new point that is *independent* of the others. A frame is not: its neighbours
# in time, which are nearly equal, stay in the training set. So leave out what will be new in use: an utterance.

# %%
best = on_new.argmin()
assert (np.diff(on_training) < 0).all(), "a larger C fits the training frames better"
assert 0 < best < len(Cs) - 1 and on_new[-1] > 1.3 * on_new[best], "on new utterances there is a best C"
assert left_frames[-1] < 1.05 * left_frames.min(), "leaving out a frame does not see the rise"
assert left_utterances[-1] > 1.3 * left_utterances.min(), "leaving out an utterance does"
assert on_new[left_utterances.argmin()] < 1.1 * on_new[best], "and it chooses a C that is good on new utterances"

# %% [markdown]
# ## Step 3: the margin
#
# Why does a large $C$ harm? An output is $f_d(x) = w_d \cdot z(x)$ with $z(x) = \Phi(x) / h(x)$, so between two inputs
# it changes by at most the length of its weights times their distance in features:
#
# $$ |f_d(x) - f_d(k_j)| \leq |w_d| \, |z(x) - z(k_j)| $$
#
# The *margin* of an output is $\epsilon / |w_d|$: inputs whose $z$ are nearer than the margin have outputs that differ
# by less than $\epsilon$. A larger $C$ buys a smaller training error with larger weights, and so with a smaller margin.
# Both lengths follow from the kernel: $|w_d|^2 = \delta_d^\top G \delta_d$ and $|z(x) - z(k_j)|^2 = z(x) \cdot z(x) -
# 2\, z(x) \cdot z(k_j) + z(k_j) \cdot z(k_j)$.


# %%
def products(a, b):
    """z(a_i) . z(b_j)."""
    h_a, h_b = (np.exp(x @ keys.T / np.sqrt(D)).sum(axis=1) for x in (a, b))
    return np.exp(a @ b.T / np.sqrt(D)) / h_a[:, None] / h_b


G, cross = products(keys, keys), products(new, keys)
own = np.array([products(x[None], x[None])[0, 0] for x in new])
distance = np.sqrt(np.maximum(own[:, None] - 2 * cross + G.diagonal(), 0))  # (held-out, training)
deltas = [each.alpha - each.alpha_tilde for each in by_C]
lengths = np.array([np.sqrt(((G @ delta) * delta).sum(axis=0)) for delta in deltas])  # |w_d|, (Cs, outputs)

# %% [markdown]
# **Claim.** The bound holds for every held-out frame, training frame and output. With a larger $C$ the weights get
# longer, and the margin smaller. At the largest $C$ it is a small part of what it was at the best.

# %%
for each, length in zip(by_C, lengths, strict=True):
    moves = abs(each.predict(new)[:, None] - each.predict(keys))  # (held-out, training, outputs)
    assert (moves <= distance[:, :, None] * length * (1 + 1e-6) + 1e-9).all(), "the weights bound the change"
margins = np.median(0.1 / lengths, axis=1)
assert (np.diff(margins) < 0).all(), "a larger C has a smaller margin"
assert margins[-1] < margins[best] / 4, "at the largest C, the margin is less than a quarter of that at the best"
print("margin / median distance to the nearest training frame:", np.round(margins / np.median(distance.min(axis=1)), 2))

# %% [markdown]
# ## Step 4: support vectors, and what they say about new points
#
# In a plain SVR, a point that is no support vector may be left out, and $f$ stays the same. In training, it is inside
# the tube; so when it is left out, its error is at most $\epsilon$, too. Hence, for each output, *the fraction of
# points with a leave-one-out error above $\epsilon$ is at most the fraction of support vectors*: few support vectors
# promise few large errors on new, independent points.
#
# Attention is not quite a plain SVR: every key is in the normaliser $h$, support vector or not. So leaving out a key
# changes $f$ a little, and the statement may fail for keys near the edge of the tube. (The normaliser `"one"` has no
# keys in it.)


# %%
def support_and_errors(primal, C, epsilon=0.1):
    """Which points are support vectors, and their leave-one-out errors, (N, outputs) both."""
    solution = solve_dual(primal, keys, changes, C=C, epsilon=epsilon, solver="newton")
    f = leave_one_out(primal, keys, changes, C=C, epsilon=epsilon)
    return abs(solution.alpha - solution.alpha_tilde) > 1e-7 * C, abs(f - changes)


plain_support, plain_errors = support_and_errors(replace(softmax, normalizer="one"), C=0.01)
support, errors = support_and_errors(softmax, C=unit(softmax, keys))

# %% [markdown]
# **Claim.** For the plain SVR the statement holds exactly. For attention it fails for fewer than one point in twenty.

# %%
plain_far, far = plain_errors > 0.1 + 1e-6, errors > 0.1 + 1e-6
assert not (plain_far & ~plain_support).any(), "plain SVR: only support vectors have leave-one-out errors above epsilon"
assert (plain_far.mean(axis=0) <= plain_support.mean(axis=0)).all(), "so at most the fraction of support vectors has"
assert 0 < (far & ~support).mean() < 0.05, "attention: some other points have, too, but few"
print(f"attention: {support.mean():.0%} support vectors; {far.mean():.0%} of the left-out frames beyond the tube")

# %% [markdown]
# And what does $\epsilon$ do? A wider tube has fewer support vectors, but promises less of each point.

# %%
epsilons = (0.02, 0.05, 0.1, 0.2, 0.4)
by_epsilon = [trained(softmax, keys, changes, C=1, epsilon=epsilon) for epsilon in epsilons]
sizes = np.array([abs(each.alpha - each.alpha_tilde) for each in by_epsilon])
fractions = (sizes > 1e-6 * unit(softmax, keys)).mean(axis=(1, 2))
errors_new = np.array([relative_error(each.predict(new), new_changes) for each in by_epsilon])
for row in zip(epsilons, fractions, errors_new, strict=True):
    print("epsilon {:.2f}: {:.0%} support vectors, error on new utterances {:.3f}".format(*row))

# %%
assert (np.diff(fractions) < 0).all(), "a wider tube has fewer support vectors"
assert errors_new[0] < 1.02 * errors_new.min(), "a narrow tube does no harm here"
assert errors_new[-1] > 1.2 * errors_new.min(), "too wide a tube learns less"

# %% [markdown]
# ## Step 5: batch normalisation and scaled heads, over nine speakers
#
# One speaker shows little: we train for all nine, softmax attention, Attention-BN, Attention-SH of scale 2, and both
# together, each for four values of $C$. The difference to softmax attention is paired by speaker, with its 95%
# interval, at $C = 1$ for all.

# %%
attentions = {
    "softmax": softmax,
    "BN": Primal(transform=BatchNorm()),
    "SH": Primal(scale=2),
    "BN+SH": Primal(transform=BatchNorm(), scale=2),
}
four_Cs = (0.3, 1, 3, 10)

# %%
shape = 9, len(attentions), len(four_Cs)
error, training_error, support_vectors = np.empty(shape), np.empty(shape), np.empty(shape)
for i, speaker in enumerate(sorted(set(speakers))):
    some = of_speaker(speaker)
    train, test = frames_and_changes(some[:4]), frames_and_changes(some[4:])
    for j, primal in enumerate(attentions.values()):
        solutions = [trained(primal, *train, C) for C in four_Cs]
        error[i, j] = [relative_error(each.predict(test[0]), test[1]) for each in solutions]
        training_error[i, j] = [relative_error(each.predict(train[0]), train[1]) for each in solutions]
        sizes = [each.alpha + each.alpha_tilde for each in solutions]
        support_vectors[i, j] = [(size > 1e-6 * size.max()).sum() for size in sizes]


# %%
def minus_softmax(j):
    """The difference in error at C = 1, mean over the speakers, and half its 95% interval."""
    difference = error[:, j, 1] - error[:, 0, 1]
    return difference.mean(), t.ppf(0.975, 8) * difference.std(ddof=1) / 3


print("error on new utterances, mean over the speakers, for C =", *four_Cs)
for j, name in enumerate(attentions):
    paired = "" if j == 0 else "  at C = 1, minus softmax: {:+.3f} ± {:.3f}".format(*minus_softmax(j))
    print(f"{name:8}", np.round(error[:, j].mean(axis=0), 3), paired)

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
for ax, name, values in zip(panels, ("training frames", "new utterances"), (training_error, error), strict=True):
    for (label, mean), marker in zip(zip(attentions, values.mean(axis=0), strict=True), "osv^", strict=True):
        ax.semilogx(four_Cs, mean, marker + "-", label=label)
    ax.set(xlabel="penalty $C$, in multiples of the median of $h$", title=name)
panels[0].set_ylabel("error / error of no change")
panels[0].legend()
figure.suptitle("Attention-BN fits more and forecasts less; scaled heads fit less and forecast as well")
plt.show()


# %%
assert np.median(keys.std(axis=0)) < 1, "the coefficients of one speaker vary less than those of all"
assert (error[:, :, 1] < 1).all(), "every attention forecasts better than no change, for every speaker"
(bn, bn_half), (sh, sh_half) = minus_softmax(1), minus_softmax(2)
assert abs(sh) < sh_half, "SH: no difference that the scatter of nine speakers allows to see"
assert bn > bn_half, "BN: larger errors"
assert (support_vectors[:, 2] < 0.55 * support_vectors[:, 0]).all(), "SH: about half the support vectors"
assert ((training_error[:, 1] < training_error[:, 0]).sum(axis=0) >= 8).all(), "BN fits the training frames better"
assert (error[:, 2, 3] < error[:, 0, 3]).mean() > 0.7, "at a large C, SH has the smaller errors"

# %% [markdown]
# What may be concluded?
#
# - On this task, **no attention beats softmax attention**. Attention-SH does as well, with half the training points and
#   half the support vectors, and suffers less from a $C$ that is too large: an average of two frames has less noise to
#   be fitted.
# - **Attention-BN is worse**, by about 0.017 of the error of no change. It divides each coefficient by its standard
#   deviation over the training frames of one speaker, which is small; so it stretches distances, fits the training
#   frames more closely, and has less in common with the next utterance.
# - One data set and one task say little of others. In classification, where each example has statistics of its own,
#   Attention-BN differs from softmax attention by no more than the scatter of the seeds: see tutorial 8, and the table
#   of results.
# - The comparison is at the same $C$, in units of $h$, which was not tuned for any of them. All four have their best
#   $C$ near it.

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: twice the same
# Write down every training frame twice, one after the other. What happens to the error with one frame left out, if $C$
# is large?

# %% [markdown]
# **Solution.** The twin of a frame stays in the training set, so the frame is as good as not left out: the error falls
# to about that on the training frames, though nothing was learned.

# %%
few_keys, few_changes = keys[:16], changes[:16]
twice = np.repeat(few_keys, 2, axis=0), np.repeat(few_changes, 2, axis=0)
C = 300 * unit(softmax, few_keys)
once_error = relative_error(leave_one_out(softmax, few_keys, few_changes, C=C, epsilon=0.1), few_changes)
twice_error = relative_error(leave_one_out(softmax, *twice, C=C, epsilon=0.1), twice[1])
training = relative_error(trained(softmax, few_keys, few_changes, C=300).predict(few_keys), few_changes)
print(f"left out once {once_error:.2f}, with twins {twice_error:.2f}, on the training frames {training:.2f}")
assert training < twice_error < training + 0.1 < 0.6 * once_error, "twins make leave-one-out blind"

# %% [markdown]
# ### Exercise 2: almost no C
# What is the error on new utterances as $C \to 0$? Say it before you compute it.

# %% [markdown]
# **Solution.** No value exceeds $C / h(k_j)$, and $f$ is an average of the values. So $f \to 0$, which forecasts that
# nothing changes: the error goes to 1.

# %%
tiny = trained(softmax, keys, changes, C=1e-4)
assert abs(tiny.values).max() < 1e-3 and abs(relative_error(tiny.predict(new), new_changes) - 1) < 1e-3, "no change"

# %% [markdown]
# ### Exercise 3: nothing to learn
# Deal the targets to the training frames at random. What is the best that a forecast can be now?

# %% [markdown]
# **Solution.** As good as the mean change, since a frame and its target have nothing else to do with each other. The
# training error still falls with $C$. A method that does well on shuffled targets has a leak.

# %%
shuffled = changes[np.random.default_rng(0).permutation(N)]
by_C_shuffled = [trained(softmax, keys, shuffled, C) for C in Cs]
fits = [relative_error(each.predict(keys), shuffled) for each in by_C_shuffled]
forecasts = [relative_error(each.predict(new), new_changes) for each in by_C_shuffled]
print("training:", np.round(fits, 2), " new:", np.round(forecasts, 2))
assert fits[-1] < 0.75 and (np.diff(fits) < 0).all(), "shuffled targets can be fitted"
assert min(forecasts) > 0.97 * mean_change, "and forecast no more than the mean change"

# %% [markdown]
# Next: [10. A pretrained transformer](10_a_pretrained_transformer.ipynb), whose heads nobody took for SVRs when they
# were trained. They have certificates, too.
#
# Try it in the browser: run `primal-dual explore`, then open
# [An SVR is an attention](http://127.0.0.1:5006/?C=100) and change C and epsilon.
