# %% [markdown]
# # 8. From here to a GPU
#
# So far an attention was a formula in NumPy, exact and slow. Here you take the same declarations to PyTorch, put them
# into models, train four attentions by one recipe, and measure what Attention-BN and Attention-SH are said to do: keep
# heads apart, and cost less. And you learn to doubt the table that comes out. All of it runs on a CPU, and on a GPU
# where there is one.
#
# You will learn
# - that a declaration is one function in both libraries, to the last digits;
# - how to put it into a model of your own, or into one that exists;
# - how to train by a recipe, and how to measure head redundancy and cost;
# - how to read a table of results, and how it can fool you;
# - what a GPU changes.

# %%
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory

import autograd.numpy as np
import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from autograd import grad
from safetensors.torch import load_file
from scipy.stats import t

import torch_impl
from primal_dual import attention, catalog, heads
from primal_dual.cli.tables import markdown

# %%
from torch_impl.analysis import efficiency
from torch_impl.analysis.accuracy_table import interval, table
from torch_impl.analysis.head_redundancy import redundancy
from torch_impl.data.series import load_series
from torch_impl.drop_in import replace_attention
from torch_impl.models.encoders import TimeSeriesEncoder
from torch_impl.training.benchmarks import recipe
from torch_impl.training.finished_run import load_run
from torch_impl.training.trainer import learning_rate, train

plt.style.use("tableau-colorblind10")
device = "cuda" if torch.cuda.is_available() else "cpu"
print(f"on {device}")

# %% [markdown]
# ## Step 1: the mirror
#
# A `Primal` holds no array code. `primal_dual` reads it and computes the explicit formula. `torch_impl` reads it and
# takes a faster way to the same numbers: a fused softmax kernel, running sums, blocks of tokens. Which way, is its own
# affair. What comes out is not:
#
# $$f(x) = \sum_j v_j\,\frac{\langle\Phi(Tx),\Phi(Tk_j)\rangle}{\sum_i\langle\Phi(Tx),\Phi(Tk_i)\rangle}$$
#
# Take a batch of two series and four heads. The second series is padded: its last three keys are not real.

# %%
rng = np.random.default_rng(0)
q, k, v, weight = rng.standard_normal((4, 2, 4, 30, 12))  # (batch, heads, tokens, features)
key_mask = np.arange(30) < np.array([[30], [27]])  # True = a real key
weight = weight * key_mask[:, None, :, None]  # a model does not listen to padded queries, either
layers = {name: heads(name, 4) for name in catalog}


def score(q, k, v, primal):
    return (weight * attention(primal, q, k, v, key_mask)).sum()


def in_torch(primal, dtype):
    """The output and its slopes in q, k and v, as arrays in 64 bits."""
    tensors = [torch.tensor(x, dtype=dtype, device=device, requires_grad=True) for x in (q, k, v)]
    f = torch_impl.attention(primal, *tensors, torch.tensor(key_mask, device=device))
    (torch.tensor(weight, dtype=dtype, device=device) * f).sum().backward()
    return [x.detach().double().cpu().numpy() for x in (f, *(tensor.grad for tensor in tensors))]


# %% [markdown]
# **Claim.** In 64 bits both libraries have the same values and the same gradients, for every attention of the catalog.

# %%
values = {name: attention(primal, q, k, v, key_mask) for name, primal in layers.items()}
for name, primal in layers.items():
    f, *slopes = in_torch(primal, torch.float64)
    assert abs(f - values[name]).max() < 1e-10, f"{name}: values are those of NumPy"
    for i, slope in enumerate(slopes):
        assert abs(slope - grad(score, i)(q, k, v, primal)).max() < 1e-10, f"{name}: gradients are those of autograd"

# %% [markdown]
# **Claim.** A mask is as good as a shorter series: padding changes nothing.

# %%
for name, primal in layers.items():
    short = attention(primal, q[1], k[1, :, :27], v[1, :, :27])
    assert abs(values[name][1] - short).max() < 1e-12, f"{name}: the padded series is the short one"

# %% [markdown]
# GPUs are fastest in fewer bits. How many digits are left?

