"""Add a finished run to the trained models that come with the package.

    python -m torch_impl.training.trained.publishing RUN [--data DIR]

It rounds the weights to half precision, tests them, and writes them to weights/DATA/ATTENTION, with the configuration,
the result and a model card.
"""

import argparse
import hashlib
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from primal_dual.io.files import ensure_folder, write_bytes, write_json, write_text
from torch_impl.training.runs.checkpoint import metadata
from torch_impl.training.runs.run_files import Config, read_json, sealed
from torch_impl.training.trained.finished_run import FILES, Run, load_data_of_run, load_run, test_accuracy
from torch_impl.training.trained.pretrained_models import WEIGHTS

SOURCES = {
    "JapaneseVowels": "Kudo, Toyama and Shimbo (1999), UCI repository, CC BY 4.0; as in the UEA archive",
    "Handwriting": "Shokoohi-Yekta et al. (2017), UEA archive, which states no licence",
    "UWaveGestureLibrary": "Liu et al. (2009), UEA archive, which states no licence",
    "SelfRegulationSCP1": "Birbaumer et al. (1999), BCI competition II and UEA archive, which states no licence",
    "fashion_mnist": "Xiao, Rasul and Vollgraf (2017), MIT licence",
}
CARD = """\
# {data}, {attention}

A transformer with the attention `{attention}` for {count} classes, {parameters:,} weights in half precision.
`torch_impl.load_pretrained("{data}", "{attention}")` loads it.

| | |
|---|---|
| test accuracy | {accuracy:.2f} % of the {tests} examples of the published test split, with these rounded weights |
| data | {source}; not included |
| seed | {seed}; one run says little of an attention: RESULTS.md has the mean and the deviation over the seeds |
| training | `config.json`; commit {commit}; {machine}; {seconds:.0f} s |
| limits | not tested beyond this data set; how the recipe was chosen stands in RESULTS.md of the project |
"""


def publish(folder: Path | str, data_folder: Path | str | None = None) -> Path:
    """Round the weights of a finished run to half precision, test them, and add them to the package.

    Parameters
    ----------
    folder : path
        The folder of the run.
    data_folder : path, optional
        The folder of data sets, as in training.

    Returns
    -------
    path
        The folder with the weights, the configuration, the result and the model card.

    Raises
    ------
    ValueError
        For what `load_run` refuses, for a data set without a source in `SOURCES`, and for a run that was not tested on
        the published test split as it is.
    """
    folder, run = Path(folder), load_run(folder)
    if run.recipe.folds or getattr(run.recipe, "noise", 0) or getattr(run.recipe, "oversample", 1) > 1:
        raise ValueError(
            f"{folder}: expected a run on the published test split; got one with folds, noise or new steps"
        )
    if run.recipe.name not in SOURCES:
        raise ValueError(f"{run.recipe.name}: expected a data set with a source, one of {', '.join(SOURCES)}")
    config_name, result_name, weights_name = FILES
    content = (folder / weights_name).read_bytes()
    state = {name: x.half() if x.is_floating_point() else x for name, x in load(content).items()}
    run.model.load_state_dict(state)
    data = load_data_of_run(run, data_folder)
    fingerprint = data.fingerprint()
    weights = save(state, metadata(content))
    result = sealed(
        run.result
        | {
            "test_accuracy": test_accuracy(run, data),
            "fingerprint": fingerprint,
            "weights_sha256": hashlib.sha256(weights).hexdigest(),
        }
    )
    published = ensure_folder(WEIGHTS / run.recipe.name / run.attention)
    config = read_json(folder / config_name, Config) | {"fingerprint": fingerprint}
    write_json(published / config_name, config)
    write_json(published / result_name, result)
    write_bytes(published / weights_name, weights)
    write_text(published / "README.md", _card(run, result, len(data.test)))
    return published


def _card(run: Run, result: dict[str, Any], tests: int) -> str:
    machine = result["machine"]
    return CARD.format(
        data=run.recipe.name,
        attention=run.attention,
        count=len(run.classes),
        parameters=result["parameters"],
        accuracy=100 * result["test_accuracy"],
        tests=tests,
        source=SOURCES[run.recipe.name],
        seed=run.seed,
        commit=machine["commit"],
        machine=f"{machine['name']}, {machine['threads']} thread(s), torch {machine['torch']}",
        seconds=result["seconds"],
    )


def main() -> None:
    """The command line, see the top of this file."""
    parser = argparse.ArgumentParser(prog="python -m torch_impl.training.trained.publishing", description=__doc__)
    parser.add_argument("run", help="a finished run, RUNS/DATA/ATTENTION/SEED")
    parser.add_argument("--data", help="the folder of data sets")
    options = parser.parse_args()
    print(publish(options.run, options.data))


if __name__ == "__main__":
    main()
