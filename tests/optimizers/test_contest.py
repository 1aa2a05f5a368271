from routedk.optimizers.contest import Contest


def test_a_newcomer_must_beat_the_incumbent_beyond_chance() -> None:
    contest = Contest(level=0.1, seed=0)
    assert contest.enter([0.0] * 4, 1.0) == {
        "against": None,
        "difference": None,
        "p": None,
        "replaced": None,
    }
    one = contest.enter([1.0, 1.0, 0.0, 0.0], 9.0)
    assert one == {"against": 0, "difference": 0.5, "p": 0.25, "replaced": False}
    assert (contest.leader, contest.kept()) == (1, 0)
    two = contest.enter([1.0] * 4, 9.0)
    assert two == {"against": 0, "difference": 1.0, "p": 1 / 16, "replaced": True}
    three = contest.enter([1.0, 1.0, 1.0, 0.5], 1.0)
    assert (three["against"], three["difference"], three["replaced"]) == (2, -0.125, False)
    assert (contest.leader, contest.kept()) == (2, 2)


def test_a_contest_among_some() -> None:
    contest = Contest(level=0.1, seed=0)
    for scores in ([1.0] * 4, [0.0] * 4, [0.5] * 4, [0.6, 0.4, 0.6, 0.5]):
        contest.enter(scores, 1.0)
    assert contest.kept() == 0
    assert contest.kept([1, 2, 3]) == 2
    assert contest.kept([3]) == 3