# %%
types = {"64 bits": torch.float64, "32 bits": torch.float32, "16 bits (bfloat16)": torch.bfloat16}
errors = {
    label: [abs(in_torch(primal, dtype)[0] - values[name]).max() for name, primal in layers.items()]
    for label, dtype in types.items()
}
assert max(errors["32 bits"]) < 1e-4, "32 bits keep four decimals and more"

# %%
figure, ax = plt.subplots(figsize=(9, 5), layout="constrained")
for (label, error), marker in zip(errors.items(), "os^", strict=True):
    ax.semilogx(error, range(len(layers)), marker, label=label)
ax.set_yticks(range(len(layers)), list(layers))
ax.set(xlabel="largest difference to NumPy in 64 bits", title="The same declaration, in three precisions")
ax.invert_yaxis()
ax.grid(alpha=0.3)
figure.legend(loc="outside right upper")
plt.show()

# %% [markdown]
# Training is noisy and bears 16 bits well, if sums and statistics stay in 32, as they do in `torch_impl`.
#
# ## Step 2: as a layer
#
# `torch_impl.MultiheadAttention` is `torch.nn.MultiheadAttention` with a primal. Arguments, masks and weights are
# torch's, so that a trained module loads. (Mind that in torch's `key_padding_mask`, `True` means: ignore.)

# %%
torch.manual_seed(0)
theirs = torch.nn.MultiheadAttention(64, 4, batch_first=True, dtype=torch.float64)
ours = torch_impl.MultiheadAttention(64, 4, batch_first=True, dtype=torch.float64, primal="bn")
ours.load_state_dict(theirs.state_dict())
x, padding = torch.randn(2, 30, 64, dtype=torch.float64), ~torch.tensor(key_mask)
y, weights = ours(x, x, x, key_padding_mask=padding)

# %% [markdown]
# **Claim.** The layer is Attention-BN between projected tokens: the query $(q-\mu)/(\sigma^2+\epsilon)$ in softmax
# attention, by hand, for the padded series.

# %%
projected = F.linear(x[1], theirs.in_proj_weight, theirs.in_proj_bias)
queries, keys, contents = projected.unflatten(-1, (3, 4, 16)).permute(1, 2, 0, 3)  # each (heads, tokens, features)
real, contents = keys[:, :27], contents[:, :27]
mu, variance = real.mean(1, keepdim=True), real.var(1, keepdim=True, correction=0)
f = ((queries - mu) / (variance + 1e-5) @ real.mT / 16**0.5).softmax(-1) @ contents
by_hand = F.linear(f.transpose(0, 1).flatten(1), theirs.out_proj.weight, theirs.out_proj.bias)
assert abs(y[1] - by_hand).max() < 1e-12, "the layer is Attention-BN, with torch's weights"
assert (weights[1, :, 27:] == 0).all(), "what is padded has no weight"

# %% [markdown]
# A model that exists gets another attention by one call, in place: torch's own encoders, timm's, Hugging Face's.
#
# **Claim.** With `softmax`, the model is what it was. With `bn+sh`, it has the same parameters and is another function.

# %%
block = torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True, dtype=torch.float64)
encoder = torch.nn.TransformerEncoder(block, 2, enable_nested_tensor=False).eval()
before, parameters = encoder(x), list(encoder.parameters())
assert abs(replace_attention(encoder, "softmax")(x) - before).max() < 1e-12, "softmax is torch's attention"
assert abs(replace_attention(encoder, "bn+sh")(x) - before).max() > 1e-3, "another primal is another function"
assert all(a is b for a, b in zip(encoder.parameters(), parameters, strict=True)), "of the very same parameters"

# %% [markdown]
# A trained model must get used to its new attention: train it on for a while.
#
# ## Step 3: a recipe
#
# A comparison is fair if nothing differs but what is compared. So all that decides a run, apart from the attention and
# the seed, is in a recipe: a frozen dataclass, whose fields are options of the command line.
#
#     primal-dual train JapaneseVowels --attention softmax bn sh bn+sh --seeds 5
#     primal-dual results
#
# We do here what the first command does, in small: four epochs, half the width, and a token for each frame, where the
# recipe has one for three. That is far too short for a verdict. It is long enough to see each tool at work.

