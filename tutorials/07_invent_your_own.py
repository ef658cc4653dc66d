# %% [markdown]
# # 7. Invent your own
#
# A primal has parts: a kernel, a transform, a support. Write a part, and the dual gives its attention. Here you write a
# kernel and a transform that the package does not have, in about ten lines each. You get their attention in NumPy and
# in PyTorch, check that primal, dual and attention are the same function, and train a transformer with them on spoken
# vowels.
#
# You will learn
# - which conditions a new kernel and a new transform must meet, and how to check them;
# - how to test a new attention: values, certificate, gradients, two libraries;
# - how to train with it, and what a few epochs can and cannot show.

# %%
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import autograd.numpy as np
import matplotlib.pyplot as plt
import torch
from autograd import grad

# %%
import torch_impl
from primal_dual import Primal, attention, attention_weights, certify, plots, solve_dual, solve_primal
from primal_dual.io.datasets import japanese_vowels
from torch_impl.analysis.accuracy_table import table
from torch_impl.data.series import load_series
from torch_impl.models.encoders import TimeSeriesEncoder
from torch_impl.training.recipes.benchmarks import recipe
from torch_impl.training.runs.run_folder import folder_of_run
from torch_impl.training.runs.trainer import train
from torch_impl.training.trained.finished_run import load_run

# %%
plt.style.use("tableau-colorblind10")
keys, targets = japanese_vowels()
N, D = keys.shape

# %% [markdown]
# ## Step 1: a kernel
#
# A logit $q\cdot k$ grows without bound if its vectors get longer. Let us take features as angles instead, and compare
# two angles by the cosine of their difference. For one angle $x$, $e^{\kappa\cos(x - y)}$ is the density of the von
# Mises distribution around $y$, up to a factor; $\kappa$ says how narrow it is. For $D$ angles
#
# $$\langle\Phi(x),\Phi(y)\rangle = \exp\Big(\kappa\sum_d\cos(x_d-y_d)\Big), \qquad
#   \cos(x-y) = \cos x\cos y + \sin x\sin y .$$
#
# This is a kernel: a sum of products $\phi(x)\,\phi(y)$ is a kernel, and so is the exponential of a kernel. A kernel
# with positive values is written by its logarithm, in the method `log_gram`.


# %%
@dataclass(frozen=True)
class VonMises:
    """<Phi(x), Phi(y)> = exp(kappa sum_d cos(x_d - y_d))."""

    kappa: float = 1.0

    def log_gram(self, x, y):
        y = np.swapaxes(y, -1, -2)
        return self.kappa * (np.cos(x) @ np.cos(y) + np.sin(x) @ np.sin(y))


angular = Primal(VonMises())

# %% [markdown]
# **Claim.** The method computes the formula, the kernel is positive definite on the frames of a vowel, and no logit is
# larger than $\kappa D$ in absolute value.

# %%
cosines = np.cos(keys[:, None] - keys[None]).sum(-1)
assert abs(VonMises().log_gram(keys, keys) - cosines).max() < 1e-13, "the kernel is the formula"
assert np.linalg.eigvalsh(np.exp(cosines - D)).min() > 0, "it is positive definite"
assert abs(VonMises().log_gram(1e6 * keys, keys)).max() <= D, "logits are bounded, however large the features"

# %% [markdown]
# ## Step 2: a transform
#
# Batch normalisation gives each feature the standard deviation 1. But features are correlated, and a direction in which
# many of them vary together counts many times. Whitening removes that, too. With the mean $\mu$ and the covariance
# $\Sigma$ of the training keys, a lower triangular matrix $L$ and a small number, again called eps,
#
# $$T x = L^{-1}(x-\mu), \qquad L L^\top = \Sigma + \text{eps}\, I .$$
#
# A transform has a method `fit(keys, valid)`. It takes the keys, (..., n, D), and a padding mask, (..., n), which is
# True for the keys that are not padding. It returns the function that maps $x$ to $Tx$.


