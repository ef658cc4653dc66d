# %% [markdown]
# # 8. From here to a GPU
#
# So far an attention was a formula in NumPy, exact and slow. Here you take the same declarations to PyTorch, put them
# into models, train four attentions by one recipe, and measure what the paper reports of Attention-BN and Attention-SH:
# that their heads are less redundant, and that scaled heads cost less. And you learn what a table of results can and
# cannot say. All of it runs on a CPU, and on a GPU where there is one.
#
# You will learn
# - that both libraries compute the same function from a declaration, up to rounding errors;
# - how to put it into a model of your own, or into an existing model;
# - how to train by a recipe, and how to measure head redundancy and cost;
# - how to read a table of results, and how it can mislead you;
# - what changes on a GPU.

# %%
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import autograd.numpy as np
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from autograd import grad
from rich.console import Console
from safetensors.torch import load_file
from scipy.stats import t

import torch_impl
from primal_dual import attention, catalog, heads
from primal_dual.cli import tables

# %%
from torch_impl.analysis import efficiency
from torch_impl.analysis.accuracy_table import interval, table
from torch_impl.analysis.head_redundancy import redundancy
from torch_impl.data.series import load_series
from torch_impl.drop_in import replace_attention
from torch_impl.models.encoders import TimeSeriesEncoder
from torch_impl.training.recipes.benchmarks import recipe
from torch_impl.training.runs.trainer import learning_rate, train
from torch_impl.training.trained.finished_run import load_run

plt.style.use("tableau-colorblind10")
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"on {device}")

# %% [markdown]
# ## Step 1: the mirror
#
# A `Primal` is a declaration. `primal_dual` reads it and computes the explicit formula. `torch_impl` reads it and
# computes the same numbers in a faster way, by PyTorch's fused attention, by running sums, or in blocks of tokens.
# Whichever it chooses, the output is
#
# $$f(x) = \sum_j v_j\,\frac{\langle\Phi(Tx),\Phi(Tk_j)\rangle}{\sum_l\langle\Phi(Tx),\Phi(Tk_l)\rangle} .$$
#
# Take a batch of two series and four heads. The second series is padded: its last three tokens are padding.

# %%
rng = np.random.default_rng(0)
q, k, v, weight = rng.standard_normal((4, 2, 4, 30, 12))  # (batch, heads, tokens, features)
key_mask = np.arange(30) < np.array([[30], [27]])  # True = not padding
weight = weight * key_mask[:, None, :, None]  # the outputs at padding do not count, either
layers = {name: heads(name, 4) for name in catalog}


def score(q, k, v, primal):
    return (weight * attention(primal, q, k, v, key_mask)).sum()


def in_torch(primal, dtype):
    """The output, and the gradient of the score in q, k and v, as arrays in float64."""
    tensors = [torch.tensor(x, dtype=dtype, device=device, requires_grad=True) for x in (q, k, v)]
    f = torch_impl.attention(primal, *tensors, torch.tensor(key_mask, device=device))
    (torch.tensor(weight, dtype=dtype, device=device) * f).sum().backward()
    return [x.detach().double().cpu().numpy() for x in (f, *(tensor.grad for tensor in tensors))]


# %% [markdown]
# **Claim.** In float64 both libraries give the same outputs and the same gradients, for every attention of the catalog.

# %%
values = {name: attention(primal, q, k, v, key_mask) for name, primal in layers.items()}
for name, primal in layers.items():
    f, *slopes = in_torch(primal, torch.float64)
    assert abs(f - values[name]).max() < 1e-10, f"{name}: values are those of NumPy"
    for i, slope in enumerate(slopes):
        assert abs(slope - grad(score, i)(q, k, v, primal)).max() < 1e-10, f"{name}: gradients are those of autograd"

# %% [markdown]
# **Claim.** Padding changes nothing: a padded series with a mask gives the same as the short series.

# %%
for name, primal in layers.items():
    short = attention(primal, q[1], k[1, :, :27], v[1, :, :27])
    assert abs(values[name][1] - short).max() < 1e-12, f"{name}: the padded series is the short one"

