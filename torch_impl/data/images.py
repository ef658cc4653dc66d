"""Image sets as tensors, in memory if they are small; on disk, decoded when they are taken, if they are large."""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from torch_impl.data.dataset import DataSet, Split, label_indices, one_line, silent
from torch_impl.data.image_files import MEMORY, Source, digits, in_folder, is_image

PIECE = 1000  # images decoded side by side
STATISTICS = 10_000  # images of a set on disk that give its mean and deviation


def load_images(name, folder=None, *, size=None, skip_corrupt=False, say=silent):
    """An image set -> DataSet: inputs uint8 (n, channels, size, size) in 0 ... 255, mean and deviation in units of 255.

    name: "digits", scikit-learn's 8 x 8 digits, of which the third, sixth, ... image of each class is for the test; or
    that of a folder inside `folder`, which holds
      - CIFAR-10's binary version: data_batch_1.bin to 5, test_batch.bin and batches.meta.txt; or
      - images as train/CLASS/FILE and test/CLASS/FILE, or val for test; or both as .tar or .tar.gz with members
        [train/]CLASS/FILE. Files are images if their suffix says so.
    size: of the images, by default that of the first one for training. Others are resized by their shorter side,
    bicubic, and cropped at their centre; transparency is dropped. A set of at most 4 GiB is held in memory, and has
    one channel if no image has colour. A larger one has three channels and ImageStreams for splits.
    mean and deviation: of the training pixels, exact; of a set on disk those of 10,000 images, always the same ones.
    skip_corrupt: leave out images that cannot be decoded. A set on disk meets them when it is asked for them.
    say: told of the progress and of corrupt images; it must pickle if a DataLoader spawns its workers.
    Raises ValueError for what is missing, empty or malformed, for fewer than two classes, and for classes that the
    training split has not. Source: the layout of ImageNet (Russakovsky et al., IJCV 2015); Krizhevsky (2009).
    """
    if size is not None and size < 1:
        raise ValueError(f"size: expected 1 or more; got {size}")
    if name != "digits" and folder is None:
        raise ValueError(f"{name}: expected --data, a folder that holds the folder {name}; or digits, which needs none")
    both = digits() if name == "digits" else in_folder(Path(folder) / name)
    size = size or _own_size(both[0], skip_corrupt)
    options = size, skip_corrupt, say
    if 3 * size**2 * sum(len(source.labels) for source in both) <= MEMORY:
        (images, labels), (test_images, test_labels) = (_in_memory(source, *options) for source in both)
        if not _has_colour(images) and not _has_colour(test_images):
            images, test_images = images[:, :1].clone(), test_images[:, :1].clone()
        classes, labels, test_labels = label_indices(name, labels, test_labels)
        train, test = Split(images, None, labels), Split(test_images, None, test_labels)
        batches = images.split(PIECE)
    else:
        classes, *labels = label_indices(name, *(source.labels for source in both))
        train, test = (ImageStream(*each, *options) for each in zip(both, labels, strict=True))
        batches = _sample(both[0], *options)
    mean, deviation = _statistics(batches)
    sizes = dict(channels=len(mean), size=size, classes=len(classes))
    return DataSet(name, train, test, classes, sizes, mean, deviation)


def load_files(path, sizes):
    """New images, a file or all of a folder and the folders in it -> uint8 (n, channels, size, size), their names.

    sizes: of the data set that a model was trained on; treated as in `load_images`. Raises ValueError for what is
    missing or no image.
    """
    path = Path(path)
    names = sorted(map(str, filter(is_image, path.rglob("*")))) if path.is_dir() else [str(path)]
    if not path.exists() or not names:
        raise ValueError(f"{path}: expected an image, or a folder of images; got none")
    source = Source(str(path), names, names, lambda i: Image.open(names[i]))
    images = [torch.from_numpy(_pixels(source, i, sizes["size"])).permute(2, 0, 1) for i in range(len(names))]
    return torch.stack(images)[:, : sizes["channels"]], names


def scaled(images):
    """Images of uint8 in 0 ... 255 -> floats in [0, 1]; floats stay as they are."""
    return images / 255 if images.dtype == torch.uint8 else images


def standardised(images, mean, deviation):
    """(x - mean) / deviation, a number a channel: images (..., channels, H, W), of uint8 or of floats in [0, 1].

    A channel without deviation is only centred.
    """
    images = scaled(images)
    mean, deviation = (images.new_tensor(each)[:, None, None] for each in (mean, deviation))
    return (images - mean) / deviation.where(deviation > 0, 1)


