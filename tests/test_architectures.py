"""The table of architectures: every entry runs again; the JSON and README say what was found."""

import copy
import dataclasses
import json

import architectures
import pytest
from architectures import CHECKS, COLUMNS, CUDA, README, RESULTS, ROWS

import lsc_ext as lsc

REPORT = json.loads(RESULTS.read_text())
CHECKED = [(name, column) for name in ROWS for column in CHECKS]
PRETRAINED = [
    (name, c) for name, row in ROWS.items() for c in architectures.columns_of(row) if c not in (*CHECKS, CUDA)
]


def assert_recorded(report, name, column, found):
    """The JSON's verdict is the one found; a "no" has a reason."""
    entry = report["rows"][name][column]
    assert entry["verdict"] == found["verdict"], f"{name}, {column}: recorded {entry['verdict']}, found {found}"
    assert entry["verdict"] != "no" or entry["reason"] == found["reason"] != ""


def shown():
    text = README.read_text()
    return text[text.index(architectures.BEGIN) + len(architectures.BEGIN) : text.index(architectures.END)]


@pytest.mark.parametrize(("name", "column"), CHECKED)
def test_entry_is_what_was_recorded(name, column):
    assert_recorded(REPORT, name, column, architectures.check(ROWS[name], column))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "column"), PRETRAINED)
def test_pretraining_ends_as_recorded(name, column):
    assert_recorded(REPORT, name, column, architectures.check(ROWS[name], column))


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.quick is not None])
def test_a_small_network_reaches_its_default_target_in_seconds(name):
    found = architectures.pretrain_quickly(ROWS[name])
    assert found["worst"] <= architectures.ALLOWED
    assert_recorded(REPORT, name, architectures.quick_column(ROWS[name]), found)


def test_every_entry_is_recorded():
    assert list(REPORT["rows"]) == list(ROWS)
    for name, row in ROWS.items():
        assert list(REPORT["rows"][name]) == list(architectures.columns_of(row))


def test_every_named_architecture_of_the_package_has_a_row():
    left_out = {"feed_forward_identity", "feed_forward_sigmoid"}  # as the others but for the activation
    assert set(lsc.nn.architectures.ARCHITECTURES) - left_out <= set(ROWS)


def test_readme_shows_the_recorded_table():
    assert shown() == architectures.table(REPORT)


@pytest.mark.parametrize(("column", "planted"), [("time", "no"), ("forward", "wrong"), ("radius gradient", "no")])
def test_a_planted_verdict_is_caught(column, planted):
    report = copy.deepcopy(REPORT)
    report["rows"]["gru"][column] |= {"verdict": planted, "reason": "planted"}
    found = architectures.check(ROWS["gru"], column)
    assert_recorded(REPORT, "gru", column, found)
    with pytest.raises(AssertionError, match=f"gru, {column}: recorded {planted}, found"):
        assert_recorded(report, "gru", column, found)
    assert architectures.table(report) != shown()


def test_a_planted_miss_is_caught():
    report = copy.deepcopy(REPORT)
    report["rows"]["ind_rnn"]["pretrain to 0.5"]["verdict"] = "missed"
    with pytest.raises(AssertionError, match="recorded missed, found"):
        assert_recorded(report, "ind_rnn", "pretrain to 0.5", architectures.pretrain_quickly(ROWS["ind_rnn"]))


@pytest.mark.parametrize("column", COLUMNS[2:7])
def test_a_radius_that_is_off_is_caught(column, monkeypatch):
    right = lsc.radii

    def off(*args, **options):
        report = right(*args, **options)
        return {d: dataclasses.replace(e, radius=e.radius * (1 + 1e-8)) for d, e in report.items()}

    monkeypatch.setattr(lsc, "radii", off)
    with pytest.raises(AssertionError, match="radii: relative error"):
        architectures.check(ROWS["gru"], column)