# %% [markdown]
# GPUs are fastest with fewer bits. How many digits remain correct?

# %%
types = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}
errors = {
    label: [abs(in_torch(primal, dtype)[0] - values[name]).max() for name, primal in layers.items()]
    for label, dtype in types.items()
}
assert max(errors["float32"]) < 1e-4, "float32 keeps four decimals and more"

# %%
figure, ax = plt.subplots(figsize=(9, 5), layout="constrained")
for (label, error), marker in zip(errors.items(), "os^", strict=True):
    ax.semilogx(error, range(len(layers)), marker, label=label)
ax.set_yticks(range(len(layers)), list(layers))
ax.set(xlabel="largest difference to NumPy in float64", title="The same declaration, in three precisions")
ax.invert_yaxis()
ax.grid(alpha=0.3)
figure.legend(loc="outside right upper")
plt.show()

# %% [markdown]
# Training is noisy anyway. It tolerates bfloat16 well if sums and statistics stay in float32, as they do in
# `torch_impl`.
#
# ## Step 2: as a layer
#
# `torch_impl.MultiheadAttention` is `torch.nn.MultiheadAttention` with a primal. It takes the same arguments and masks
# and has the same weights, so it can load those of a trained module. (In the `key_padding_mask` of torch, `True` means:
# this is padding, ignore it.)

# %%
torch.manual_seed(0)
theirs = torch.nn.MultiheadAttention(64, 4, batch_first=True, dtype=torch.float64)
ours = torch_impl.MultiheadAttention(64, 4, batch_first=True, dtype=torch.float64, primal="bn")
ours.load_state_dict(theirs.state_dict())
x, padding = torch.randn(2, 30, 64, dtype=torch.float64), ~torch.tensor(key_mask)
y, weights = ours(x, x, x, key_padding_mask=padding)

# %% [markdown]
# **Claim.** The layer is Attention-BN between projected tokens. We compute it for the padded series as in tutorial 4:
# as softmax attention with the query $(q-\mu)/(\sigma^2+\text{eps})$.

# %%
projected = F.linear(x[1], theirs.in_proj_weight, theirs.in_proj_bias)
queries, keys, contents = projected.unflatten(-1, (3, 4, 16)).permute(1, 2, 0, 3)  # each (heads, tokens, features)
valid, contents = keys[:, :27], contents[:, :27]
mu, variance = valid.mean(1, keepdim=True), valid.var(1, keepdim=True, correction=0)
f = ((queries - mu) / (variance + 1e-5) @ valid.mT / 16**0.5).softmax(-1) @ contents
by_hand = F.linear(f.transpose(0, 1).flatten(1), theirs.out_proj.weight, theirs.out_proj.bias)
assert abs(y[1] - by_hand).max() < 1e-12, "the layer is Attention-BN, with torch's weights"
assert (weights[1, :, 27:] == 0).all(), "padding has no weight"

# %% [markdown]
# One call gives another attention to an existing model, in place: to the encoders of torch, and to models of timm and
# of Hugging Face.
#
# **Claim.** With `softmax`, the outputs of the model do not change. With `bn+sh`, the model has the same parameters,
# but is another function.

# %%
block = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dtype=torch.float64)
encoder = torch.nn.TransformerEncoder(block, 2, enable_nested_tensor=False).eval()
before, parameters = encoder(x), list(encoder.parameters())
assert abs(replace_attention(encoder, "softmax")(x) - before).max() < 1e-12, "softmax is torch's attention"
assert abs(replace_attention(encoder, "bn+sh")(x) - before).max() > 1e-3, "another primal is another function"
assert all(a is b for a, b in zip(encoder.parameters(), parameters, strict=True)), "with the very same parameters"

