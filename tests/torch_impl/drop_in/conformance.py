"""What our attentions do in Hugging Face's models: small random ones, compared with what must not change them.

Each cell of the table in torch_impl/drop_in/conformance.md is computed here; the tests compare it with the file.
Run `python -m tests.torch_impl.drop_in.conformance` to write the file.
"""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.utils import logging

import primal_dual
import torch_impl
from primal_dual import Mask, supports
from tests.on_device import paused
from torch_impl.drop_in import register_transformers, replace_attention
from torch_impl.recorder import recording

FILE = Path(torch_impl.__file__).parent / "drop_in" / "conformance.md"
ATTENTIONS = ("softmax", "bn", "sh", "bn+sh", "causal-bn")
ENCODERS = [
    "albert",
    "bert",
    "camembert",
    "data2vec-text",
    "distilbert",
    "electra",
    "ernie",
    "esm",
    "modernbert",
    "roberta",
    "xlm-roberta",
    "bloom",
    "mpnet",
    "nystromformer",
    "roformer",
]
OF_IMAGES = [
    "clip_vision_model",
    "deit",
    "dinov2",
    "ijepa",
    "siglip_vision_model",
    "vit",
    "vit_msn",
]
DECODERS = [
    "biogpt",
    "cohere",
    "gemma",
    "gemma2",
    "gpt2",
    "gpt_neox",
    "gptj",
    "granite",
    "llama",
    "mistral",
    "olmo",
    "opt",
    "phi",
    "phi3",
    "qwen3",
    "smollm3",
    "starcoder2",
    "xglm",
]
PAIRS = [
    "bart",
    "blenderbot",
    "m2m_100",
    "marian",
    "mbart",
    "nllb-moe",
    "pegasus",
    "pegasus_x",
    "plbart",
    "t5",
]
MODELS = [*ENCODERS, *OF_IMAGES, *DECODERS, *PAIRS]

TOKENS = dict(vocab_size=40, pad_token_id=0, bos_token_id=1, eos_token_id=2, max_position_embeddings=64)
SIZES = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=20)
SIDES = {
    f"{part}_{what}": n
    for part in ("encoder", "decoder")
    for what, n in dict(layers=1, attention_heads=4, ffn_dim=20).items()
}
OWN = {
    "albert": dict(embedding_size=16),
    "distilbert": dict(dim=16, n_layers=1, n_heads=4, hidden_dim=20),
    "electra": dict(embedding_size=16),
    "esm": dict(position_embedding_type="rotary", mask_token_id=3, token_dropout=False),
    "gemma": dict(head_dim=4, num_key_value_heads=2),
    "gemma2": dict(head_dim=4, num_key_value_heads=2),
    "gpt2": dict(n_embd=16, n_layer=1, n_head=4, n_positions=64),
    "gptj": dict(n_embd=16, n_layer=1, n_head=4, rotary_dim=2),
    "mistral": dict(sliding_window=4, num_key_value_heads=2),
    "modernbert": dict(cls_token_id=1, sep_token_id=2, local_attention=4, num_hidden_layers=2),
    "opt": dict(ffn_dim=20, word_embed_proj_dim=16),
    "phi": dict(partial_rotary_factor=0.5),
    "qwen3": dict(head_dim=4, num_key_value_heads=2),
    "t5": dict(d_kv=4, d_ff=20, num_layers=1, num_heads=4),
    "xglm": dict(d_model=16, num_layers=1, attention_heads=4, ffn_dim=20),
}


def build(kind):
    """A model with random weights in float64, without dropout."""
    if kind in PAIRS:
        sizes = dict(TOKENS, d_model=16, **SIDES, decoder_start_token_id=1, forced_eos_token_id=None)
    elif kind in OF_IMAGES:
        sizes = dict(SIZES, image_size=12, patch_size=4)
    else:
        sizes = dict(TOKENS, **SIZES)
    config = CONFIG_MAPPING[kind](**{**sizes, **OWN.get(kind, {})})
    for name, value in vars(config).items():
        if ("drop" in name or "pdrop" in name) and isinstance(value, float):
            setattr(config, name, 0.0)
    torch.manual_seed(0)
    maker = AutoModelForCausalLM if kind in DECODERS else AutoModelForSeq2SeqLM if kind in PAIRS else AutoModel
    model = maker.from_config(config, dtype=torch.float32)
    for p in model.parameters():
        if p.ndim > 1 and p.requires_grad:  # other positions are made again when a model is loaded
            nn.init.normal_(p, std=0.2)
    return model.double().eval()