# %%
@dataclass(frozen=True)
class Whitening:
    """T x = L^-1 (x - mu), L L' = the covariance of the training keys + eps I."""

    eps: float = 0.1

    def fit(self, keys, valid):
        weights = (valid / valid.sum(-1, keepdims=True))[..., None]
        mu = (weights * keys).sum(-2, keepdims=True)
        covariance = np.swapaxes(weights * (keys - mu), -1, -2) @ (keys - mu)
        L = np.linalg.cholesky(covariance + self.eps * np.eye(keys.shape[-1]))
        return lambda x: (x - mu) @ np.swapaxes(np.linalg.inv(L), -1, -2)


# %% [markdown]
# **Claim.** The whitened keys have the covariance $L^{-1}\Sigma L^{-\top} = I - \text{eps}\,L^{-1}L^{-\top}$, which
# tends to the identity matrix as eps tends to 0. In that limit, whitened softmax attention is the same for the inputs
# $x$ and $Ax + c$, whatever the invertible matrix $A$ that mixes the features, and whatever the vector $c$.

# %%
covariance = np.cov(keys.T, bias=True)
inverse = np.linalg.inv(np.linalg.cholesky(covariance + 0.1 * np.eye(D)))
whitened = Whitening().fit(keys, np.ones(N, bool))(keys)
assert abs(np.cov(whitened.T, bias=True) - (np.eye(D) - 0.1 * inverse @ inverse.T)).max() < 1e-12, "nearly white"
A, c = np.random.default_rng(0).standard_normal((D, D)), np.arange(D)
mixed = keys @ A.T + c
strict = Primal(transform=Whitening(eps=1e-13))
change = attention_weights(strict, mixed, mixed) - attention_weights(strict, keys, keys)
assert abs(change).max() < 1e-6, "whitened attention does not depend on how features are mixed"

# %%
figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
x = np.linspace(-4, 10, 300)[:, None]
axes[0].plot(x, np.exp(x * 2), label="exp(xy), softmax")
axes[0].plot(x, np.exp(np.cos(x - 2)), label="exp(cos(x − y)), von Mises")
axes[0].set(xlabel="feature x", ylabel="kernel with a key y = 2", ylim=(0, 5), title="A kernel of angles")
axes[0].legend(fontsize="small")
normalised = (keys - keys.mean(0)) / keys.std(0)
for ax, rows, title in zip(axes[1:], (normalised, whitened), ("batch normalisation", "whitening"), strict=True):
    image = ax.imshow(np.cov(rows.T, bias=True), cmap="PuOr", vmin=-1, vmax=1)
    ax.set(title=f"Keys after {title}", xlabel="feature", ylabel="feature")
figure.colorbar(image, ax=axes, label="covariance")
plt.show()

# %% [markdown]
# ## Step 3: primal, dual and attention
#
# Nothing else has to be written. Solvers, attention and certificates accept the new parts, each alone or both together.

# %%
primals = {
    "softmax": Primal(),
    "von Mises": angular,
    "whitening": Primal(transform=Whitening()),
    "both": Primal(VonMises(), transform=Whitening()),
}
both = primals["both"]
C = 10 * np.median(np.exp(np.cos(whitened[:, None] - whitened[None]).sum(-1)).sum(1))
primal = solve_primal(both, keys, targets, C=C, epsilon=0.1)
dual = solve_dual(both, keys, targets, C=C, epsilon=0.1)
print(f"primal value {primal.value:.12g}, dual value {dual.value:.12g}")

# %% [markdown]
# **Claim.** Primal, dual and attention are the same function. We compare them with the expansion, in which kernel and
# whitened keys are written out.

# %%
kernel = np.exp(np.cos(whitened[:, None] - whitened[None]).sum(-1))
h = kernel.sum(1, keepdims=True)
f = kernel / h @ ((dual.alpha - dual.alpha_tilde) / h)
assert abs(primal.value / dual.value - 1) < 1e-10, "primal and dual have the same value"
assert abs(primal.predict(keys) - f).max() < 1e-8, "the primal's function is the expansion"
assert abs(attention(both, keys, keys, dual.values) - f).max() < 1e-11, "the expansion is the attention"

