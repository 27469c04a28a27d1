"""Shares of wins against scipy, and which pairs they are of."""

import math

import pytest
from scipy import stats

from lsc_ext.experiments.grid import COMPARISONS, Run
from lsc_ext.experiments.networks import ARMS
from lsc_ext.experiments.statistics import binomial_p, count, pairs_of, score, shares, wilson


@pytest.mark.parametrize("pairs", [1, 2, 3, 24, 31, 72, 1000])
def test_intervals_and_p_values_are_scipys(pairs):
    for wins in {0, 1, pairs // 3, pairs // 2, (pairs + 1) // 2, pairs - 1, pairs}:
        expected = stats.binomtest(wins, pairs)
        assert wilson(wins, pairs) == pytest.approx(tuple(expected.proportion_ci(0.95, "wilson")), abs=1e-12)
        assert binomial_p(wins, pairs) == pytest.approx(expected.pvalue, rel=1e-10)


def test_without_pairs_nothing_is_known():
    assert wilson(0, 0) == (0.0, 1.0)
    assert binomial_p(0, 0) == 1.0
    assert count([]).verdict == "no claim"
    assert math.isnan(count([]).share)


@pytest.mark.parametrize(("wins", "pairs"), [(-1, 3), (4, 3)])
def test_impossible_counts_are_refused(wins, pairs):
    with pytest.raises(ValueError, match=f"wins: expected between 0 and the 3 pairs, got {wins}"):
        wilson(wins, pairs)


@pytest.mark.parametrize(
    ("wins", "losses", "verdict"),
    [
        (10, 0, "wins"),
        (0, 10, "loses"),
        (6, 0, "wins"),
        (0, 6, "loses"),
        (7, 3, "no claim"),
        (5, 5, "no claim"),
        (61, 39, "wins"),
        (59, 41, "no claim"),
    ],
)
def test_nothing_is_claimed_where_the_interval_includes_one_half(wins, losses, verdict):
    share = count([(1.0, 0.0)] * wins + [(0.0, 1.0)] * losses + [(0.5, 0.5)] * 3)
    assert (share.wins, share.losses, share.ties, share.pairs) == (wins, losses, 3, wins + losses)
    assert share.verdict == verdict
    assert (share.low <= 0.5 <= share.high) == (verdict == "no claim")


@pytest.mark.parametrize(("wins", "losses"), [(4, 0), (0, 4), (5, 0), (0, 5)])
def test_nothing_is_claimed_of_few_pairs_where_the_interval_is_too_narrow(wins, losses):
    share = count([(1.0, 0.0)] * wins + [(0.0, 1.0)] * losses)
    assert not share.low <= 0.5 <= share.high
    assert stats.binomtest(wins, wins + losses).pvalue > 0.05
    assert share.verdict == "no claim"


def made(arm, test, *, task="rows", network="gru", seed=0, lr=1e-3):
    source = "topics" if task == "language" else "mnist_5k"
    run = Run("recurrent", task, source, network, 5, 32, arm, lr, seed, 8, 50)
    return {"config": run.config(), "result": {"test": test, "guessing": 200.0 if task == "language" else 0.1}}


def test_more_accuracy_and_less_perplexity_win():
    for task, better, worse in (("rows", 0.9, 0.8), ("language", 90.0, 100.0)):
        results = [made("0.5", better, task=task), made("none", worse, task=task)]
        assert shares(results, "0.5", "none")["all"].wins == 1
        assert shares(results, "none", "0.5")["all"].losses == 1


@pytest.mark.parametrize(
    ("task", "learnt", "nothing"),
    [("rows", [0.126, 0.5, 1.0], [0.0, 0.09, 0.125, None]), ("language", [195.9, 80.0], [196.0, 200.0, 1e6, None])],
)
def test_who_learnt_wins_over_who_did_not_and_of_those_none_wins(task, learnt, nothing):
    def scored(test):
        entry = made("1", test, task=task)
        return score(Run(**entry["config"]), entry["result"])

    assert len({scored(test) for test in nothing}) == 1
    assert [scored(test) > scored(nothing[0]) for test in learnt] == [True] * len(learnt)
    assert [scored(test) for test in learnt] == sorted(scored(test) for test in learnt)


def test_pairs_differ_in_their_arm_alone():
    results = [
        made("1", 0.5),
        made("none", 0.4),
        made("1", 0.6, seed=1),  # nobody to compare with
        made("none", 0.9, network="lstm"),
        made("1", 0.8, network="lstm"),
        made("1", 0.7, lr=1e-2),
        made("none", 0.7, lr=1e-4),
        made("0.5", 0.99),
    ]
    found = pairs_of(results, "1", "none")
    assert [(run.network, run.arm, a, b) for run, a, b in found] == [("gru", "1", 0.5, 0.4), ("lstm", "1", 0.8, 0.9)]
    grouped = shares(results, "1", "none")
    assert list(grouped) == ["all", "gru", "lstm"]
    assert [(share.wins, share.losses) for share in grouped.values()] == [(1, 1), (1, 0), (0, 1)]


def test_comparisons_are_between_arms():
    assert {arm for pairs in COMPARISONS.values() for pair in pairs for arm in pair} == set(ARMS)
