"""The folder of a run and its config.json: a run resumes only with the configuration that it was begun with."""

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from primal_dual.io.files import files_below, write_json
from torch_impl.training.recipes.base_recipe import NO_CHANGE
from torch_impl.training.recipes.kinds import from_config, to_config
from torch_impl.training.runs.distributed import World
from torch_impl.training.runs.run_files import Config, Result, read_json

LONGEST_NAME, LONGEST_TEXT = 200, 150  # bytes of the name of a folder, and what is kept of a longer one


def folder_of_run(folder: Path | str, data: str, attention: str, seed: int) -> Path:
    """FOLDER/DATA/ATTENTION/SEED. A text that is too long for the name of a folder is cut, and ends in its hash.

    Examples
    --------
    >>> folder_of_run("runs", "digits", "bn", 0).as_posix()
    'runs/digits/bn/0'
    """
    if len(attention.encode()) > LONGEST_NAME:
        kept = attention.encode()[:LONGEST_TEXT].decode(errors="ignore")
        attention = f"{kept}-{hashlib.sha256(attention.encode()).hexdigest()[:12]}"
    return Path(folder) / data / attention / str(seed)


def results_below(folder: Path) -> list[Path]:
    """The results of all finished runs below a folder, sorted; none if there is no such folder."""
    return sorted(file for file in files_below(folder) if file.name == "result.json") if folder.is_dir() else []


def check_configuration(run: Path, config: dict[str, Any], world: World) -> None:
    """Write config.json for a new run; make sure that the configuration of an old one is the same.

    As long as no epoch of a run is saved, another configuration replaces its own. If that of a run with checkpoints is
    missing, `resume` compares.

    Parameters
    ----------
    run : path
        The folder of the run, which is made if it is missing.
    config : dict
        The configuration of the run.
    world : World
        Whose first process writes, and whose others wait for it.

    Raises
    ------
    ValueError
        For another configuration, and for a config.json that is damaged.
    """
    file, result = run / "config.json", run / "result.json"
    is_new = not result.exists() and not any(run.glob("[!.]*.safetensors"))
    if result.exists():
        done = read_json(result, Result)
        expect_same(result, done, config)
        config = {name: done[name] for name in Config.__annotations__ if name in done}
    if world.first:
        run.mkdir(parents=True, exist_ok=True)
        sweep(run)
        if is_new or (result.exists() and not file.exists()):
            write_json(file, config)
    world.wait()
    if file.exists():
        expect_same(file, read_json(file, Config), config)


def expect_same(file: Path, begun: Mapping[str, Any], config: dict[str, Any]) -> None:
    """ValueError where a configuration is not the one in a file of a run, which the run was begun with.

    Fields of a recipe that do not change a result may differ, and the path of a Python file with the attention, whose
    content counts; and threads and processes of a finished run.
    """
    try:
        then, now = _flat(begun), _flat(config)
    except ValueError as error:
        raise ValueError(f"{file}: expected the config of a run; got {error}") from error
    free = {*NO_CHANGE, *({"fingerprint"} - then.keys())}  # older runs have no fingerprint
    if (file.parent / "result.json").exists():
        free |= {"threads", "processes"}  # it is trained no more
    for name in sorted((then.keys() | now.keys()) - free):
        if then.get(name) != now.get(name):
            expected = f"expected {name} = {then.get(name)}, as it was begun"
            raise ValueError(f"{file.parent}: {expected}; got {now.get(name)}. Give it another folder")


def sweep(run: Path) -> None:
    """Remove what interrupted writes left behind: files with a leading dot that have been still for a minute."""
    for file in run.glob(".*-*"):
        if file.is_file() and time.time() - file.stat().st_mtime > 60:
            file.unlink(missing_ok=True)


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in a mapping, and the fields of its recipe, in one dictionary.

    A field of the recipe that is younger than the run has its default, which is what the run was begun with.
    """
    own = {name: config[name] for name in Config.__annotations__ if name in config}
    files = sorted(config.get("attention_files", {}).values())
    return {**to_config(from_config(config["recipe"])), **own, "recipe": None, "attention_files": files}
