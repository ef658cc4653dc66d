"""Files that are gzipped, unpacked in memory."""

import gzip
import io
import zlib
from pathlib import Path

from torch_impl.data.images.source import MEMORY


def unpacked(path: Path, kind: str) -> bytes:
    """The content of a gzipped file.

    Parameters
    ----------
    path : path
        The file.
    kind : str
        What it should be, for messages.

    Raises
    ------
    ValueError
        For a damaged file, and for one that unpacks to more than 4 GiB.
    """
    content = io.BytesIO()
    try:
        with gzip.open(path) as file:
            while piece := file.read(2**24):
                content.write(piece)
                if content.tell() > MEMORY:
                    raise ValueError(f"{path}: expected at most {MEMORY} bytes unpacked; got more. Try gunzip {path}")
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: expected {kind}; got {error}") from error
    return content.getvalue()