def inputs_of(kind):
    torch.manual_seed(0)
    if kind in OF_IMAGES:
        return dict(pixel_values=torch.randn(2, 3, 12, 12).double())
    ids = torch.randint(3, 40, (2, 9))
    return dict(input_ids=ids, decoder_input_ids=ids[:, :5]) if kind in PAIRS else dict(input_ids=ids)


def output(model, inputs):
    with torch.no_grad():
        return model(**inputs)[0]


def plain(kind, name, model, original):
    """Softmax is the library's own; of others, each call is what primal_dual makes of it, by the definition."""
    inputs = inputs_of(kind)
    with recording(model) as calls:
        found = output(model, inputs)
    assert calls
    if name == "softmax":
        return verdict(found, output(original, inputs))
    return worst(verdict(evaluated(call), defined(call)) for _, call in calls)


def evaluated(call):
    options = dict(query_mask=call.query_mask, attn_mask=call.attn_mask, is_causal=call.is_causal)
    return torch_impl.attention(call.primal, call.q, call.k, call.v, call.key_mask, **options)


def defined(call):
    """The call by NumPy, a query's SVR after another: its masks are supports there."""
    (B, H, M), N = call.q.shape[:3], call.k.shape[2]
    seen = np.ones((B, H, M, N), bool) if call.attn_mask is None else call.attn_mask.expand(B, H, M, N).cpu().numpy()
    f = np.zeros((B, H, M, call.v.shape[-1]))
    for b, h in np.ndindex(B, H):
        primal = call.primal.primals[h]
        table = seen[b, h] & supports.visibility_table(primal.support, np.arange(M), N)
        table &= np.arange(N) <= np.arange(M)[:, None] if call.is_causal else True
        q, k, v = (x[b, h].cpu().numpy() for x in (call.q, call.k, call.v))
        f[b, h] = primal_dual.attention(replace(primal, support=Mask(table)), q, k, v)
    return torch.tensor(f)


def padded(kind, name, model, original):
    """Padding on the right, whatever its tokens, changes nothing."""
    if kind in OF_IMAGES:
        return "-"
    inputs = inputs_of(kind)
    ids, more = inputs["input_ids"], torch.randint(3, 40, (2, 4))
    mask = (torch.arange(13) < 9).long().expand(2, -1)
    found = output(model, {**inputs, "input_ids": torch.cat([ids, more], 1), "attention_mask": mask})
    expected = output(model, inputs)
    return verdict(found[:, : expected.shape[1]], expected)


def causal(kind, name, model, original):
    """Later tokens of what is generated change nothing."""
    if kind not in (*DECODERS, *PAIRS):
        return "-"
    inputs = inputs_of(kind)
    ids = "decoder_input_ids" if kind in PAIRS else "input_ids"
    later = torch.cat([inputs[ids][:, :3], 42 - inputs[ids][:, 3:]], 1)
    return verdict(output(model, {**inputs, ids: later})[:, :3], output(model, inputs)[:, :3])


def generated(kind, name, model, original):
    """A cache, and prompts of unequal length in one batch, change nothing."""
    if kind not in (*DECODERS, *PAIRS):
        return "-"
    prompts = [torch.randint(3, 40, (1, n)) for n in (4, 7)]
    ids, mask = torch.randint(3, 40, (2, 7)), torch.ones(2, 7).long()
    for row, prompt in enumerate(prompts):
        n = prompt.shape[1]
        real = slice(7 - n, 7) if kind in DECODERS else slice(0, n)
        mask[row], ids[row, real] = 0, prompt[0]
        mask[row, real] = 1
    options = dict(
        do_sample=False, max_new_tokens=3, min_new_tokens=3, output_logits=True, return_dict_in_generate=True
    )
    together = torch.stack(model.generate(ids, attention_mask=mask, **options).logits, 1)
    alone = [
        torch.stack(model.generate(x, attention_mask=torch.ones_like(x), use_cache=False, **options).logits, 1)
        for x in prompts
    ]
    return verdict(together, torch.cat(alone))


