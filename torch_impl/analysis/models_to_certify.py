"""A trained model from a folder with torch_impl's attention in it, and an input for it."""

from pathlib import Path
from typing import Any

import torch
from sklearn.datasets import load_sample_image

from torch_impl.data.messages import Say, one_line, say_nothing
from torch_impl.drop_in.hugging_face.names import our_names
from torch_impl.drop_in.hugging_face.registration import register_transformers
from torch_impl.drop_in.replace import replace_attention
from torch_impl.training.trained.finished_run import load_data_of_run, load_run
from torch_impl.training.trained.pretrained_models import PREFIX

TEXT = """A layer of a neural network maps an input to an output by its weights. Take its training as a support vector
regression, write down the dual, and the weights become a sum over the training points: each point is a key, its dual
variables divided by a normaliser are a value, and the layer is an attention from the input to the keys. Points inside
the tube have no weight in this sum. The others are the support vectors, and the layer remembers nothing else."""


def load_model(
    folder: str, file: Path | None = None, data_folder: Path | None = None, say: Say = say_nothing
) -> tuple[torch.nn.Module, Any]:
    """A module for `certify_module`, and the argument to call it with.

    Parameters
    ----------
    folder : str
        The folder of a finished run, "pretrained:DATA/ATTENTION", or the folder of a Hugging Face model of text or
        images, with softmax or with an attention of ours that it was saved with.
    file : path, optional
        The input: text for a model of text; an image for one of images; what `predict` reads for a run, whose first
        example is taken. By default, a paragraph of English, a photograph of a flower, or the first example that the
        run was tested on.
    data_folder : path, optional
        The folder of data sets that a run was trained with.
    say : callable
        Is called with messages about the progress of loading, and with one about which example of a run's is taken.

    Raises
    ------
    ValueError
        For a folder that is neither, or damaged; for a model whose attention cannot be replaced; and for an input that
        the model does not take.
    """
    if folder.startswith(PREFIX) or _is_run(Path(folder)):
        return _run(folder, file, data_folder, say)
    if not (Path(folder) / "config.json").exists():
        expected = "a finished run, pretrained:DATA/ATTENTION, or the folder of a Hugging Face model, with config.json"
        raise ValueError(f"{folder}: expected {expected}; got none of them")
    return _hugging_face(Path(folder), file)


def _is_run(folder: Path) -> bool:
    """Whether it is the folder of a run, finished or not: a Hugging Face model, too, has a config.json."""
    config = folder / "config.json"
    is_begun = config.is_file() and '"recipe"' in config.read_text(encoding="utf-8", errors="replace")
    return is_begun or (folder / "result.json").exists()


def _run(folder: str, file: Path | None, data_folder: Path | None, say: Say) -> tuple[torch.nn.Module, Any]:
    run = load_run(folder)
    if file is None:
        cases = load_data_of_run(run, data_folder, say).test
        (inputs, key_mask, _), count, where = cases.take(torch.arange(1)), len(cases), "that it was tested on"
    else:
        inputs, key_mask, names = run.recipe.read(file, run.data)
        count, where = len(names), f"of {file}"
    say(f"the model sees the first of {count} cases {where}")
    return run.model, (run.prepare(inputs[:1]), None if key_mask is None else key_mask[:1])


def _hugging_face(folder: Path, file: Path | None) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    try:
        import transformers
    except ImportError as error:
        raise ValueError(f'{folder}: it needs transformers: pip install ".[transformers]" in the checkout') from error
    register_transformers()
    model = _from_folder(transformers.AutoModel, folder).eval()
    if model.main_input_name == "pixel_values":
        processor = _from_folder(transformers.AutoImageProcessor, folder)
        inputs = dict(processor(_image(file), return_tensors="pt"))
    elif model.main_input_name == "input_ids":
        inputs = _tokens(model, _from_folder(transformers.AutoTokenizer, folder), file)
    else:
        expected = "a model of text or images"
        raise ValueError(f"{folder}: expected {expected}; got {type(model).__name__}, of {model.main_input_name}")
    return model if our_names(model.config) else replace_attention(model, "softmax"), inputs


def _from_folder(kind: Any, folder: Path) -> Any:
    """What one of the library's automatic classes finds in a folder."""
    try:
        return kind.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        expected = "a Hugging Face model with its tokenizer or image processor"
        raise ValueError(f"{folder}: expected {expected}; got {one_line(error)}") from error


def _tokens(model: Any, tokenizer: Any, file: Path | None) -> dict[str, torch.Tensor]:
    inputs = dict(tokenizer(_text(file), return_tensors="pt", verbose=False))
    most = min(getattr(model.config, "max_position_embeddings", None) or 10**9, tokenizer.model_max_length)
    tokens = inputs["input_ids"].shape[1]
    if tokens > most:
        raise ValueError(f"{file or 'text'}: expected at most {most} tokens, which the model takes; got {tokens}")
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = inputs["input_ids"]
    return inputs


def _image(file: Path | None) -> Any:
    """The image of a file, in colour; by default a photograph that comes with scikit-learn."""
    from PIL import Image

    if file is None:
        return Image.fromarray(load_sample_image("flower.jpg"))
    try:
        with Image.open(file) as image:
            return image.convert("RGB")
    except Exception as error:  # a damaged image may raise anything inside a decoder
        raise ValueError(f"{file}: expected an image; got {one_line(error)}") from error


def _text(file: Path | None) -> str:
    try:
        text = TEXT if file is None else file.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError) as error:
        raise ValueError(f"{file}: expected a file of text in UTF-8; got {one_line(error)}") from error
    if not text.strip():
        raise ValueError(f"{file}: expected text; got none")
    return text