# %% [markdown]
# A trained model must adapt to its new attention: continue its training for a while.
#
# ## Step 3: a recipe
#
# A comparison is fair if the runs differ only in what is compared. So everything that determines a run, except the
# attention and the seed, is in a recipe: a frozen dataclass, whose fields are options of the command line.
#
#     primal-dual train JapaneseVowels --attention softmax bn sh bn+sh --seeds 5
#     primal-dual results
#
# Here we do what the first command does, but smaller: four epochs, half the width, and a plain model, in which each
# frame is a token. (The recipe combines neighbouring frames by a convolution first.) That is far too short for a
# conclusion, but long enough to see how each tool works.

# %%
small = dict(epochs=4, batch=30, layers=2, width=64, num_heads=4, feedforward=128)
plain = dict(patch=1, convolutions=0, pooling="flatten", norm="batch")
chosen = recipe("JapaneseVowels", beta=0.5, scales="1 2 4 8", **small, **plain)
print(chosen)
data = load_series("JapaneseVowels")
attentions, seeds = ("softmax", "bn", "sh", "bn+sh"), (0, 1, 2)
folder = TemporaryDirectory()


def trained(attention, seed, folder, say):
    """A run, on one thread: for tensors this small, more threads are no faster."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(chosen, attention, seed, data, folder, say)
    finally:
        torch.set_num_threads(threads)


# %% [markdown]
# **Claim.** The models have the same parameters, since no attention adds a parameter, and for the same seed they start
# from the same numbers.


# %%
def at_start(name, seed):
    torch.manual_seed(seed)
    return chosen.model(data.sizes, name).state_dict()


for name in attentions:
    start, reference = at_start(name, 0), at_start("softmax", 0)
    assert start.keys() == reference.keys(), f"{name} has the weights of softmax"
    assert all(torch.equal(start[each], reference[each]) for each in start), f"{name} starts where softmax starts"

# %%
logs = {(name, seed): [] for seed in seeds for name in attentions}
runs = [trained(*pair, folder.name, log.append) for pair, log in logs.items()]
losses = np.array([[[line["loss"] for line in logs[name, s]] for s in seeds] for name in attentions])
accuracies = np.array([[[line["test_accuracy"] for line in logs[name, s]] for s in seeds] for name in attentions])
print("a run leaves", sorted(path.name for path in Path(folder.name, "JapaneseVowels", "bn", "0").iterdir()))

# %% [markdown]
# **Claim.** The learning rate rises during a tenth of the steps and then falls along half a cosine. All twelve runs
# learn, and recognise far more speakers than the one in nine that guessing would.

# %%
rates = np.array([learning_rate(step, 36, chosen.warm_up) for step in range(36)])  # 4 epochs of 9 batches
rise, fall = np.arange(1, 5) / 4, np.cos(np.pi * np.arange(32) / 32 / 2) ** 2
assert abs(rates - np.concatenate([rise, fall])).max() < 1e-12, "four steps up, half a cosine down"
assert (losses[..., -1] < losses[..., 0]).all(), "the loss falls in every run"
assert (accuracies[..., -1] > 0.5).all(), "every run recognises the speakers far better than chance"

# %%
epochs = np.arange(1, chosen.epochs + 1)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for i, (name, marker) in enumerate(zip(attentions, "osv^", strict=True)):
    for ax, curves in ((left, losses[i]), (right, accuracies[i])):
        ax.plot(epochs, curves.T, color=f"C{i}", linewidth=0.5)
        ax.plot(epochs, curves.mean(0), marker + "-", color=f"C{i}", label=name)
left.set(xlabel="epoch", ylabel="training loss (smoothed labels)", xticks=epochs, title="Twelve runs learn")
right.set(xlabel="epoch", ylabel="test accuracy", xticks=epochs, title="thin: one seed, thick: their mean")
left.legend()
plt.show()

# %% [markdown]
# ## Step 4: head redundancy
#
# Heads with identical outputs waste capacity. So we measure how far apart the outputs of two heads are, on average over
# the queries. If $f^a_i$ is the output of head $a$ for query $i$ of $M$, and $f^b_i$ that of head $b$, this is
#
# $$\text{dist}(a, b) = \frac1M\sum_{i=1}^M \lVert f^a_i - f^b_i\rVert .$$
#
# The smaller the distances, the more redundant the heads. `redundancy` computes them in each layer, over all queries of
# some examples that are not padding. For finished runs, the command `primal-dual redundancy` does the same.

# %%
series, valid, _ = data.test.take(torch.arange(64))
series = series.double()
models = {pair: load_run(Path(folder.name, "JapaneseVowels", *map(str, pair))).model.double() for pair in logs}
found = {pair: redundancy(model, series, valid).outputs.numpy() for pair, model in models.items()}  # (layers, 4, 4)

# %% [markdown]
# **Claim.** `redundancy` computes this definition. We check it for the first layer of each attention, starting from the
# projected tokens, one head and one example after the other.


# %%
def one_head(q, k, v, beta, scale):
    k, v = (torch.stack([group.mean(0) for group in x.split(scale)]) for x in (k, v))
    if beta is not None:
        q = (q - beta * k.mean(0)) / (k.var(0, correction=0) + 1e-5)
    return (q @ k.mT / k.shape[-1] ** 0.5).softmax(-1) @ v


def first_layer(model, betas, scales):
    """The output of each head at all queries that are not padding, (heads, M, features)."""
    kept = []
    with torch.no_grad(), model.blocks[0].qkv.register_forward_hook(lambda *call: kept.append(call[-1])):
        model(series, valid)
    examples = kept[0].unflatten(-1, (3, 4, 16)).split(valid.sum(1).tolist())
    outputs = [[one_head(*x[:, :, a].unbind(1), betas, scales[a]) for x in examples] for a in range(4)]
    return torch.stack([torch.cat(each) for each in outputs])


# %%
primals = {"softmax": (None, (1, 1, 1, 1)), "bn": (chosen.beta, (1, 1, 1, 1))}
primals |= {"sh": (None, (1, 2, 4, 8)), "bn+sh": (chosen.beta, (1, 2, 4, 8))}
for name, primal in primals.items():
    f = first_layer(models[name, 0], *primal)
    distances = torch.stack([torch.stack([(a - b).norm(dim=-1).mean() for b in f]) for a in f])
    assert abs(distances.numpy() - found[name, 0][0]).max() < 1e-12, f"{name}: this is the distance of its heads"

# %%
others = ~np.eye(4, dtype=bool)
shown = np.where(others, np.stack([found[name, 0] for name in attentions]), np.nan)  # (attentions, layers, 4, 4)
figure, axes = plt.subplots(2, 4, figsize=(11, 5), layout="constrained", sharex=True, sharey=True)
for column, name, distances in zip(axes.T, attentions, shown, strict=True):
    for layer, ax in enumerate(column):
        image = ax.imshow(distances[layer], cmap="cividis", vmin=np.nanmin(shown), vmax=np.nanmax(shown))
        ax.set(title=f"{name}, layer {layer + 1}", xticks=range(4), yticks=range(4))
figure.suptitle("How far apart the heads are (seed 0)")
figure.supxlabel("head")
figure.supylabel("head")
figure.colorbar(image, ax=axes, label="mean distance of outputs")
plt.show()

# %%
apart = {pair: each[:, others].mean() for pair, each in found.items()}
for name in attentions:
    print(f"{name:8}", "  ".join(f"{apart[name, seed]:.3f}" for seed in seeds), "for three seeds")

# %% [markdown]
# **Claim.** Seed by seed, the heads of Attention-BN lie farther apart than those of softmax attention.

# %%
assert all(apart["bn", seed] > apart["softmax", seed] for seed in seeds), "farther apart, in each pair of runs"

# %% [markdown]
# Are these heads less redundant, then? That does not follow. First, the distances differ from seed to seed as much as
# from one attention to another, so that only runs of the same seed can be compared. Second, if all outputs are twice as
# long, all distances are twice as large, but the heads are no less redundant. Exercise 2 removes the influence of the
# length.
#
# ## Step 5: cost
#
# We count additions and multiplications. A block of width $E$ has projections with $4E^2$ weights and a feed-forward
# network with, say, $4E^2$ weights. For $N$ tokens they take $2\cdot8NE^2$ operations. Logits, and weights times
# values, take $2\cdot2NE\bar n$, where $\bar n$ is the number of keys of a head, averaged over the heads: in softmax
# attention and Attention-BN, it is $N$; in Attention-SH, a head of scale $s$ has $\lceil N/s\rceil$ keys. Together
#
# $$16NE^2 + 4NE\bar n .$$
#
# In training, the gradients with respect to the two factors of each matrix product cost twice as much again. One of
# them is not needed here, that of the input of the block, which saves $6NE^2$ in the first projections. So a training
# step takes $42NE^2 + 12NE\bar n$.


# %%
def operations(name, N, mode):
    E, scales = 512, (1, 1, 2, 2, 4, 4, 8, 8) if "sh" in name else (1,)
    n = np.mean([-(-N // scale) for scale in scales])
    return 42 * N * E**2 + 12 * N * E * n if mode == "training" else 16 * N * E**2 + 4 * N * E * n


# %% [markdown]
# **Claim.** These are the operations of the matrix products, as torch counts them in the block itself. For long
# sequences, the scales 1, 2, 4 and 8 leave the fraction $\frac14(1+\frac12+\frac14+\frac18) = \frac{15}{32}$ of the
# operations.

# %%
for name in attentions:
    for N in (16, 101, 1024):
        for mode in ("training", "inference"):
            assert efficiency.flops(name, N, mode) == operations(name, N, mode), f"{name}, {N} tokens, {mode}"
long = 2**22
fraction = efficiency.flops("sh", long, "inference") / efficiency.flops("softmax", long, "inference")
assert abs(fraction - 15 / 32) < 1e-3, "in the limit, Attention-SH takes 15/32 of the operations"

# %% [markdown]
# The number of operations does not determine the time. The statistics of Attention-BN take time that the count leaves
# out, and whatever else the machine does meanwhile disturbs the measurement. So we show the times, and claim nothing
# about them.

# %%
measured = efficiency.run(device, lengths=(128, 256, 512), repeats=9)["rows"]
lengths = 2 ** np.arange(6, 18)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for name, label, marker in (("bn", "softmax, bn", "s"), ("bn+sh", "sh, bn+sh", "^")):
    fractions = [operations(name, N, "training") / operations("softmax", N, "training") for N in lengths]
    left.semilogx(lengths, fractions, marker + "-", base=2, label=label)
for name, marker in zip(attentions, "osv^", strict=True):
    rows = [row for row in measured if (row["attention"], row["mode"]) == (name, "training")]
    right.semilogx([row["N"] for row in rows], [row["seconds_ratio"] for row in rows], marker + "-", base=2, label=name)
left.axhline(15 / 32, color="0.5", linestyle=":")
left.set(xlabel="tokens", ylabel="relative to softmax", ylim=0, title="Operations of a training step")
right.set(xlabel="tokens", ylim=0, title=f"Seconds of a training step, measured on {device}")
left.legend()
right.legend()
plt.show()

# %% [markdown]
# Attention-SH is worthwhile where attention is most of the cost: beyond $N = 7E/2$ in training, where the two terms are
# equal for $\bar n = N$. For shorter sequences, most of the cost is in projections and feed-forward network, which stay
# the same.
#
# ## Step 6: read the table

# %%
rows = table(runs)
Console(width=100, force_jupyter=False).print(tables.runs(rows))

# %% [markdown]
# A row is an attention. Its accuracy is that of the last epoch: the mean over the seeds, and the standard deviation. Is
# the difference to softmax more than chance? Runs with the same seed start from the same weights and see the same
# batches. So compare them in pairs. For two accuracies $u$ and $w$,
#
# $$\text{var}(u-w) = \text{var}(u) + \text{var}(w) - 2\,\text{cov}(u, w) :$$
#
# the more a lucky seed helps both, the larger is their covariance, and the smaller the variance of the difference.
#
# Let $n$ differences have the mean $\bar d$ and the standard deviation $\hat\sigma$. Student's 95% interval for the
# true difference is $\bar d \pm t\,\hat\sigma/\sqrt n$, where $t$ is the quantile of Student's distribution at
# $p = 0.975$. For $n = 3$ it has a closed form,
#
# $$t = \frac{2p-1}{\sqrt{2p(1-p)}} = 4.30 .$$
#
# **Claim.** The intervals in the table are these, and the formula for the variance holds.

# %%
p = 0.975
quantile = (2 * p - 1) / np.sqrt(2 * p * (1 - p))
percent = 100 * accuracies[..., -1]  # (attentions, seeds)
intervals = {}
for row, accuracy in zip(rows[1:], percent[1:], strict=True):
    d = accuracy - percent[0]
    half = quantile * np.sqrt(((d - d.mean()) ** 2).sum() / 2) / np.sqrt(3)
    intervals[row["attention"]] = d.mean(), d.mean() - half, d.mean() + half
    assert np.allclose(row["difference"], intervals[row["attention"]], rtol=0, atol=1e-10), "Student's t, by hand"
    covariance = np.cov(accuracy, percent[0])
    assert np.isclose(d.var(ddof=1), np.trace(covariance) - 2 * covariance[0, 1], atol=1e-10), "the variances"
assert abs(np.array(interval([1.0, 2.0, 6.0])) - [3, 3 - 4.302653 * 7**0.5 / 3**0.5, 9.572415]).max() < 1e-5, "again"

# %% [markdown]
# ### Why not 1.96?
#
# Because $\hat\sigma$ is itself an estimate from few numbers. With three seeds, the interval
# $\bar d \pm 1.96\,\hat\sigma/\sqrt n$ contains the true difference not in 95% of cases, but in
# $1.96/\sqrt{2+1.96^2} = 81\%$. Let us draw differences whose true mean is zero, and count.

# %%
counts = np.arange(2, 13)
coverage = {"Student's t": [], "1.96": []}
for n in counts:
    draws = rng.standard_normal((100_000, n))
    size = abs(draws.mean(1)) / draws.std(1, ddof=1) * np.sqrt(n)
    for name, bound in zip(coverage, (t.ppf(p, n - 1), 1.96), strict=True):
        coverage[name].append((size < bound).mean())

# %% [markdown]
# **Claim.** Student's intervals contain the true difference in 95% of cases, for any number of seeds. The others do
# not.

# %%
assert abs(np.array(coverage["Student's t"]) - 0.95).max() < 0.004, "95% is 95%"
assert abs(coverage["1.96"][1] - 1.96 / np.sqrt(2 + 1.96**2)) < 0.005, "with three seeds 1.96 gives 81%"

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for i, (mean, low, high) in enumerate(intervals.values(), 1):
    left.errorbar(i, mean, [[mean - low], [high - mean]], color=f"C{i}", capsize=5, fmt="D")
    left.plot(np.full(3, i + 0.15), percent[i] - percent[0], "o", color=f"C{i}", fillstyle="none")
left.axhline(0, color="black", linewidth=1)
left.set_xticks([1, 2, 3], list(intervals))
left.set(ylabel="accuracy minus softmax's, points", title="Mean and 95% interval; circles: the seeds")
for (name, each), marker in zip(coverage.items(), "os", strict=True):
    right.plot(counts, each, marker + "-", label=name)
right.axhline(0.95, color="0.5", linestyle=":")
right.set(xlabel="seeds", ylabel="intervals with the true value", title="How often an interval is right")
right.legend()
plt.show()

# %% [markdown]
# An interval that contains zero does not say that two attentions are equal. It says that three seeds of four epochs
# cannot decide. If the three differences happen to agree, which is possible since accuracies are multiples of 1/370,
# the interval shrinks to a point; that is no proof, either. And if three attentions are compared with softmax at 95%,
# up to one table in seven has a "significant" difference by chance alone.
#
# ### Why not the best epoch?
#
# The column *best* is the highest accuracy of all epochs, chosen by the test split. Published numbers are often of this
# kind. It cannot be lower than the accuracy of the last epoch, and the more epochs are tested, the higher it gets. Take
# a model that has stopped learning and is right for 95% of all examples, and test it ten times, each time on 370 new
# examples.
#
# **Claim.** The best of ten tests is on average over a percentage point too high, though nothing is learned. (In
# training, all epochs are tested on the same 370 examples, so that the results are similar, and the best is less too
# high.)

# %%
tests = rng.binomial(370, 0.95, (100_000, 10)) / 370
flattery = 100 * (tests.max(1).mean() - 0.95)
print(f"best of ten tests: {flattery:+.2f} points; one test: {100 * (tests[:, 0].mean() - 0.95):+.2f}")
assert flattery > 1 and abs(tests[:, 0].mean() - 0.95) < 1e-3, "the best is biased, the last is not"
for run in runs:
    curve = accuracies[attentions.index(run["attention"]), run["seed"]]
    assert (run["test_accuracy"], run["best_test_epoch"]) == (curve[-1], curve.max()), "last and best of the log"

# %% [markdown]
# The same holds for everything else that is chosen by the test split: a learning rate, a $\beta$, the better of two
# seeds. With `--folds 3`, runs are trained and tested inside the training split. That is how recipes should be tuned.
#
# So read a table in this order. How many seeds and test examples are there? What is the interval of the paired
# difference? Were all attentions tuned in the same way, and on which data? Are the numbers of the last epoch or of the
# best? And only then look at the means.
#
# ## Step 7: on a GPU
#
# All of the above stays the same. The trainer and the tools use a GPU if there is one. These options are worthwhile
# there:
#
# | command | what it does |
# |---|---|
# | `primal-dual train digits` | trains on images that need no download |
# | `primal-dual train cifar10 --data DIR --seeds 5` | trains a small vision transformer; its recipe has `bf16` |
# | `primal-dual train NAME --data DIR --bf16` | matrix products in bfloat16, statistics and sums in float32 |
# | `primal-dual train NAME --data DIR --compile` | fuses the statistics of Attention-BN with other operations |
# | `primal-dual train NAME --data DIR --accumulate 4` | computes a batch in four parts, to save memory |
# | `torchrun --nproc-per-node 8 -m primal_dual.cli train imagenet --data DIR` | trains each batch on eight GPUs |
# | `python -m torch_impl.bench --device cuda` | measures speed and memory relative to torch's softmax attention |
#
# Small models on short series, as here, gain little, since they cannot keep a GPU busy. A run that is interrupted
# continues when the command is given again (exercise 1). Distributing a batch does not change its gradient (exercise
# 3).
#
# ## Exercises
#
# ### Exercise 1: pull the plug
# Interrupt a run after its second epoch, and start it again. Does it end with the same weights as without interruption?

# %% [markdown]
# **Solution.** The function `say` is called after each epoch, and we let it raise an exception. A checkpoint has
# weights, optimizer and log, and the random numbers of each epoch have a seed of their own. So on a CPU the weights
# agree to the bit. (On a GPU, sums may be computed in another order each time.) A finished run is not trained again: in
# the third call, `say` is not called at all.


# %%
def pull_the_plug(line):
    if line["epoch"] == 2:
        raise KeyboardInterrupt


# %%
after, again = [], []
with TemporaryDirectory() as other:
    try:
        trained("bn+sh", 0, other, pull_the_plug)
    except KeyboardInterrupt:
        trained("bn+sh", 0, other, after.append)
    trained("bn+sh", 0, other, again.append)
    ends = [load_file(Path(root, "JapaneseVowels/bn+sh/0/model.safetensors")) for root in (folder.name, other)]
folder.cleanup()
assert [line["epoch"] for line in after] == [3, 4] and again == [], "it continues, and is then finished"
closeness = 0 if device == "cpu" else 1e-2
assert all(abs(ends[0][name] - ends[1][name]).max() <= closeness for name in ends[0]), "it ends with the same weights"

# %% [markdown]
# ### Exercise 2: far apart, or only long?
# Measure head redundancy in a way that does not change when all outputs are multiplied by a number. Is the order of the
# attentions still the same?

# %% [markdown]
# **Solution.** Divide the distances by the mean length of the outputs of the heads. Outputs that are twice as long then
# have the same distances as before. Now all attentions have nearly the same distances, about $\sqrt2$. That is the
# distance of two orthogonal vectors of length one: the outputs of different heads are nearly unrelated. So most of what
# Attention-BN changed here is the length of the outputs. After a full training the result may be different; measure it.


# %%
def relative_distance(f):
    """f (heads, M, features) -> the mean distance of two heads, divided by the mean length of an output."""
    distances = [(f[a] - f[b]).norm(dim=-1).mean() for a, b in combinations(range(len(f)), 2)]
    return (torch.stack(distances).mean() / f.norm(dim=-1).mean()).item()


# %%
absolute, relative = {}, {}
for name, primal in primals.items():
    outputs = [first_layer(models[name, seed], *primal) for seed in seeds]
    absolute[name] = [found[name, seed][0, others].mean() for seed in seeds]
    relative[name] = [relative_distance(f) for f in outputs]
    ratios = absolute[name] / np.array([f.norm(dim=-1).mean().item() for f in outputs])
    assert abs(relative[name] - ratios).max() < 1e-12, "the distance of step 4, divided by the mean length"
    assert np.isclose(relative_distance(5 * outputs[0]), relative[name][0]), "which does not depend on the length"
    print(f"{name:8}", *(f"{each:.3f} -> {ratio:.2f} " for each, ratio in zip(absolute[name], ratios, strict=True)))
    assert abs(ratios - np.sqrt(2)).max() < 0.15, "unrelated directions"
gains = [np.array(each["bn"]) / each["softmax"] - 1 for each in (absolute, relative)]
assert (abs(gains[1]) < gains[0] / 2).all(), "most of the gain of BN was length"

# %% [markdown]
# ### Exercise 3: distribute a batch
# 270 utterances in batches of 16 leave a last batch of 14. Four processes get 4, 4, 3 and 3 of its examples. Each
# computes the mean loss of its examples. How must the four gradients be combined to get the gradient of the whole
# batch?

# %% [markdown]
# **Solution.** The mean over all examples is the sum of the four means, each multiplied by its fraction of the
# examples: $\frac4{14}$ or $\frac3{14}$, not $\frac14$. That holds if the output for an example does not depend on
# other examples, as with `norm="layer"`. Batch normalisation *between the layers of the model* takes its statistics
# over the batch, and the processes would have to exchange them, as `SyncBatchNorm` does on GPUs. Attention-BN takes its
# statistics over the keys of each example, and needs no exchange.

# %%
torch.manual_seed(0)
options = dict(primal="bn+sh", layers=1, width=16, num_heads=4, feedforward=32, dropout=0.0)
model = TimeSeriesEncoder(**data.sizes, **options, norm="layer").double()
last = torch.arange(256, 270)
parts = [last[rank::4] for rank in range(4)]


def gradient(parts, fractions):
    examples = [data.train.take(part) for part in parts]
    means = [F.cross_entropy(model(x.double(), valid), labels) for x, valid, labels in examples]
    loss = sum(fraction * mean for fraction, mean in zip(fractions, means, strict=True))
    return torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(model.parameters()))])


# %%
whole = gradient([last], [1])
assert [len(part) for part in parts] == [4, 4, 3, 3]
assert abs(gradient(parts, [len(part) / 14 for part in parts]) - whole).max() < 1e-12, "weighted by fractions"
assert abs(gradient(parts, [1 / 4] * 4) - whole).max() > 1e-4, "a plain mean over processes is another gradient"

# %% [markdown]
# Next: [9. Errors on new data](09_errors_on_new_data.ipynb), where the SVR of an attention forecasts what it has not
# seen, and the margin and the support vectors explain how well.
#
# Try it in the browser: run `primal-dual explore`, then open [A real head](http://127.0.0.1:5006/head?source=a+trained+transformer).
