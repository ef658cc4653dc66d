"""Data sets of images, in memory if they are small; else on disk, where images are decoded when they are taken."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

import torch

from primal_dual.types import Int, UInt8
from torch_impl.data.dataset import DataSet, Split, label_indices
from torch_impl.data.images.decoding import PIECE, ImageDecoder, own_size
from torch_impl.data.images.digits import digit_sources
from torch_impl.data.images.files import file_source, folder_sources, list_images
from torch_impl.data.images.pixels import channel_statistics
from torch_impl.data.images.source import MEMORY, ImageSource
from torch_impl.data.messages import Say, say_nothing

STATISTICS = 10_000  # images of a set on disk that give its mean and standard deviation


def load_images(
    name: str,
    folder: Path | str | None = None,
    *,
    size: int | None = None,
    skip_corrupt: bool = False,
    say: Say = say_nothing,
) -> DataSet:
    """A data set of images, laid out as ImageNet is (Russakovsky et al., IJCV 2015), as CIFAR-10 is, or as MNIST is.

    A set of at most 4 GiB is held in memory, with one channel if no image has colour. A larger set has three channels
    and stays on disk: its splits are ImageStreams.

    Parameters
    ----------
    name : str
        The name of a folder inside `folder`; or "digits", scikit-learn's 8 x 8 digits, if there is no such folder. It
        holds one of:
        CIFAR-10's binary version, data_batch_1.bin to 5, test_batch.bin and batches.meta.txt;
        MNIST's or Fashion-MNIST's idx files, train-images-idx3-ubyte.gz and three others, gzipped or not;
        images as train/CLASS/FILE and test/CLASS/FILE, or val for test;
        both as .tar or .tar.gz with members [train/]CLASS/FILE.
    folder : path, optional
        The folder of data sets.
    size : int, optional
        The height and width of the images; without it, that of the first training image. Images of other sizes are
        resized by their shorter side, bicubic, and cropped at their centre. Transparency is dropped.
    skip_corrupt : bool
        Whether images that cannot be decoded are left out. Those of a set on disk are met when they are taken.
    say : callable
        Is called with messages about the progress and about corrupt images. It must pickle if a DataLoader spawns its
        workers.

    Returns
    -------
    DataSet
        Its inputs are bytes, (n, channels, size, size). Mean and deviation are fractions of 255: exact, over all
        training pixels; for a set on disk, over 10,000 training images, which are always the same.

    Raises
    ------
    ValueError
        For what is missing, empty or malformed, for fewer than two classes, and for classes that do not occur in the
        training split.

    Examples
    --------
    >>> data = load_images("digits")
    >>> data.train.inputs.shape, data.sizes
    (torch.Size([1201, 1, 8, 8]), {'channels': 1, 'size': 8, 'classes': 10})
    """
    if size is not None and size < 1:
        raise ValueError(f"size: expected 1 or more; got {size}")
    root = None if folder is None else Path(folder) / name
    if name == "digits" and (root is None or not root.exists()):
        train, test = digit_sources()
    elif root is None:
        raise ValueError(f"{name}: expected --data, a folder that holds the folder {name}; or digits, which needs none")
    else:
        train, test = folder_sources(root)
    return image_data_set(name, train, test, size=size, skip_corrupt=skip_corrupt, say=say)


def image_data_set(
    name: str,
    train: ImageSource,
    test: ImageSource,
    *,
    size: int | None = None,
    skip_corrupt: bool = False,
    say: Say = say_nothing,
) -> DataSet:
    """The data set of two splits; see `load_images`."""
    decoder = ImageDecoder(size or own_size(train, skip_corrupt), skip_corrupt, say)
    bytes_in_memory = 3 * decoder.size**2 * (len(train.labels) + len(test.labels))
    if bytes_in_memory <= MEMORY:
        return _in_memory(name, train, test, decoder)
    return _on_disk(name, train, test, decoder)


def load_new_images(
    path: Path | str, sizes: dict[str, Any]
) -> tuple[UInt8[torch.Tensor, "n channels size size"], list[str]]:
    """New images, treated as those of a data set: one file, or all in a folder and in the folders inside it.

    Parameters
    ----------
    path : path
        The file or the folder.
    sizes : dict
        The `sizes` of the data set that a model was trained on.

    Returns
    -------
    images : tensor of bytes, (n, channels, size, size)
        The images.
    names : list of str
        Their files.

    Raises
    ------
    ValueError
        For what is missing or no image, and for an image in colour where those of the training were grey.
    """
    names = list_images(Path(path))
    return new_images(file_source(str(path), names, names), sizes), names


def new_images(source: ImageSource, sizes: dict[str, Any]) -> UInt8[torch.Tensor, "n channels size size"]:
    """New images, treated as those of a data set; see `load_new_images`."""
    decoder = ImageDecoder(sizes["size"], False, say_nothing)
    pixels = [torch.from_numpy(decoder.pixels(source, i)).permute(2, 0, 1) for i in range(len(source.labels))]
    images = torch.stack(pixels)
    if sizes["channels"] == 1:
        for name, image in zip(source.names, images, strict=True):
            if _has_colour(image[None]):
                raise ValueError(f"{name}: expected a grey image, as those of the training; got one in colour")
    return images[:, : sizes["channels"]]


@dataclass(frozen=True, eq=False)
class ImageStream:
    """A split on disk, whose images are decoded when they are taken.

    Batches are decoded in parallel by DataLoader(stream, sampler=index.split(batch), batch_size=None, num_workers=...).

    Parameters
    ----------
    source : ImageSource
        The images.
    labels : tensor of integers, (n,)
        The index of each image's class.
    decoder : ImageDecoder
        How they are decoded.
    """

    source: ImageSource
    labels: Int[torch.Tensor, " n"]
    decoder: ImageDecoder

    def __len__(self) -> int:
        """The number of images, n."""
        return len(self.labels)

    def take(self, index: Int[torch.Tensor, " m"]) -> Split:
        """The images of an index, decoded. They are fewer where corrupt ones are left out."""
        decoded = self.decoder.decode(self.source, index.tolist())
        return Split(decoded.images, None, self.labels[decoded.positions])

    __getitem__ = take

    def subset(self, index: Int[torch.Tensor, " m"]) -> "ImageStream":
        """The split of the images of an index, still on disk."""
        return replace(self, source=self.source.subset(index.tolist()), labels=self.labels[index])

    def digest(self) -> bytes:
        """The SHA-256 of the classes and files of the images, and of the size to which they are brought."""
        files = ("/".join(PurePath(name).parts[-2:]) for name in self.source.names)
        lines = [str(self.decoder.size), *map(str, self.source.labels), *files]
        return hashlib.sha256("\n".join(lines).encode()).digest()


def _in_memory(name: str, train: ImageSource, test: ImageSource, decoder: ImageDecoder) -> DataSet:
    images, labels = _decode_all(train, decoder)
    test_images, test_labels = _decode_all(test, decoder)
    if not _has_colour(images) and not _has_colour(test_images):
        images, test_images = images[:, :1].clone(), test_images[:, :1].clone()
    classes, train_index, test_index = label_indices(name, labels, test_labels)
    train_split, test_split = Split(images, None, train_index), Split(test_images, None, test_index)
    mean, deviation = channel_statistics(images.split(PIECE))
    sizes = dict(channels=len(mean), size=decoder.size, classes=len(classes))
    return DataSet(name, train_split, test_split, classes, sizes, mean, deviation)


def _on_disk(name: str, train: ImageSource, test: ImageSource, decoder: ImageDecoder) -> DataSet:
    classes, train_index, test_index = label_indices(name, train.labels, test.labels)
    train_stream, test_stream = ImageStream(train, train_index, decoder), ImageStream(test, test_index, decoder)
    mean, deviation = channel_statistics(_sample(train, decoder))
    sizes = dict(channels=len(mean), size=decoder.size, classes=len(classes))
    return DataSet(name, train_stream, test_stream, classes, sizes, mean, deviation)


def _decode_all(source: ImageSource, decoder: ImageDecoder) -> tuple[UInt8[torch.Tensor, "n 3 size size"], list]:
    """All images of a source and their labels."""
    count, size = len(source.labels), decoder.size
    images = torch.empty(count, 3, size, size, dtype=torch.uint8)
    kept: list[int] = []
    done = 0
    for piece in decoder.decode_by_pieces(source, torch.arange(count)):
        images[len(kept) : len(kept) + len(piece.positions)] = piece.images
        kept += piece.positions
        done += piece.asked
        if done % (10 * PIECE) == 0 or done == count:
            decoder.say(f"{source.split}: decoded {done} of {count} images")
    if not kept:
        raise ValueError(f"{source.split}: expected images; got {count}, none of them whole")
    if len(kept) < count:
        decoder.say(f"{source.split}: left out {count - len(kept)} corrupt images")
    return images[: len(kept)], [source.labels[i] for i in kept]


def _sample(source: ImageSource, decoder: ImageDecoder) -> Iterator[UInt8[torch.Tensor, "_ 3 size size"]]:
    """Batches of random images, which are always the same."""
    index = torch.randperm(len(source.labels), generator=torch.Generator().manual_seed(0))[:STATISTICS]
    done = 0
    for piece in decoder.decode_by_pieces(source, index):
        yield piece.images
        done += piece.asked
        decoder.say(f"{source.split}: mean and deviation of {done} of {len(index)} images")


def _has_colour(images: UInt8[torch.Tensor, "n 3 size size"]) -> bool:
    return any(bool((batch[:, :1] != batch[:, 1:]).any()) for batch in images.split(PIECE))
