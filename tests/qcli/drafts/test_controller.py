"""How many tokens are guessed, by what steps take and how often guesses come true."""

from __future__ import annotations

import pytest

from qcli.drafts.controller import Chances, Controller


def learned(*costs):
    """Steps of 1, 2, ... tokens that took so long, long enough."""
    controller = Controller(8)
    for _ in range(60):
        for width, cost in enumerate(costs, 1):
            controller.took(width, cost)
    return controller


def chances(share):
    return Chances(share)


def test_what_always_comes_true_is_guessed_as_far_as_it_pays():
    cheap = learned(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7)
    assert cheap.width(chances(1.0), 8)[0] == 8
    assert cheap.width(chances(1.0), 5)[0] == 5
    dear = learned(1.0, 1.1, 2.9, 3.9, 4.9, 5.9, 6.9, 7.9)
    assert dear.width(chances(1.0), 8)[0] == 2


def test_what_seldom_comes_true_is_not_guessed():
    assert learned(1.0, 1.2, 1.4).width(chances(0.1), 8) == (1, pytest.approx(1.03))
    assert learned(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0).width(chances(0.9), 8)[0] == 8


def test_the_gain_counts_what_guesses_cost():
    controller = learned(1.0, 1.2, 1.4, 1.6)
    width, gain = controller.width(chances(0.8), 4)
    assert (width, gain) == (4, pytest.approx((1 + 0.8 + 0.64 + 0.512) / 1.6, rel=1e-3))
    assert controller.width(chances(0.8), 4, cost_of_guess=0.6)[0] == 1


def test_between_known_costs_there_is_a_mean():
    controller = Controller(8)
    for _ in range(80):
        controller.took(1, 2.0)
        controller.took(4, 5.0)
    assert controller.cost(1) == 1
    assert controller.cost(4) == pytest.approx(2.5, rel=1e-3)
    assert controller.cost(2) == pytest.approx(1.5, rel=1e-3)
    assert controller.cost(6) == pytest.approx(3.5, rel=1e-3)


def test_a_step_that_something_else_held_up_is_no_measure():
    controller = learned(1.0)
    controller.took(2, 75.0)
    assert controller.cost(2) < 2


def test_shares_follow_what_comes_true():
    found = chances(0.5)
    for _ in range(100):
        found.note(True)
    assert found.share > 0.9
    for _ in range(100):
        found.note(False)
    assert found.share < 0.1


def test_what_did_not_pay_is_tried_again_seldom():
    controller = learned(1.0, 1.2, 1.4)
    kind = controller.chances("kind", 0.6)
    assert controller.width(kind, 3)[0] > 1
    for _ in range(30):
        kind.note(False)
    waited = 0
    while controller.width(kind, 3)[0] == 1:
        controller.pass_by(kind)
        waited += 1
    assert 20 < waited < 2000
    assert controller.chances("kind", 0.6) is kind


def test_dear_steps_are_tried_again_too():
    controller = learned(1.0, 2.0, 3.0)
    assert controller.width(chances(0.8), 3)[0] == 1
    for _ in range(1000):
        controller.pass_by(chances(0.8))
    assert controller.width(chances(0.8), 3)[0] > 1


def test_first_one_token_then_several_and_now_and_then_one_again():
    controller = Controller(8)
    for _ in range(3):
        assert controller.width(chances(1.0), 8)[0] == 1
        controller.took(1, 1.0)
    widths = []
    for _ in range(60):
        widths.append(controller.width(chances(1.0), 4)[0])
        controller.took(widths[-1], 1.0 + 0.1 * widths[-1])
    assert 1 <= widths.count(1) <= 4
    assert set(widths) == {1, 4}


def test_what_the_models_own_guesses_cost():
    controller = learned(1.0, 1.2, 1.4)
    controller.guessed(1, 50.0)  # made ready
    assert controller.cost_of_guess == 0
    for _ in range(50):
        controller.guessed(2, 0.6)
    assert controller.cost_of_guess == pytest.approx(0.3, rel=1e-3)
    for _ in range(300):
        controller.pass_by(chances(0.5))
    assert controller.cost_of_guess < 0.1


def test_where_experts_are_streamed_only_what_is_nearly_sure_is_tried():
    resident, streamed = Controller(8), Controller(8, streamed=True)
    for controller in (resident, streamed):
        for _ in range(3):
            controller.took(1, 1.0)
    assert [resident.width(chances(share), 8)[0] > 1 for share in (0.6, 0.9)] == [True, True]
    assert [streamed.width(chances(share), 8)[0] > 1 for share in (0.6, 0.9)] == [False, True]
    for _ in range(60):
        streamed.took(1, 1.0)
        streamed.took(2, 1.1)
    assert streamed.width(chances(0.6), 2)[0] == 2  # as it is measured to gain
