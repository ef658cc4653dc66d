"""An archive is read whole, or refused: a damaged header is not its end, and a link is no image to leave out."""

import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from torch_impl.data.images.archives import archive_source


def image(seed):
    content = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (5, 5, 3), np.uint8)).save(content, "png")
    return content.getvalue()


def write(path, extra=()):
    with tarfile.open(path, "w") as tar:
        for k in range(7):
            member = tarfile.TarInfo(f"train/{'ab'[k % 2]}/{k}.png")
            content = image(k)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for member in extra:
            tar.addfile(member)
    return path


def test_a_whole_archive(tmp_path):
    source = archive_source("train", write(tmp_path / "train.tar"))
    assert source.labels == ["a"] * 4 + ["b"] * 3
    np.testing.assert_array_equal(source.open(4), Image.open(io.BytesIO(image(1))))


def test_each_damage_of_a_header_and_each_cut_is_refused(tmp_path):
    content = write(tmp_path / "train.tar").read_bytes()
    with tarfile.open(tmp_path / "train.tar") as tar:
        headers = [member.offset for member in tar]
        ends = [member.offset_data + -(-member.size // 512) * 512 for member in tar]
    damaged = [content[:at] + b"x" + content[at + 1 :] for at in (header + 150 for header in headers)]  # its checksum
    damaged += [content[:end] for end in ends] + [content[: end + 100] for end in ends[:-1]]
    for k, each in enumerate(damaged):
        path = tmp_path / f"{k}.tar"
        path.write_bytes(each)
        with pytest.raises(ValueError, match=rf"{k}.tar: expected (a tar archive|an archive that ends in zeros)"):
            archive_source("train", path)


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_place_of_images_are_told(tmp_path, kind):
    link = tarfile.TarInfo("train/a/link.png")
    link.type, link.linkname = kind, "train/a/0.png"
    with pytest.raises(ValueError, match=r"expected images as files .*; got the link or device train/a/link.png"):
        archive_source("train", write(tmp_path / "train.tar", [link]))
    link.name = "train/a/link.txt"  # no image
    folder = tarfile.TarInfo("train/c.png")
    folder.type = tarfile.DIRTYPE
    assert len(archive_source("train", write(tmp_path / "train.tar", [link, folder])).labels) == 7