# %% [markdown]
# **Claim.** Any values are the optimum of an SVR; here we take random values. Their SVR has the targets $f(k_j)$. With
# $K_{ij} = \langle\Phi(Tk_i),\Phi(Tk_j)\rangle$, its primal value $P$ and its dual value $Q$ are
# $P = Q = \frac12\sum_{i,j} v_i\cdot v_j\, K_{ij}$.

# %%
values = np.random.default_rng(1).standard_normal((N, 3))
certificate = certify(both, keys, values)
half_square = (values * (kernel @ values)).sum() / 2
assert abs(certificate.relative_gap) < 1e-12, "any values are the optimum of an SVR"
assert np.isclose(certificate.primal_value * np.exp(certificate.log_scale), half_square, rtol=1e-11), "P"
assert abs(certificate.targets - kernel @ values / h).max() < 1e-12, "whose targets are the outputs at the keys"

# %%
figure, axes = plt.subplots(1, 4, figsize=(13, 3.6), layout="constrained", sharey=True)
for ax, (name, each) in zip(axes, primals.items(), strict=True):
    plots.attention_map(each, keys, largest=0.4, axes=ax, colorbar=False, xlabel="key (frame)", title=name)
axes[0].set_ylabel("query (frame)")
figure.colorbar(axes[0].images[0], ax=axes, label="attention weight")
figure.suptitle("Four primals, four attentions to the frames of one vowel")
plt.show()

# %% [markdown]
# ## Step 4: PyTorch
#
# Register a function that does the same with tensors, and the part works in `torch_impl` too: with batches, masks,
# gradients, on a GPU. For a kernel, the function takes `(kernel, x, y)`. For a transform, it takes
# `(transform, keys, valid)`, where `valid` is `None` if there is no padding. (In torch, booleans that are divided
# become float32; `valid.to(keys)` gives them the dtype of the keys first.)


# %%
@torch_impl.register(VonMises)
def von_mises(kernel, x, y):
    return kernel.kappa * (x.cos() @ y.cos().mT + x.sin() @ y.sin().mT)


@torch_impl.register(Whitening)
def whitening(transform, keys, valid):
    valid = torch.ones_like(keys[..., 0]) if valid is None else valid.to(keys)
    weights = (valid / valid.sum(-1, keepdim=True))[..., None]
    mu = (weights * keys).sum(-2, keepdim=True)
    covariance = (weights * (keys - mu)).mT @ (keys - mu)
    L = torch.linalg.cholesky(covariance + transform.eps * torch.eye(keys.shape[-1]).to(keys))
    return lambda x: torch.linalg.solve_triangular(L, (x - mu).mT, upper=False).mT


# %% [markdown]
# **Claim.** In float64, both libraries give the same outputs and the same gradients, for a batch of two series, of
# which the second is padded. For the second, the formula with only the keys that are not padding gives the same.

# %%
rng = np.random.default_rng(2)
q, k, v, weight = rng.standard_normal((4, 2, 11, 5))
key_mask = np.arange(11) < np.array([[11], [7]])


def score(q, k, v, primal):
    return (weight * attention(primal, q, k, v, key_mask)).sum()


for name, each in primals.items():
    f = attention(each, q, k, v, key_mask)
    slopes = [grad(score, i)(q, k, v, each) for i in range(3)]
    tensors = [torch.tensor(x, requires_grad=True) for x in (q, k, v)]
    g = torch_impl.attention(each, *tensors, torch.tensor(key_mask))
    (torch.tensor(weight) * g).sum().backward()
    assert abs(f - g.detach().numpy()).max() < 1e-12, f"{name}: values are those of NumPy"
    for slope, tensor in zip(slopes, tensors, strict=True):
        assert abs(slope - tensor.grad.numpy()).max() < 1e-10, f"{name}: gradients are those of autograd"