# %%
small = dict(epochs=4, batch=30, layers=2, width=64, num_heads=4, feedforward=128)
chosen = recipe("JapaneseVowels", patch=1, beta=0.5, scales="1 2 4 8", **small)
print(chosen)
data = load_series("JapaneseVowels")
attentions, seeds = ("softmax", "bn", "sh", "bn+sh"), (0, 1, 2)
folder = TemporaryDirectory()


def trained(attention, seed, folder, say):
    """A run, on one thread: as fast for tensors this small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return train(chosen, attention, seed, data, folder, say)
    finally:
        torch.set_num_threads(threads)


# %% [markdown]
# **Claim.** The attentions have the same weights, and for a seed even start from the same numbers: none has a parameter
# of its own.


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
# **Claim.** The rate rises for a tenth of the steps and falls along half a cosine. All twelve runs learn, and know far
# more than the one speaker in nine that chance would.

# %%
rates = np.array([learning_rate(step, 36, chosen.warm_up) for step in range(36)])  # 4 epochs of 9 batches
rise, fall = np.arange(1, 5) / 4, np.cos(np.pi * np.arange(32) / 32 / 2) ** 2
assert abs(rates - np.concatenate([rise, fall])).max() < 1e-12, "four steps up, half a cosine down"
assert (losses[..., -1] < losses[..., 0]).all(), "the loss falls in every run"
assert (accuracies[..., -1] > 0.5).all(), "every run knows the speakers far better than chance"

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
# Heads that put out the same are a waste. A measure of that is how far apart they are, on average over the queries:
#
# $$d_{st} = \frac1M\sum_{i=1}^M \lVert f^s_i - f^t_i\rVert .$$
#
# The nearer, the more redundant. `redundancy` takes it over all real queries of some examples, in each layer. With
# finished runs, `primal-dual redundancy` does the same.

# %%
series, real, _ = data.test.take(torch.arange(64))
series = series.double()
models = {pair: load_run(Path(folder.name, "JapaneseVowels", *map(str, pair))).model.double() for pair in logs}
found = {pair: redundancy(model, series, real).outputs.numpy() for pair, model in models.items()}  # (layers, 4, 4)

# %% [markdown]
# **Claim.** This is the definition: here for the first layer of each attention, from the projections of its tokens on,
# one head and one example after the other.


# %%
def one_head(q, k, v, beta, scale):
    k, v = (torch.stack([group.mean(0) for group in x.split(scale)]) for x in (k, v))
    if beta is not None:
        q = (q - beta * k.mean(0)) / (k.var(0, correction=0) + 1e-5)
    return (q @ k.mT / k.shape[-1] ** 0.5).softmax(-1) @ v


def first_layer(model, betas, scales):
    """The output of each head at all real queries, (heads, M, features)."""
    kept = []
    with torch.no_grad(), model.blocks[0].qkv.register_forward_hook(lambda *call: kept.append(call[-1])):
        model(series, real)
    examples = kept[0].unflatten(-1, (3, 4, 16)).split(real.sum(1).tolist())
    outputs = [[one_head(*x[:, :, s].unbind(1), betas, scales[s]) for x in examples] for s in range(4)]
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
# Less redundant, then? Not so fast. From seed to seed the distances differ as much as from name to name, so that only
# pairs of one seed tell. And a head whose outputs are twice as long is twice as far from the others, and no less
# redundant. Exercise 2 takes the length out.
#
# ## Step 5: cost
#
# A block of width $E$ has projections of $4E^2$ weights and a feed-forward network of, say, $4E^2$. On $N$ tokens they
# take $2\cdot8NE^2$ operations. Logits, and weights times values, take $2\cdot2NE\bar n$, where $\bar n$ is how many
# keys a head has on average: $N$ in softmax attention and in Attention-BN, and in Attention-SH $\lceil N/s\rceil$ in a
# head of scale $s$. Together
#
# $$16NE^2 + 4NE\bar n .$$
#
# In training, the slopes in both factors of each product cost twice as much again. Only that of the block's input is
# not needed here, for which the first projections save $6NE^2$: in all $42NE^2 + 12NE\bar n$.


# %%
def operations(name, N, mode):
    E, scales = 512, (1, 1, 2, 2, 4, 4, 8, 8) if "sh" in name else (1,)
    n = np.mean([-(-N // scale) for scale in scales])
    return 42 * N * E**2 + 12 * N * E * n if mode == "training" else 16 * N * E**2 + 4 * N * E * n


# %% [markdown]
# **Claim.** This is what the products of matrices cost, as torch counts them in the block itself. For long sequences,
# scales 1, 2, 4 and 8 leave $\frac14(1+\frac12+\frac14+\frac18) = \frac{15}{32}$.

# %%
for name in attentions:
    for N in (16, 101, 1024):
        for mode in ("training", "inference"):
            assert efficiency.flops(name, N, mode) == operations(name, N, mode), f"{name}, {N} tokens, {mode}"
long = 2**22
share = efficiency.flops("sh", long, "inference") / efficiency.flops("softmax", long, "inference")
assert abs(share - 15 / 32) < 1e-3, "in the limit, Attention-SH takes 15/32 of the operations"

# %% [markdown]
# Operations are not seconds. On a clock, BN's statistics cost something that the count leaves out, and so does anything
# else that the machine does meanwhile. So the seconds are shown, and nothing is claimed of them.

# %%
measured = efficiency.run(device, lengths=(128, 256, 512), repeats=1)["rows"]
lengths = 2 ** np.arange(6, 18)
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for name, label, marker in (("bn", "softmax, bn", "s"), ("bn+sh", "sh, bn+sh", "^")):
    shares = [operations(name, N, "training") / operations("softmax", N, "training") for N in lengths]
    left.semilogx(lengths, shares, marker + "-", base=2, label=label)
for name, marker in zip(attentions, "osv^", strict=True):
    rows = [row for row in measured if (row["attention"], row["mode"]) == (name, "training")]
    right.semilogx([row["N"] for row in rows], [row["seconds_ratio"] for row in rows], marker + "-", base=2, label=name)
left.axhline(15 / 32, color="0.5", linestyle=":")
left.set(xlabel="tokens", ylabel="share of softmax's", ylim=0, title="Operations of a training step")
right.set(xlabel="tokens", ylim=0, title=f"Seconds of a training step, measured once on {device}")
left.legend()
right.legend()
plt.show()

# %% [markdown]
# Attention-SH pays where attention is most of the cost: beyond $N \approx 7E/2$ in training, where the two terms are
# equal. For shorter sequences, whatever is done to attention, the projections remain.
#
# ## Step 6: read the table

# %%
rows = table(runs)
print(markdown(rows))

# %% [markdown]
# A row is an attention; its accuracy is that of the last epoch, mean and deviation over the seeds. Is the difference to
# softmax more than chance? Runs of one seed start from the same weights and see the same batches. So compare them in
# pairs: what is luck for both cancels,
#
# $$\operatorname{var}(a-b) = \operatorname{var} a + \operatorname{var} b - 2\operatorname{cov}(a, b) .$$
#
# From $n$ differences with mean $\bar d$ and deviation $s$, Student's interval is $\bar d \pm t\,s/\sqrt n$. For three
# seeds the quantile has a closed form,
#
# $$t = \frac{2p-1}{\sqrt{2p(1-p)}} = 4.30 \quad\text{at}\quad p = 0.975 .$$
#
# **Claim.** The table's intervals are these, and the variance of a difference is the sum less twice the covariance.

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
    assert np.isclose(d.var(ddof=1), np.trace(covariance) - 2 * covariance[0, 1], atol=1e-10), "luck cancels in pairs"
assert abs(np.array(interval([1.0, 2.0, 6.0])) - [3, 3 - 4.302653 * 7**0.5 / 3**0.5, 9.572415]).max() < 1e-5, "again"

# %% [markdown]
# ### Why not 1.96?
#
# Because $s$ is itself a guess from few numbers. With three seeds, $\pm1.96\,s/\sqrt n$ holds the truth not 95 times in
# a hundred but $1.96/\sqrt{2+1.96^2}$, 81 times. Let us draw differences whose truth is zero, and count.

# %%
counts = np.arange(2, 13)
coverage = {"Student's t": [], "1.96": []}
for n in counts:
    draws = rng.standard_normal((100_000, n))
    size = abs(draws.mean(1)) / draws.std(1, ddof=1) * np.sqrt(n)
    for name, bound in zip(coverage, (t.ppf(p, n - 1), 1.96), strict=True):
        coverage[name].append((size < bound).mean())

# %% [markdown]
# **Claim.** Student's intervals hold what they promise for any number of seeds. The others do not.

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
left.set(ylabel="less softmax, percentage points", title="Mean and 95% interval; circles: the seeds")
for (name, each), marker in zip(coverage.items(), "os", strict=True):
    right.plot(counts, each, marker + "-", label=name)
right.axhline(0.95, color="0.5", linestyle=":")
right.set(xlabel="seeds", ylabel="share of intervals that hold the truth", title="What an interval is worth")
right.legend()
plt.show()

# %% [markdown]
# An interval that holds zero does not say that two attentions are alike. It says that three seeds of four epochs cannot
# tell. If three differences happen to agree, as counts of 370 cases may, it shrinks to a point, and that is no proof,
# either. And where three attentions are compared at 95%, about one table in seven is "significant" for nothing.
#
# ### Why not the best epoch?
#
# The column *best* is the highest accuracy of all epochs, chosen by the test split. Published numbers are often such.
# It cannot be lower than the last, and the more often one looks, the higher it gets. Take a model that has long stopped
# learning, right in 95% of cases, and test it ten times, each time on 370 new cases.
#
# **Claim.** The best of ten tests is over a percentage point too good, though nothing is learned. (On the same 370
# cases the tests are alike, so that it flatters less, but never the other way.)

# %%
tests = rng.binomial(370, 0.95, (100_000, 10)) / 370
flattery = 100 * (tests.max(1).mean() - 0.95)
print(f"best of ten tests: {flattery:+.2f} points; one test: {100 * (tests[:, 0].mean() - 0.95):+.2f}")
assert flattery > 1 and abs(tests[:, 0].mean() - 0.95) < 1e-3, "the best is biased, the last is not"
for run in runs:
    curve = accuracies[attentions.index(run["attention"]), run["seed"]]
    assert (run["test_accuracy"], run["best_test_epoch"]) == (curve[-1], curve.max()), "last and best of the log"

# %% [markdown]
# The same holds for whatever else is chosen by the test split: a learning rate, a $\beta$, the better of two seeds. So
# `--folds 3` trains and tests inside the training split. That is where recipes are tuned.
#
# So read a table in this order: how many seeds and test cases; the interval of the paired difference; whether it was
# tuned alike, and on what; whether it is the last epoch or the best. And then the means.
#
# ## Step 7: on a GPU
#
# Nothing of the above changes. Trainer and tools take a GPU where there is one. What pays there:
#
# | command | what it does |
# |---|---|
# | `primal-dual train digits` | images; without any download |
# | `primal-dual train cifar10 --data DIR --seeds 5` | a small vision transformer; its recipe has `bf16` |
# | `primal-dual train NAME --data DIR --bf16` | products in 16 bits, statistics and sums in 32 |
# | `primal-dual train NAME --data DIR --compile` | fuses BN's statistics with what is around them |
# | `primal-dual train NAME --data DIR --accumulate 4` | a batch in four parts, where memory is short |
# | `torchrun --nproc-per-node 8 -m primal_dual.cli train imagenet --data DIR` | a batch shared out to eight GPUs |
# | `python -m torch_impl.bench --device cuda` | speed and memory as ratios to torch's softmax attention |
#
# Small models on short series, as here, gain little: a GPU waits for work. A run that is interrupted goes on when the
# command is given again (exercise 1). A batch that is shared out has the gradient of the whole (exercise 3).
#
# ## Exercises
#
# ### Exercise 1: pull the plug
# Interrupt a run after its second epoch, and give it again. Does it end where it would have ended?

# %% [markdown]
# **Solution.** `say` is told each epoch, so it may raise. A checkpoint holds weights, optimizer and log. Random numbers
# are drawn anew in each epoch, from a seed of its own. So on a CPU the weights agree to the bit. (On a GPU sums may be
# taken in another order each time.) What is done is not done again: the third call says nothing.


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
assert [line["epoch"] for line in after] == [3, 4] and again == [], "it goes on, and is then done"
closeness = 0 if device == "cpu" else 1e-2
assert all(abs(ends[0][name] - ends[1][name]).max() <= closeness for name in ends[0]), "it ends where it would have"

# %% [markdown]
# ### Exercise 2: apart, or only long?
# Measure head redundancy in a way that does not change when all outputs are multiplied by a number. Do the attentions
# keep their order?

# %% [markdown]
# **Solution.** Divide the distances by the mean length of a head's output. What is twice as long is then as far apart
# as before. And now all attentions are alike, near $\sqrt2$: so far apart are vectors of one length in directions that
# have nothing to do with each other, since $\lVert a-b\rVert^2 = \lVert a\rVert^2 + \lVert b\rVert^2$ there. What
# BN changed here is how long the outputs are. After a whole training it may be otherwise: measure.


# %%
def relative_distance(f):
    """f (heads, M, features) -> the mean distance of two heads by the mean length of an output."""
    distances = [(f[s] - f[t]).norm(dim=-1).mean() for s, t in combinations(range(len(f)), 2)]
    return (torch.stack(distances).mean() / f.norm(dim=-1).mean()).item()


# %%
absolute, relative = {}, {}
for name, primal in primals.items():
    outputs = [first_layer(models[name, seed], *primal) for seed in seeds]
    absolute[name] = [found[name, seed][0, others].mean() for seed in seeds]
    relative[name] = [relative_distance(f) for f in outputs]
    ratios = absolute[name] / np.array([f.norm(dim=-1).mean().item() for f in outputs])
    assert abs(relative[name] - ratios).max() < 1e-12, "the distance of step 4, by the mean length"
    assert np.isclose(relative_distance(5 * outputs[0]), relative[name][0]), "which does not see the scale"
    print(f"{name:8}", *(f"{each:.3f} -> {ratio:.2f} " for each, ratio in zip(absolute[name], ratios, strict=True)))
    assert abs(ratios - np.sqrt(2)).max() < 0.15, "unrelated directions"
gains = [np.array(each["bn"]) / each["softmax"] - 1 for each in (absolute, relative)]
assert (abs(gains[1]) < gains[0] / 2).all(), "most of what BN gained was length"

# %% [markdown]
# ### Exercise 3: share out a batch
# 270 utterances in batches of 16 leave a last one of 14. Four processes get 4, 4, 3 and 3 of it. Each takes the mean
# loss of its own. How must the gradients be put together, so that they are that of the whole batch?

# %% [markdown]
# **Solution.** The mean of all is the sum of the parts' means, each by its share of the cases: $\frac4{14}$ and
# $\frac3{14}$, not $\frac14$. That holds where examples do not see each other: with `norm="layer"`. Batch normalisation
# *of the model* takes statistics over the batch, and would have to share them, as `SyncBatchNorm` does on GPUs.
# Attention-BN takes them over the keys of each example, and has no such trouble.

# %%
torch.manual_seed(0)
options = dict(primal="bn+sh", layers=1, width=16, num_heads=4, feedforward=32, dropout=0.0)
model = TimeSeriesEncoder(**data.sizes, **options, norm="layer").double()
last = torch.arange(256, 270)
parts = [last[rank::4] for rank in range(4)]


def slopes(parts, shares):
    cases = [data.train.take(part) for part in parts]
    means = [F.cross_entropy(model(x.double(), real), labels) for x, real, labels in cases]
    loss = sum(share * mean for share, mean in zip(shares, means, strict=True))
    return torch.cat([slope.flatten() for slope in torch.autograd.grad(loss, list(model.parameters()))])


# %%
whole = slopes([last], [1])
assert [len(part) for part in parts] == [4, 4, 3, 3]
assert abs(slopes(parts, [len(part) / 14 for part in parts]) - whole).max() < 1e-12, "parts by their shares"
assert abs(slopes(parts, [1 / 4] * 4) - whole).max() > 1e-4, "a plain mean over processes is another gradient"

# %% [markdown]
# This closes the series. You began with a line through points and have come to attentions that train on GPUs, each
# the support vector expansion of a regression that you can write down, solve and certify. What is left is yours: a
# primal that nobody has written yet. [Tutorial 7](07_invent_your_own.ipynb) has the tools, and
# [tutorial 1](01_svr_in_pictures.ipynb) the beginning.