@dataclass(frozen=True, eq=False)
class ImageStream:
    """A split on disk, whose images are decoded when they are taken.

    In parallel: DataLoader(stream, sampler=index.split(batch), batch_size=None, num_workers=...).
    """

    source: Source
    labels: torch.Tensor
    size: int
    skip_corrupt: bool
    say: Callable

    def __len__(self):
        return len(self.labels)

    def take(self, index):
        """The images of an index (n,), as a Split; fewer if some are corrupt and those are left out."""
        images, whole = _decoded(self.source, index.tolist(), self.size, self.skip_corrupt, self.say)
        return Split(images, None, self.labels[whole])

    __getitem__ = take

    def subset(self, index):
        """The split of the images of an index, still on disk."""
        return replace(self, source=self.source.subset(index.tolist()), labels=self.labels[index])


def _in_memory(source, size, skip_corrupt, say):
    """All images (n, 3, size, size), and their labels."""
    count = len(source.labels)
    images, kept = torch.empty(count, 3, size, size, dtype=torch.uint8), []
    for piece, whole, done in _pieces(source, torch.arange(count), size, skip_corrupt, say):
        images[len(kept) : len(kept) + len(whole)] = piece
        kept += whole
        if done % (10 * PIECE) == 0 or done == count:
            say(f"{source.split}: decoded {done} of {count} images")
    if not kept:
        raise ValueError(f"{source.split}: expected images; got {count}, none of them whole")
    if len(kept) < count:
        say(f"{source.split}: left out {count - len(kept)} corrupt images")
    return images[: len(kept)], [source.labels[i] for i in kept]


def _sample(source, size, skip_corrupt, say):
    """Batches of images, at random but always the same."""
    index = torch.randperm(len(source.labels), generator=torch.Generator().manual_seed(0))[:STATISTICS]
    for images, _, done in _pieces(source, index, size, skip_corrupt, say):
        yield images
        say(f"{source.split}: mean and deviation of {done} of {len(index)} images")


def _statistics(batches):
    """Mean and deviation of each channel in units of 255, exact until the last division and root."""
    levels = torch.arange(256)
    histogram = sum(torch.stack([x.flatten().bincount(minlength=256) for x in batch.unbind(1)]) for batch in batches)
    moments = torch.stack([histogram.sum(1), histogram @ levels, histogram @ levels**2], 1).tolist()
    return [a / (255 * n) for n, a, _ in moments], [math.sqrt(n * b - a * a) / (255 * n) for n, a, b in moments]


def _has_colour(images):
    return any((batch[:, :1] != batch[:, 1:]).any() for batch in images.split(PIECE))


def _pieces(source, index, size, skip_corrupt, say):
    """The images of an index by pieces, decoded by all cores: images, the index of whole ones, how many are done."""
    done = 0
    with ThreadPoolExecutor() as pool:
        for piece in index.split(PIECE):
            done += len(piece)
            yield *_decoded(source, piece.tolist(), size, skip_corrupt, say, pool.map), done


def _decoded(source, index, size, skip_corrupt, say, each=map):
    """The images of an index (n, 3, size, size), and the index of those that are whole."""

    def decode(i):
        try:
            return _pixels(source, i, size)
        except ValueError as error:
            if not skip_corrupt:
                raise ValueError(f"{error}; --skip-corrupt leaves such images out") from error
            say(f"{error}; left out")

    pixels = list(each(decode, index))
    whole = [i for i, x in zip(index, pixels, strict=True) if x is not None]
    images = np.array([x for x in pixels if x is not None], np.uint8).reshape(-1, size, size, 3)
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), whole


def _pixels(source, i, size):
    """One image in colour, (size, size, 3)."""
    with _opened(source, i) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"mode {image.mode}")
        if "transparency" in image.info:
            image = image.convert("RGBA")
        return np.array(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC))


@contextmanager
def _opened(source, i):
    try:
        with source.open(i) as image:
            yield image
    except Exception as error:  # a decoder raises what its parsing happens to: any of it is a corrupt image
        expected = "expected an image of 8 bits a channel"
        raise ValueError(f"{source.names[i]}: {expected}; got {one_line(error)}") from error


def _own_size(source, skip_corrupt):
    for i in range(len(source.labels)):
        try:
            with _opened(source, i) as image:
                width, height = image.size
        except ValueError:
            if not skip_corrupt:
                raise
        else:
            if width == height:
                return width
            raise ValueError(f"{source.names[i]}: expected a square image, or --size; got {width} x {height}")
    raise ValueError(f"{source.split}: expected images; got {len(source.labels)}, none of them whole")