# %%
short = k[1, :7]
inverse = np.linalg.inv(np.linalg.cholesky(np.cov(short.T, bias=True) + 0.1 * np.eye(5)))
Tq, Tk = (q[1] - short.mean(0)) @ inverse.T, (short - short.mean(0)) @ inverse.T
kernel = np.exp(np.cos(Tq[:, None] - Tk[None]).sum(-1))
by_hand = kernel @ v[1, :7] / kernel.sum(1, keepdims=True)
assert abs(attention(both, q, k, v, key_mask)[1] - by_hand).max() < 1e-12, "statistics are those of the valid keys"

# %% [markdown]
# A finite difference tests the gradient without the derivatives of either library: take a random direction, and compute
# the outputs a small step forward and a small step backward.


# %%
direction, step = rng.standard_normal(k.shape), 1e-5
rise = score(q, k + step * direction, v, both) - score(q, k - step * direction, v, both)
slope = (grad(score, 1)(q, k, v, both) * direction).sum()
assert np.isclose(rise / (2 * step), slope, rtol=1e-7), "the gradient is the slope"

# %% [markdown]
# ## Step 5: train
#
# The data set is JapaneseVowels: nine speakers say a vowel, and a transformer of two layers is to recognise the
# speaker. It is trained on 270 utterances and tested on 370; frames are standardised by the training split. All
# attentions are trained with the same few epochs, the same learning rate and the same seeds. These were chosen
# beforehand, to keep the tutorial short. Nothing was chosen by the test split.

# %%
data = load_series("JapaneseVowels")


