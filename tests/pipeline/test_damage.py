"""What cannot be used is counted once a sample, said once a shard, and bounded."""

import logging
import os

import pytest

from pipeline.damage import Damage, Skipped
from pipeline.index import Shard

PLACES = {name: Shard(name, 10, 0, "") for name in "abc"}


def test_a_sample_is_counted_once_however_often_it_comes_by():
    damage = Damage(PLACES, most=1)
    for _ in range(3):
        damage.damaged("a", 4, "sample 4")
        damage.small("b", 0, "sample 0")
        damage.good("b", 1)
    assert damage.totals() == Skipped(samples=1, small=1, shards=1)
    damage.broken("a", 3, "7 of its 10 samples")
    damage.broken("c", 0, "all")
    assert damage.totals() == Skipped(samples=17, small=1, shards=2)
    assert damage.of_shards() == {"a": 7, "c": 10}


def test_what_came_back_is_no_longer_counted():
    damage = Damage(PLACES, most=1)
    damage.broken("a", 0, "the server answered 404")
    for number in range(10):
        damage.good("a", number)
    assert damage.totals() == Skipped()


def test_what_a_child_process_counts_its_parent_sees():
    damage = Damage(PLACES, most=1)
    child = os.fork()
    if not child:
        damage.damaged("a", 4, "sample 4")
        os._exit(0)
    os.waitpid(child, 0)
    damage.damaged("a", 5, "sample 5")
    assert damage.totals() == Skipped(samples=2, shards=1)


def test_each_cause_is_said_once_a_shard(caplog):
    damage = Damage(PLACES, most=1)
    with caplog.at_level(logging.WARNING):
        for number in range(5):
            damage.damaged("a", number, f"damage {number}")
            damage.small("a", number, f"size {number}")
            damage.small("b", number, f"size {number}")
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "shard a: skipped damage 0",
        "shard a: skipped size 0",
        "shard b: skipped size 0",
    ]


def test_more_damage_than_allowed_stops_with_the_cure():
    damage = Damage(PLACES, most=0.1)
    for number in range(3):
        damage.damaged("a", number, f"sample {number}")
    said = r"4 of 30 samples are damaged .* data\.max_bad_share 0\.1 .*; the last: sample 3; copy"
    with pytest.raises(ValueError, match=said):
        damage.damaged("a", 3, "sample 3")


def test_small_samples_are_no_damage():
    damage = Damage(PLACES, most=0.0)
    for number in range(10):
        damage.small("a", number, "small")
    assert damage.totals() == Skipped(small=10)


def test_a_rank_judges_what_it_has_seen_or_its_part_of_the_set():
    damage = Damage(PLACES, most=0.1, world=3)
    damage.damaged("a", 0, "sample 0")
    with pytest.raises(ValueError, match="2 of 10 samples"):
        damage.damaged("a", 1, "sample 1")
    damage = Damage(PLACES, most=0.1, world=3)
    for number in range(10):
        damage.good("b", number)
        damage.good("c", number)
    damage.damaged("a", 0, "sample 0")
    damage.damaged("a", 1, "sample 1")


def test_totals_of_two_splits_add_up():
    assert Skipped(1, 2, 3) + Skipped(10, 20, 30) == Skipped(11, 22, 33)


def test_what_ranks_skip_together_counts_a_sample_that_two_of_them_met_once():
    one, other = (Damage(PLACES, most=1) for _ in range(2))
    one.damaged("a", 1, "x")
    one.small("b", 1, "x")
    other.damaged("a", 1, "x")
    other.damaged("b", 0, "x")
    found = []
    other.totals(lambda mine: found.append(mine) or mine)
    assert one.totals(lambda mine: mine + found[0]) == Skipped(samples=2, small=1, shards=2)
    assert one.totals() == Skipped(samples=1, small=1, shards=1)
