"""A finished run as an ONNX file, which other programs run without Python or torch."""

import logging
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from primal_dual.io.files import check_writable, write_bytes
from primal_dual.io.text import printable
from primal_dual.types import Bool, Float, Num
from torch_impl.data.messages import one_line
from torch_impl.data.series import new_series
from torch_impl.training.trained.finished_run import Run, classify, load_run

LARGEST_DIFFERENCE = 1e-5  # of a probability, between torch and the ONNX file
EXAMPLES = 3
MISSING = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")


class Classifier(nn.Module):
    """Inputs as they are measured to probabilities: they are standardised, and missing values become the mean.

    Parameters
    ----------
    run : Run
        Whose model it is.
    """

    def __init__(self, run: Run) -> None:
        super().__init__()
        self.run, self.model = run, run.model
        self.mean: torch.Tensor
        self.divisor: torch.Tensor
        deviation = torch.tensor(run.data["deviation"], dtype=torch.float64)
        self.register_buffer("mean", torch.tensor(run.data["mean"], dtype=torch.float64))
        self.register_buffer("divisor", torch.where(deviation > 0, deviation, torch.inf))

    def forward(
        self, inputs: Num[torch.Tensor, "n ..."], key_mask: Bool[torch.Tensor, "n N"] | None = None
    ) -> Float[torch.Tensor, "n classes"]:
        """The probability of each class."""
        if inputs.dtype == torch.uint8:
            x = self.run.prepare(inputs)
        elif inputs.is_floating_point():
            x = ((inputs - self.mean) / self.divisor).float()
            x = torch.where(x.isnan() if key_mask is None else x.isnan() | ~key_mask[..., None], 0, x)
        else:
            x = inputs
        return self.model(x, key_mask).softmax(-1)


def export(folder: Path | str, file: Path | str) -> float:
    """Write a finished run as an ONNX file for any number of examples, and run that file to check it.

    Its inputs are named `inputs` and, but for images, `key_mask`; its output is `probabilities`, (n, classes). Series
    are (n, length, features) in float64, since float32 would lose small changes of large values, of the length that the
    model was trained with, NaN for a missing value, and with a mask (n, length) that is True for a time step; tokens
    are (n, N) whole numbers with such a mask; images are bytes, (n, channels, height, width). The names of the classes
    are in the metadata, a line each.

    Parameters
    ----------
    folder : path
        As in `load_run`.
    file : path
        Where it is written.

    Returns
    -------
    float
        The largest difference of a probability between `predict` and onnxruntime, at the scale of the training data.

    Raises
    ------
    ValueError
        For what `load_run` refuses, a model that ONNX cannot express, and a difference above 1e-5.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401, which torch needs
    except ImportError as error:
        raise ValueError(f'export needs onnxruntime: pip install ".[onnx]" in the checkout ({error})') from error
    check_writable(file)
    run = load_run(folder)
    model = Classifier(run).eval()
    examples = _examples(run)
    names = ["inputs", "key_mask"][: len(examples)]
    dimensions = tuple({0: torch.export.Dim("n")} for _ in examples)
    options: dict[str, Any] = dict(dynamo=True, dynamic_shapes=dimensions, verbose=False, external_data=False)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it would say that torchvision is missing
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of the exporter about itself
            program = torch.onnx.export(model, examples, input_names=names, output_names=["probabilities"], **options)
    except RuntimeError as error:
        raise ValueError(f"{folder}: expected a model that ONNX can express; {_reason(error)}") from error
    assert program is not None
    program.model.metadata_props["classes"] = "\n".join(run.classes)
    with tempfile.TemporaryDirectory() as folder_of_it:
        program.save(f"{folder_of_it}/model.onnx")
        content = (Path(folder_of_it) / "model.onnx").read_bytes()
    fewer = [x[:2] for x in examples]
    found = onnxruntime.InferenceSession(content).run(None, dict(zip(names, map(np.asarray, fewer), strict=True)))[0]
    difference = float(np.abs(found - _predicted(run, *fewer).numpy()).max())
    if not difference <= LARGEST_DIFFERENCE:
        raise ValueError(
            f"{folder}: expected the same probabilities from ONNX to 1e-5; got {difference:.1e} between them"
        )
    write_bytes(file, content)
    return difference


def _reason(error: RuntimeError) -> str:
    """Which operation ONNX lacks, if the exporter says so among its advice."""
    missing = MISSING.findall(str(error))
    return f"it has no operation {missing[0]}" if missing else printable(one_line(error))


def _predicted(
    run: Run, inputs: Num[torch.Tensor, "n ..."], key_mask: Bool[torch.Tensor, "n N"] | None = None
) -> Float[torch.Tensor, "n classes"]:
    """The probabilities of examples as they are measured, by the way of `predict`."""
    if key_mask is not None and "features" in run.data["sizes"]:
        series = [x[mask].numpy() for x, mask in zip(inputs, key_mask, strict=True)]
        inputs, key_mask = new_series("examples", series, run.data)
    return classify(run, inputs, key_mask)


def _examples(run: Run) -> tuple[torch.Tensor, ...]:
    """Random inputs of the kind and the sizes that a run takes, with padding."""
    rng, sizes = np.random.default_rng(0), run.data["sizes"]
    if "size" in sizes:
        shape = EXAMPLES, sizes["channels"], sizes["size"], sizes["size"]
        return (torch.tensor(rng.integers(0, 256, shape, dtype=np.uint8)),)
    key_mask = torch.arange(sizes["length"]) < torch.tensor([[sizes["length"]], [sizes["length"] // 2 + 1], [1]])
    if "features" in sizes:
        series = rng.standard_normal((EXAMPLES, sizes["length"], sizes["features"]))
        return torch.tensor(series * run.data["deviation"] + run.data["mean"]), key_mask
    return torch.tensor(rng.integers(0, sizes["vocabulary"], (EXAMPLES, sizes["length"]))), key_mask