def trained(primal, seed, epochs=4):
    """The loss of each epoch, and which test examples are classified correctly."""
    torch.manual_seed(seed)
    model = TimeSeriesEncoder(**data.sizes, primal=primal, layers=2, width=64, num_heads=8)
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=1e-3), []
    for index in (batch for _ in range(epochs) for batch in torch.randperm(len(data.train)).split(15)):
        series, key_mask, labels = data.train.take(index)
        loss = torch.nn.functional.cross_entropy(model(series, key_mask), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    answers = model.eval()(data.test.inputs, data.test.key_mask).argmax(-1)
    return np.reshape(losses, (epochs, -1)).mean(1), (answers == data.test.labels).numpy()


# %%
threads = torch.get_num_threads()
torch.set_num_threads(1)  # as fast for tensors this small
runs = {name: [trained(each, seed) for seed in range(3)] for name, each in primals.items()}
torch.set_num_threads(threads)
losses, right = ({name: np.array([run[i] for run in each]) for name, each in runs.items()} for i in (0, 1))

# %% [markdown]
# **Claim.** Each attention learns: its loss falls in every run, and it recognises far more speakers than the one in
# nine that guessing would.

# %%
for name in primals:
    accuracy = right[name].mean(1)
    print(f"{name:10} {accuracy.mean():.1%}, by seed {', '.join(f'{each:.1%}' for each in accuracy)}")
    assert (losses[name][:, -1] < losses[name][:, 0] / 2).all(), f"{name}: the loss falls"
    assert (accuracy > 0.8).all(), f"{name}: it recognises the speakers"

# %%
figure, (left, right_) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for place, (name, marker) in enumerate(zip(primals, "osv^", strict=True)):
    left.semilogy(np.arange(1, 5), losses[name].mean(0), marker + "-", label=name)
    accuracy = right[name].mean(1)
    noise = 1.96 * np.sqrt(accuracy.mean() * (1 - accuracy.mean()) / len(data.test))
    right_.errorbar(place, accuracy.mean(), noise, color="0.5", capsize=4)
    right_.plot(np.full(3, place), accuracy, marker, color=f"C{place}", fillstyle="none", markersize=8)
left.set(xlabel="epoch", ylabel="training loss, mean of 3 seeds", title="All of them learn", xticks=[1, 2, 3, 4])
left.legend()
right_.set_xticks(range(4), list(primals))
right_.set(ylabel="test accuracy", title="Three seeds; bar: 95%, for 370 test examples")
plt.show()

# %% [markdown]
# ### What this shows, and what not
#
# It shows that the new attentions can be trained, at once, with settings that were made for another attention. The
# curves nearly coincide: on this easy data set, the choice of attention hardly changes the loss in four epochs. It does
# not show that one attention is better. A test on 370 examples measures an accuracy $p$ with a standard error of
# $\sqrt{p(1-p)/370}$. And three seeds say little about the spread between seeds: the 95% interval around a mean of
# three extends 4.3 standard errors to each side, and the standard error is itself only an estimate; if three seeds
# agree by accident, it is zero. Last, four epochs show which attention learns fast at first, not which is best in the
# end.
#
# **Claim.** The means differ by less than the 95% range of a difference that is due to chance alone.

# %%
means = np.array([right[name].mean() for name in primals])
chance = 1.96 * np.sqrt(2 * means.mean() * (1 - means.mean()) / len(data.test))
for name in list(primals)[1:]:
    difference = (right[name].mean(1) - right["softmax"].mean(1)) * 100
    interval = 4.30 * difference.std(ddof=1) / np.sqrt(3)
    print(f"{name} - softmax: {difference.mean():+.2f} points, 95% by the seeds ± {interval:.2f}")
print(f"95% of differences by chance, for 370 test examples: ± {100 * chance:.2f} points")
assert np.ptp(means) < chance, "nothing here ranks the attentions"

# %% [markdown]
# For a ranking, train to the end, tune all attentions in the same way on folds of the training split, take five seeds
# or more, compare runs of the same seed in pairs, and use more than one data set. `primal-dual train` helps with that.

# %% [markdown]
# ### The whole way in one cell
#
# The trainer takes a primal wherever it takes a name. It stores the run under the text of the primal, so that the table
# of results, `primal-dual evaluate` and `primal-dual redundancy` find it again. From the command line, a primal in a
# file of yours is `--attention my_file.py:angular`.

# %%
certificate = certify(angular, keys, targets)
short = recipe("JapaneseVowels", epochs=2, layers=1, width=32)
with TemporaryDirectory() as folder:
    results = [train(short, each, 0, data, folder) for each in ("softmax", angular)]
    kept = load_run(folder_of_run(folder, data.name, str(angular), 0))
rows = table(results)
for row in rows:
    print(f"{row['mean']:.1f}% of the speakers are recognised by {row['attention']}")

# %%
assert abs(certificate.relative_gap) < 1e-12, "any values are the optimum of an SVR of this kernel"
assert [row["attention"] for row in rows] == ["softmax", str(angular)], "the table has both"
assert set(kept.model.blocks[0].heads) == {angular}, "each head of the run that was kept has the primal"

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: blind to the sign
# Write the kernel $\cosh(x\cdot y/\sqrt D)$, as `log_gram`, without overflow, and for both libraries. What does its
# attention do?

# %% [markdown]
# **Solution.** With $a = x\cdot y/\sqrt D$, $\log\cosh a = \log(e^a + e^{-a}) - \log 2$, by `logaddexp`. It is a
# kernel: the even terms of the power series of the exponential. A query attends to keys that are similar to it, and to
# keys that are similar to its negative: its terms are the sums of those of softmax attention for $q$ and for $-q$.


# %%
@dataclass(frozen=True)
class Cosh:
    """<Phi(x), Phi(y)> = cosh(x.y / sqrt(D))."""

    def log_gram(self, x, y):
        a = x @ np.swapaxes(y, -1, -2) / np.sqrt(x.shape[-1])
        return np.logaddexp(a, -a) - np.log(2.0)


@torch_impl.register(Cosh)
def cosh(kernel, x, y):
    a = x @ y.mT * x.shape[-1] ** -0.5
    return torch.logaddexp(a, -a) - np.log(2.0)


# %%
a = keys @ keys.T / np.sqrt(D)
by_hand = (np.exp(a) + np.exp(-a)) @ targets / (np.exp(a) + np.exp(-a)).sum(1, keepdims=True)
f = attention(Primal(Cosh()), keys, keys, targets)
g = torch_impl.attention(Primal(Cosh()), *(torch.tensor(x) for x in (keys, keys, targets)))
assert abs(f - by_hand).max() < 1e-12 and abs(f - g.numpy()).max() < 1e-12, "both rows together"
assert abs(attention(Primal(Cosh()), -keys, keys, targets) - f).max() < 1e-12, "a query and its opposite agree"
assert abs(certify(Primal(Cosh()), keys, targets).relative_gap) < 1e-12, "it is an SVR"
assert np.isfinite(attention(Primal(Cosh()), 1e3 * keys, keys, targets)).all(), "nothing overflows"

# %% [markdown]
# ### Exercise 2: a support
# A support says which keys train the SVR of which query. Its method `sees(i, j)` takes arrays of positions that
# broadcast. Write a support in which each query sees its neighbours and, always, the first few keys. Combine it with
# whitening.

# %% [markdown]
# **Solution.** The method works for tensors as it is, so the method itself can be registered. Each query has an SVR of
# its own, and so a covariance of its own: that of the keys that it sees.


# %%
@dataclass(frozen=True)
class Anchored:
    """|i - j| <= radius, or j < anchors."""

    radius: int
    anchors: int

    def sees(self, i, j):
        return (abs(i - j) <= self.radius) | (j < self.anchors)


torch_impl.register(Anchored)(Anchored.sees)
anchored = Primal(transform=Whitening(), support=Anchored(2, 3))

# %%
f = attention(anchored, keys, keys, targets)
for i in range(N):
    seen = [j for j in range(N) if abs(i - j) <= 2 or j < 3]
    mu, covariance = keys[seen].mean(0), np.cov(keys[seen].T, bias=True)
    logits = (keys[i] - mu) @ np.linalg.inv(covariance + 0.1 * np.eye(D)) @ (keys[seen] - mu).T / np.sqrt(D)
    row = np.exp(logits - logits.max())
    assert abs(f[i] - row @ targets[seen] / row.sum()).max() < 1e-11, "each query whitens what it sees"
g = torch_impl.attention(anchored, *(torch.tensor(x) for x in (keys, keys, targets)))
assert abs(f - g.numpy()).max() < 1e-11, "in torch, too"
assert certify(anchored, keys, targets).relative_gap < 1e-12, "the worst of its 25 SVRs certifies"

# %% [markdown]
# ### Exercise 3: a function that is not a kernel
# Some attentions weight keys by the sigmoid, $1/(1+e^{-q\cdot k})$. Normalised, these are valid attention weights. Is
# this attention the solution of an SVR?

# %% [markdown]
# **Solution.** Not of an SVR of this kind. There is no $\Phi$ with
# $\langle\Phi(x),\Phi(y)\rangle = 1/(1+e^{-x\cdot y})$: a matrix of inner products of the keys has no negative
# eigenvalue, and this matrix has one. `attention` accepts the function, the solver does not.


# %%
@dataclass(frozen=True)
class Sigmoid:
    """1 / (1 + exp(-x.y)): positive and symmetric, but not positive semidefinite."""

    def log_gram(self, x, y):
        return -np.logaddexp(0.0, -x @ np.swapaxes(y, -1, -2))


refusal = ""
try:
    solve_dual(Primal(Sigmoid()), keys, targets, C=1.0, epsilon=0.1)
except ValueError as error:
    refusal = str(error)
print(refusal)
assert np.linalg.eigvalsh(1 / (1 + np.exp(-keys @ keys.T))).min() < -0.1, "an eigenvalue is negative"
assert "positive semidefinite" in refusal, "so there is no SVR, and the solver says why"

# %% [markdown]
# Next: [8. From here to a GPU](08_from_here_to_a_gpu.ipynb). You have come from ridge regression to an attention of
# your own. The next tutorial shows how to train it at full length, and how to read the results honestly.
#
# Try it in the browser: run `primal-dual explore`, then open [another kernel](http://127.0.0.1:5006/?kernel=gaussian&C=100).
