"""Augmentation of images: every operation against PIL or exact pixels, targets against the pixels that were mixed."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageOps

from torch_impl.data.images import operations
from torch_impl.data.images.augmentation import ImageAugmentation
from torch_impl.data.images.operations import OPERATIONS, rand_augment

NOTHING = dict(crop="none", flip=0, rand_augment=0, erasing=0, mixup=0, cutmix=0)


def only(**fields):
    return ImageAugmentation(**NOTHING | fields)


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(5, 3, 16, 24), (1, 1, 8, 8), (2, 1, 17, 13)])
@pytest.mark.parametrize("crop", ["resized", "shifted"])
def test_seeds_reproduce_every_bit(shape, crop):
    images, labels, augment = noise(*shape), torch.arange(shape[0]) % 3, ImageAugmentation(crop=crop)
    before = images.clone()

    def batches(seed, images, augment):
        torch.manual_seed(seed)
        return [augment(images, labels, 3) for _ in range(6)]

    first = batches(1, images, augment)
    batches(2, images, augment)
    for (x, p), (y, q) in zip(first, batches(1, images / 255, ImageAugmentation(crop=crop)), strict=True):
        assert torch.equal(x, y) and torch.equal(p, q)
        assert x.shape == shape and x.dtype == torch.float32 and x.min() >= 0 and x.max() <= 1
        torch.testing.assert_close(p.sum(1), torch.ones(shape[0]), rtol=0, atol=1e-6)
    assert not torch.equal(first[0][0], first[1][0])
    assert torch.equal(images, before)


def test_nothing_is_the_image_and_its_label():
    images, labels = noise(4, 3, 9, 7), torch.tensor([2, 0, 1, 2])
    x, targets = only()(images, labels, 3)
    assert torch.equal(x, images / 255) and torch.equal(targets, F.one_hot(labels, 3).float())


def test_flip_is_left_for_right_of_some_images():
    images, labels = noise(40, 3, 5, 7), torch.zeros(40, dtype=torch.long)
    x, flipped = images / 255, images.flip(-1) / 255
    assert torch.equal(only(flip=1)(images, labels, 1)[0], flipped)
    torch.manual_seed(0)
    y, _ = only(flip=0.5)(images, labels, 1)
    same, other = ((y == each).flatten(1).all(1) for each in (x, flipped))
    assert (same ^ other).all() and 8 < other.sum() < 32


def test_a_shifted_crop_is_a_window_of_the_padded_image():
    images = noise(300, 2, 16, 24)
    torch.manual_seed(0)
    y, _ = only(crop="shifted")(images, torch.zeros(300, dtype=torch.long), 1)
    windows = F.pad(images / 255, (3, 3, 2, 2)).unfold(2, 16, 1).unfold(3, 24, 1)  # (300, 2, 5, 7, 16, 24)
    hits = (windows == y[:, :, None, None]).flatten(4).all(-1).all(1)
    assert (hits.sum((1, 2)) == 1).all()  # one shift for both channels
    assert hits.any(0).all()  # and every shift occurs


def test_a_resized_crop_is_a_rectangle_of_the_allowed_areas_and_ratios():
    """On images of coordinates, the corners of the crop can be read off."""
    H, W, n = 30, 40, 500
    rows, columns = torch.meshgrid(torch.arange(H) / (H - 1), torch.arange(W) / (W - 1), indexing="ij")
    images = torch.stack([rows, columns]).expand(n, -1, -1, -1)
    torch.manual_seed(0)
    y, _ = only(crop="resized")(images, torch.zeros(n, dtype=torch.long), 1)
    top, bottom = y[:, 0, 0, 0] * (H - 1), y[:, 0, -1, -1] * (H - 1)
    left, right = y[:, 1, 0, 0] * (W - 1), y[:, 1, -1, -1] * (W - 1)
    for each, size in ((top, H), (bottom, H), (left, W), (right, W)):
        torch.testing.assert_close(each, each.round(), rtol=0, atol=1e-3)
        assert each.round().min() == 0 or each.round().max() == size - 1
    height, width = (bottom - top).round() + 1, (right - left).round() + 1
    torch.testing.assert_close(y[:, 0], torch.lerp(y[:, 0, :1], y[:, 0, -1:], rows), rtol=0, atol=1e-5)
    torch.testing.assert_close(y[:, 1], torch.lerp(y[:, 1, :, :1], y[:, 1, :, -1:], columns), rtol=0, atol=1e-5)
    assert ((height + 0.5) * (width + 0.5) >= 0.08 * H * W).all()  # sides are rounded to pixels
    ratio = width / height
    assert (((width + 0.5) / (height - 0.5) >= 3 / 4) & ((width - 0.5) / (height + 0.5) <= 4 / 3)).all()
    assert height.unique().numel() > 15 and ratio.min() < 0.85 and ratio.max() > 1.2


def pil_operations():
    """Operation -> what PIL does at strength m and sign s, and by how many of 255 levels rounding may differ."""

    def factor(m, s):
        return 1 + 0.9 * m * s

    def solarize_add(image, m, s):
        return Image.eval(image, lambda level: min(255, round(level + 110 * m)) if level < 128 else level)

    return {
        "auto-contrast": (lambda image, m, s: ImageOps.autocontrast(image), 1),
        "equalize": (lambda image, m, s: ImageOps.equalize(image), 0),
        "invert": (lambda image, m, s: ImageOps.invert(image), 0),
        "posterize": (lambda image, m, s: ImageOps.posterize(image, 4 - int(4 * m)), 0),
        "solarize": (lambda image, m, s: ImageOps.solarize(image, 255 * (1 - m)), 0),
        "solarize-add": (solarize_add, 0),
        "colour": (lambda image, m, s: ImageEnhance.Color(image).enhance(factor(m, s)), 2),
        "contrast": (lambda image, m, s: ImageEnhance.Contrast(image).enhance(factor(m, s)), 2),
        "brightness": (lambda image, m, s: ImageEnhance.Brightness(image).enhance(factor(m, s)), 1),
        "sharpness": (lambda image, m, s: ImageEnhance.Sharpness(image).enhance(factor(m, s)), 2),
    }


@pytest.mark.parametrize("name", pil_operations())
@pytest.mark.parametrize("m", [0.25, 0.5, 0.9])
def test_operations_on_colours_are_those_of_pil(name, m):
    expected, levels = pil_operations()[name]
    images = noise(4, 3, 11, 13) // 2 + 60
    images[3, 1] = 77  # a channel without contrast
    s = torch.tensor([1.0, -1.0, 1.0, -1.0])
    for n, (image, sign) in enumerate(zip(images, s.tolist(), strict=True)):
        strengths = torch.full((4,), 0.123).index_fill(0, torch.tensor(n), m)  # each image has its own
        y = OPERATIONS[name](images / 255, strengths, s)[n] * 255
        pil = np.array(expected(Image.fromarray(image.permute(1, 2, 0).cpu().numpy()), m, sign)).transpose(2, 0, 1)
        bound = 0.51 if name == "solarize-add" else levels + 1e-3
        torch.testing.assert_close(y, torch.tensor(pil).float(), rtol=0, atol=bound)


def moved(name, m, sign, size=9):
    images = noise(2, 3, size, size) / 255
    y = OPERATIONS[name](images, torch.tensor([m, 0.0]), torch.tensor([sign, sign]))
    torch.testing.assert_close(y[1], images[1], rtol=0, atol=1e-5)  # of strength zero
    return images[0], y[0]


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_operations_on_places_move_pixels_and_let_grey_in(sign):
    """At strengths that make whole pixels of the formulas: 90 degrees, a pixel a row, two pixels."""
    step = int(sign)
    x, y = moved("rotate", 3.0, sign)
    torch.testing.assert_close(y, torch.rot90(x, step, (-2, -1)), rtol=0, atol=1e-5)
    for name, axis in (("shear-x", -1), ("shear-y", -2)):
        x, y = moved(name, 1 / 0.3, sign)
        x, y = (each if axis == -1 else each.mT for each in (x, y))
        shifts = [
            (y[:, r] - shifted(x[:, r], offset)).abs().amax(-1) < 1e-5 for r in range(9) for offset in range(-9, 10)
        ]
        found = torch.stack(shifts).view(9, 19, 3).all(-1)
        assert found.any(1).all()
        offsets = found[1:8].int().argmax(1)  # rows that are not moved out
        assert (offsets.diff().abs() == 1).all() and (offsets.diff() == offsets.diff()[0]).all()
    for name, turned in (("translate-x", False), ("translate-y", True)):
        x, y = moved(name, 2 / (0.45 * 9), sign)
        x, y = (each.mT if turned else each for each in (x, y))
        torch.testing.assert_close(y, shifted(x, 2 * step), rtol=0, atol=1e-5)


def shifted(x, offset):
    """Along the last axis, grey moving in."""
    y = torch.full_like(x, 0.5)
    if offset >= 0:
        y[..., offset:] = x[..., : x.shape[-1] - offset]
    else:
        y[..., :offset] = x[..., -offset:]
    return y


def test_each_image_has_its_own_operations_strengths_and_signs(monkeypatch):
    n, seen = 4000, []

    def adding(amount):
        def operation(x, m, s):
            seen.append((m, s))
            return x + amount

        return operation

    monkeypatch.setattr(operations, "OPERATIONS", {"ones": adding(1), "tens": adding(10), "hundreds": adding(100)})
    torch.manual_seed(0)
    images = torch.arange(n).double()[:, None, None, None] / n
    added = (rand_augment(images, 9.0) - images).flatten().round()
    share = {total: (added == total).double().mean().item() for total in (0, 1, 10, 100, 2, 20, 200, 11, 101, 110)}
    assert sum(share.values()) == pytest.approx(1)
    for total, expected in (
        (0, 1 / 4),
        (1, 1 / 6),
        (10, 1 / 6),
        (100, 1 / 6),
        (2, 1 / 36),
        (11, 1 / 18),
        (110, 1 / 18),
    ):
        assert share[total] == pytest.approx(expected, abs=4 * (expected / n) ** 0.5)
    m, s = (torch.cat(each) for each in zip(*seen, strict=True))
    assert (
        m.max() <= 1
        and m.mean().item() == pytest.approx(0.9, abs=0.005)
        and m.std().item() == pytest.approx(0.05, rel=0.1)
    )
    assert set(s.tolist()) == {-1, 1} and s.mean().item() == pytest.approx(0, abs=0.1)


def test_erasing_puts_noise_into_one_rectangle():
    n, H, W = 400, 32, 40
    images = torch.full((n, 3, H, W), 2.0)  # noise stays below one
    torch.manual_seed(0)
    y, _ = only(erasing=1)(images, torch.zeros(n, dtype=torch.long), 1)
    erased = y != 2
    assert torch.equal(erased[:, 0], erased[:, 1]) and torch.equal(erased[:, 0], erased[:, 2])
    rows, columns = erased[:, 0].any(2), erased[:, 0].any(1)
    assert torch.equal(erased[:, 0], rows[:, :, None] & columns[:, None, :])
    for inside in (rows, columns):
        assert (F.pad(inside.int(), (1, 1)).diff().abs().sum(1) == 2).all()  # it begins once and ends once
    height, width = rows.sum(1), columns.sum(1)
    assert ((height + 0.5) * (width + 0.5) >= 0.02 * H * W).all()
    assert ((height - 0.5) * (width - 0.5) <= 0.33 * H * W).all() and height.unique().numel() > 15
    noise = y[erased]
    assert noise.min() >= 0 and noise.mean().item() == pytest.approx(0.5, abs=0.01)
    assert noise.std().item() == pytest.approx(12**-0.5, abs=0.01)
    y, _ = only(erasing=0.25)(images, torch.zeros(n, dtype=torch.long), 1)
    assert 0.15 < (y != 2).flatten(1).any(1).float().mean() < 0.35


def painted(labels, classes, H=12, W=20):
    """Images whose channel c is one if the label is c: their mean is the target that their pixels call for."""
    return F.one_hot(labels, classes).float()[:, :, None, None].expand(-1, -1, H, W)


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
def test_targets_mix_as_the_pixels_do(method):
    torch.manual_seed(0)
    labels = torch.arange(1000) % 5
    y, targets = only(**{method: 1.0})(painted(labels, 5), labels, 5)
    torch.testing.assert_close(y.mean((2, 3)), targets, rtol=0, atol=1e-6)
    mixed = (targets.amax(1) < 0.99).float().mean()
    assert 0.7 < mixed < 0.85  # but for partners of the same class, one in five
    if method == "mixup":
        assert torch.equal(y, y[:, :, :1, :1].expand_as(y))
    else:
        assert ((y == 0) | (y == 1)).all()
        other = y.argmax(1) != labels[:, None, None]  # where the class is the partner's
        rows, columns = other.any(2), other.any(1)
        assert torch.equal(other, rows[:, :, None] & columns[:, None, :])
        for inside in (rows, columns):
            assert (F.pad(inside.int(), (1, 1)).diff().abs().sum(1) <= 2).all()
        coverage = other.float().mean(0)  # anywhere in the image, on no side more than on the other
        assert coverage.min() > 0 and (coverage - coverage.flip(0, 1)).abs().max() < 0.1


@pytest.mark.parametrize("method", ["mixup", "cutmix"])
@pytest.mark.parametrize("a", [0.2, 0.8, 3.0])
def test_shares_are_of_the_beta_distribution(method, a):
    n = 3000
    torch.manual_seed(0)
    _, targets = only(**{method: a})(torch.zeros(n, 1, 64, 64), torch.arange(n), n)
    share = 1 - targets.diagonal().double()
    variance = 1 / (4 * (2 * a + 1))
    assert share.mean().item() == pytest.approx(0.5, abs=4 * (variance / n) ** 0.5 + 0.01 * (method == "cutmix"))
    assert share.var().item() == pytest.approx(variance, rel=0.1)
    partner = targets.fill_diagonal_(0).argmax(1)[share > 0]
    assert partner.unique().numel() == len(partner)  # a permutation


def test_mixup_and_cutmix_take_turns():
    torch.manual_seed(0)
    labels = torch.arange(30) % 5
    cuts = []
    for _ in range(60):
        y, targets = only(mixup=0.8, cutmix=1.0)(painted(labels, 5), labels, 5)
        torch.testing.assert_close(y.mean((2, 3)), targets, rtol=0, atol=1e-6)
        cuts.append(bool(((y == 0) | (y == 1)).all()))
        assert cuts[-1] or torch.equal(y, y[:, :, :1, :1].expand_as(y))
    assert 15 < sum(cuts) < 45


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(crop="centre"), "crop: expected one of none, resized, shifted; got 'centre'"),
        (dict(flip=1.5), "flip: expected 0 to 1; got 1.5"),
        (dict(rand_augment=11), "rand_augment: expected 0 to 10; got 11"),
        (dict(erasing=-0.1), "erasing: expected 0 to 1; got -0.1"),
        (dict(mixup=-1), "mixup: expected 0 or more; got -1"),
        (dict(cutmix=-1), "cutmix: expected 0 or more; got -1"),
    ],
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message):
        ImageAugmentation(**fields)
