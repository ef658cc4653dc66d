"""The accuracy of a good classifier without attention, on the benchmarks of time series, and its time.

    python -m torch_impl.bench.multirocket [--data DIR] [--seeds 5] [--json FILE] [NAME ...]

It is MultiRocket with Hydra, aeon's: some fifty thousand pooled outputs of convolutions, fixed ones and random ones,
and a linear classifier on them (Tan et al., 2022; Dempster et al., 2023), on one thread, with the defaults of aeon. The
data sets are those of `load_series`: standardised by the training split, shorter series ending with zeros.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aeon.classification.convolution_based import MultiRocketHydraClassifier

from primal_dual.io.files import check_writable, write_json
from primal_dual.types import Float, Int
from torch_impl.data.dataset import DataSet, Examples
from torch_impl.data.series import load_series
from torch_impl.training.runs.machine import describe_machine

NAMES = ("JapaneseVowels", "Handwriting", "UWaveGestureLibrary", "SelfRegulationSCP1", "SpokenArabicDigits")


def evaluate(data: DataSet, seeds: int, **options: Any) -> dict[str, Any]:
    """Train and test the classifier, once for each seed.

    Parameters
    ----------
    data : DataSet
        Of time series.
    seeds : int
        How many.
    **options
        Those of aeon's classifier.

    Returns
    -------
    dict
        data, seeds, accuracies (fractions) and seconds, the median time of training and testing once.
    """
    (X, y), (X_test, y_test) = _arrays(data.train), _arrays(data.test)
    accuracies, seconds = [], []
    for seed in range(seeds):
        start = time.perf_counter()
        classifier = MultiRocketHydraClassifier(random_state=seed, n_jobs=1, **options).fit(X, y)
        accuracies.append(float((classifier.predict(X_test) == y_test).mean()))
        seconds.append(time.perf_counter() - start)
    return {"data": data.name, "seeds": seeds, "accuracies": accuracies, "seconds": statistics.median(seconds)}


def _arrays(examples: Examples) -> tuple[Float[np.ndarray, "n features N"], Int[np.ndarray, " n"]]:
    """The series and the classes, as aeon takes them."""
    split = examples.take(torch.arange(len(examples)))
    return split.inputs.mT.contiguous().numpy(), split.labels.numpy()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="MultiRocket with Hydra on the benchmarks of time series.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"data sets; {' '.join(NAMES)} unless given")
    parser.add_argument("--data", metavar="DIR", help="the folder of data sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", metavar="FILE", help="write the numbers to this file, too")
    options = parser.parse_args(arguments)
    try:
        if options.seeds < 1:
            raise ValueError(f"--seeds: expected one or more; got {options.seeds}")
        if options.json:
            check_writable(Path(options.json))
        rows = []
        for name in options.names or NAMES:
            rows.append(evaluate(load_series(name, options.data), options.seeds))
            percent = [100 * accuracy for accuracy in rows[-1]["accuracies"]]
            spread = f" ± {statistics.stdev(percent):.1f}" if len(percent) > 1 else ""
            print(f"{name}: {statistics.mean(percent):.1f}{spread} in {rows[-1]['seconds']:.0f} s", flush=True)
            if options.json:
                write_json(Path(options.json), {"machine": describe_machine("cpu"), "rows": rows})
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
