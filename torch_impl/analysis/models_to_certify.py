"""A trained model from a folder with torch_impl's attention in it, and an input for it."""

from pathlib import Path
from typing import Any

import torch

from torch_impl.data.messages import Say, one_line
from torch_impl.drop_in.replace import replace_attention
from torch_impl.training.finished_run import load_data_of_run, load_run
from torch_impl.training.pretrained_models import PREFIX

TEXT = """A layer of a neural network maps an input to an output by its weights. Take its training as a support vector
regression, write down the dual, and the weights become a sum over the training points: each point is a key, its dual
variables divided by a normaliser are a value, and the layer is an attention from the input to the keys. Points inside
the tube have no weight in this sum. The others are the support vectors, and the layer remembers nothing else."""


def load_model(
    folder: str, file: Path | None = None, data_folder: Path | None = None, say: Say = print
) -> tuple[torch.nn.Module, Any]:
    """A module for `certify_module`, and the argument to call it with.

    Parameters
    ----------
    folder : str
        The folder of a finished run, "pretrained:DATA/ATTENTION", or the folder of a Hugging Face model of text.
    file : path, optional
        The input: text for a model of text; what `predict` reads for a run, whose first example is taken. By default, a
        paragraph of English, or the first example that the run was tested on.
    data_folder : path, optional
        The folder of data sets that a run was trained with.
    say : callable
        Is called with messages about the progress of loading.

    Raises
    ------
    ValueError
        For a folder that is neither, or damaged; for a model whose attention cannot be replaced; and for an input that
        the model does not take.
    """
    if folder.startswith(PREFIX) or (Path(folder) / "result.json").exists():
        return _run(folder, file, data_folder, say)
    if not (Path(folder) / "config.json").exists():
        expected = "a finished run, pretrained:DATA/ATTENTION, or the folder of a Hugging Face model, with config.json"
        raise ValueError(f"{folder}: expected {expected}; got none of them")
    return _hugging_face(Path(folder), file)


def _run(folder: str, file: Path | None, data_folder: Path | None, say: Say) -> tuple[torch.nn.Module, Any]:
    run = load_run(folder)
    if file is None:
        inputs, key_mask, _ = load_data_of_run(run, data_folder, say).test.take(torch.arange(1))
    else:
        inputs, key_mask, _ = run.recipe.read(file, run.data)
    return run.model, (run.prepare(inputs[:1]), None if key_mask is None else key_mask[:1])


def _hugging_face(folder: Path, file: Path | None) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    try:
        from transformers import AutoModel, AutoTokenizer
    except ImportError as error:
        raise ValueError(f"{folder}: it needs transformers: pip install '.[transformers]' in the checkout") from error
    try:
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"{folder}: expected a Hugging Face model with its tokenizer; got {one_line(error)}"
        ) from error
    if model.main_input_name != "input_ids":
        raise ValueError(f"{folder}: expected a model of text; got {type(model).__name__}, of {model.main_input_name}")
    inputs = dict(tokenizer(_text(file), return_tensors="pt", verbose=False))
    most = min(getattr(model.config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length)
    tokens = inputs["input_ids"].shape[1]
    if tokens > most:
        raise ValueError(f"{file or 'text'}: expected at most {most} tokens, which the model takes; got {tokens}")
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    return replace_attention(model, "softmax"), inputs


def _text(file: Path | None) -> str:
    try:
        text = TEXT if file is None else file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected text in UTF-8; got {one_line(error)}") from error
    if not text.strip():
        raise ValueError(f"{file}: expected text; got none")
    return text
