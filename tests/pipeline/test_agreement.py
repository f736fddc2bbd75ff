import multiprocessing
from pathlib import Path

from torch import distributed

from pipeline.agreement import AnyRank


def ask(rank: int, place: str, answers: multiprocessing.SimpleQueue) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{place}", rank=rank, world_size=2)
    any_rank = AnyRank()
    wishes = [rank == 1 and step == 2 for step in range(5)]
    answers.put([any_rank(wish) for wish in wishes])
    distributed.destroy_process_group()


def test_the_wish_of_one_rank_reaches_all_at_the_same_later_step(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    ranks = [
        context.Process(target=ask, args=(rank, str(tmp_path / "meet"), answers)) for rank in (0, 1)
    ]
    for rank in ranks:
        rank.start()
    assert [answers.get(), answers.get()] == [[False, False, False, True, False]] * 2
    for rank in ranks:
        rank.join()


def test_a_process_that_is_alone_gets_its_wish_at_once():
    any_rank = AnyRank()
    assert [any_rank(wish) for wish in (False, True, False)] == [False, True, False]