def checkpointed(kind, name, model, original):
    """Gradients with checkpoints are those without."""
    if not model.supports_gradient_checkpointing:
        return "-"
    gradients = []
    for on in (False, True):
        trained = copy.deepcopy(model).train()
        if on:
            trained.activation_checkpointing_enable()
        inputs = inputs_of(kind) if kind in OF_IMAGES else {**inputs_of(kind), "use_cache": False}
        trained(**inputs)[0].square().sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in trained.parameters() if p.grad is not None]))
    return verdict(*gradients)


def in_bfloat16(kind, name, model, original):
    """As near to float64 as bfloat16 is."""
    half = copy.deepcopy(model).bfloat16()
    inputs = {key: x.bfloat16() if x.is_floating_point() else x for key, x in inputs_of(kind).items()}
    found, expected = output(half, inputs).double(), output(model, inputs_of(kind))
    error = ((found - expected).norm() / expected.norm()).item()
    return "right" if error <= 0.1 else f"off by {error:.0e}"


def reloaded(kind, name, model, original):
    """A model that was saved comes back the same."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        again = type(model).from_pretrained(folder, dtype=torch.float64).eval()
    return verdict(output(again, inputs_of(kind)), output(model, inputs_of(kind)))


def compiled(kind, name, model, original):
    """A graph that torch.compile captures whole (backend "eager") gives the same."""
    torch.compiler.reset()
    inputs = inputs_in_a_graph(kind)
    with paused():
        found = output(torch.compile(model, backend="eager", fullgraph=True), inputs)
    return verdict(found, output(model, inputs))


def exported(kind, name, model, original):
    """The program that torch.export.export makes gives the same."""
    inputs = inputs_in_a_graph(kind)
    with torch.no_grad():
        program = torch.export.export(model, (), inputs)
    return verdict(output(program.module(), inputs), output(model, inputs))


def inputs_in_a_graph(kind):
    """A cache of keys is no tensor."""
    return inputs_of(kind) if kind in (*ENCODERS, *OF_IMAGES) else {**inputs_of(kind), "use_cache": False}


COLUMNS = {
    "plain": plain,
    "padded": padded,
    "causal": causal,
    "generated": generated,
    "checkpoints": checkpointed,
    "bfloat16": in_bfloat16,
    "saved": reloaded,
    "compiled": compiled,
    "exported": exported,
}
SLOW = ("compiled", "exported")  # seconds each: the suite looks at one model of a kind


def verdict(found, expected):
    error = ((found - expected).abs().max() / expected.abs().max()).item()
    return "right" if error <= 1e-6 else f"off by {error:.0e}"


def worst(verdicts):
    return max(verdicts, key=lambda each: each != "right")


def row(kind, columns=tuple(COLUMNS)):
    """A row of the table: in each column what holds for all attentions, or for which it is another."""
    found = {column: {} for column in columns}
    original = build(kind)
    for name in ATTENTIONS:
        model, refusal = copy.deepcopy(original), None
        try:
            replace_attention(model, name)
            output(model, inputs_of(kind))
        except ValueError:
            refusal = "refused"
        for column in columns:
            try:
                found[column][name] = refusal or COLUMNS[column](kind, name, model, original)
            except ValueError:
                found[column][name] = "refused"
    return [summary(each) for each in found.values()]


def summary(by_name):
    groups = {}
    for name, each in by_name.items():
        groups.setdefault(each, []).append(name)
    if len(groups) == 1:
        return next(iter(groups))
    return "; ".join(f"{', '.join(names)}: {each}" for each, names in groups.items())


HEAD = f"""# Conformance

What {", ".join(ATTENTIONS)} do in Hugging Face's models: small ones with random weights, in float64.
This file is written by the tests (`python -m tests.torch_impl.drop_in.conformance`), which compare:

{chr(10).join(f"- {column}: {compare.__doc__}" for column, compare in COLUMNS.items())}

"Right" is to 1e-6 of the largest number, and in bfloat16 to 0.1 of the norm. "Refused" is an error of one line before
anything is computed. "-" does not apply.

| model | {" | ".join(COLUMNS)} |
|{"---|" * (len(COLUMNS) + 1)}
"""


def start():
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    register_transformers()


if __name__ == "__main__":
    start()
    lines = [f"| {' | '.join([kind, *row(kind)])} |\n" for kind in MODELS]
    FILE.write_text(HEAD + "".join(lines), encoding="utf-8")
