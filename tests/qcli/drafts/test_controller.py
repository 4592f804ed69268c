"""What is guessed, by what steps take and how often guesses come true: single decisions; whole texts are simulated."""

from __future__ import annotations

from itertools import pairwise

import pytest

from qcli.drafts.controller import Controller, Offer
from qcli.drafts.estimates import Chances, Time


def learned(*costs, guess_s=0.0):
    """Steps with 0, 1, 2, ... guesses that took so long, long enough; all of them came true."""
    controller = Controller(7)
    for _ in range(60):
        for count, cost in enumerate(costs):
            controller.took(count, cost, guess_s * count)
            for _ in range(count):
                controller.came_true()
    controller.took(0, costs[0])
    return controller


def offer(share, most=7, by_head=False):
    return Offer(Chances(share), most, by_head)


def count(controller, *offers):
    chosen = controller.choose(offers)
    return chosen[1] if chosen else 0


def test_what_always_comes_true_is_guessed_as_far_as_it_pays():
    cheap = learned(1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7)
    assert count(cheap, offer(1.0)) == 7
    assert count(cheap, offer(1.0, most=4)) == 4
    dear = learned(1.0, 1.1, 2.9, 3.9, 4.9, 5.9, 6.9, 7.9)
    assert count(dear, offer(1.0)) == 1


def test_the_gain_counts_what_guesses_cost():
    controller = learned(1.0, 1.2, 1.4, 1.6)
    assert controller.gain(offer(0.8), 3) == pytest.approx((1 + 0.8 + 0.64 + 0.512) / 1.6, rel=1e-3)
    controller = learned(1.0, 1.2, 1.4, 1.6, guess_s=0.6)
    assert controller.gain(offer(0.8, by_head=True), 3) == pytest.approx((1 + 0.8 + 0.64 + 0.512) / 3.4, rel=1e-3)
    assert controller.gain(offer(0.8), 3) == pytest.approx((1 + 0.8 + 0.64 + 0.512) / 1.6, rel=1e-3)


def test_of_two_offers_the_one_that_promises_more():
    controller = learned(1.0, 1.2, 1.4, 1.6, guess_s=0.1)
    text, head = offer(0.3), offer(0.9, by_head=True)
    chosen = controller.choose([text, head])
    assert chosen
    assert chosen[0] is head
    text = offer(0.9)
    chosen = controller.choose([text, head])
    assert chosen
    assert chosen[0] is text


def test_between_known_costs_there_is_a_mean():
    controller = learned(2.0, 2.0)
    for _ in range(80):
        controller.took(0, 2.0)
        controller.took(3, 5.0)
    assert controller.step_cost(0) == 1
    assert controller.step_cost(3) == pytest.approx(2.5, rel=1e-3)
    assert controller.step_cost(2) == pytest.approx(1.75, rel=1e-2)
    assert controller.step_cost(5) == pytest.approx(3.5, rel=1e-2)


def test_more_guesses_are_tried_step_by_step():
    controller, most = learned(1.0), []
    for _ in range(6):
        most.append(count(controller, offer(1.0)))
        controller.took(most[-1], 1.0)
        for _ in range(most[-1]):
            controller.came_true()
    assert most[0] == 1
    assert all(after <= 2 * before + 1 for before, after in pairwise(most))
    assert max(most) == 7


def test_what_guesses_have_cost_is_paid_off_before_others_are_tried():
    """Nothing comes true that was promised: a text takes hardly longer, whatever is expected of it."""
    controller, guessed, liar = learned(1.0), 0, offer(0.9)
    for _ in range(1000):
        tried = count(controller, liar)
        controller.took(tried, 1.0 + 0.5 * tried)
        guessed += 0.5 * tried
    assert guessed < 1000 * 0.02 + 3


def test_two_offers_that_are_not_taken_fade_the_costs_once():
    """As one does: what steps have cost was forgotten twice as fast where the head might have guessed, too."""
    costs = []
    for offers in ([offer(0.0)], [offer(0.0), offer(0.0, by_head=True)]):
        controller = learned(1.0, 2.0, 3.0)
        for _ in range(400):
            controller._balance = 0.0
            assert controller.choose(offers) is None
        costs.append(controller.step_cost(1))
    assert costs[0] == costs[1]
    assert 1.35 < costs[0] < 1.6


def test_what_did_not_pay_is_tried_again_seldom():
    controller = learned(1.0, 1.2, 1.4)
    kind = controller.chances("kind", 0.6)
    for _ in range(60):
        kind.note(False)
    tried = 0
    for _ in range(2000):
        if count(controller, Offer(kind, 2)):
            tried += 1
            kind.note(False)
            controller.took(1, 1.2)
        else:
            controller.took(0, 1.0)
    assert 20 < tried < 300
    assert controller.chances("kind", 0.6) is kind


def test_first_one_token_then_several_and_now_and_then_one_again():
    controller = Controller(7)
    for _ in range(3):
        assert count(controller, offer(1.0)) == 0
        controller.took(0, 1.0)
    found = []
    for _ in range(100):
        found.append(count(controller, offer(1.0, most=3)))
        controller.took(found[-1], 1.0 + 0.1 * found[-1])
        for _ in range(found[-1]):
            controller.came_true()
    assert 2 <= found.count(0) <= 4
    assert found.count(3) > 85


def test_where_experts_are_streamed_only_what_is_nearly_sure_is_tried():
    resident, streamed = Controller(7), Controller(7, streamed=True)
    for controller in (resident, streamed):
        for _ in range(3):
            controller.took(0, 1.0)
    assert [count(resident, offer(share)) > 0 for share in (0.6, 0.9)] == [True, True]
    assert [count(streamed, offer(share)) > 0 for share in (0.6, 0.9)] == [False, True]
    for _ in range(60):
        streamed.took(0, 1.0)
        streamed.took(1, 1.1)
        streamed.came_true()
    assert count(streamed, offer(0.6, most=1)) == 1  # as it is measured to gain


def test_what_something_else_held_up_is_no_measure():
    time = Time()
    assert [time.note(1.0) for _ in range(4)] == [1.0] * 4
    assert time.note(75.0) is None
    assert time.note(1.0) == 1.0
    assert time.note(3.0) is None
    assert time.note(3.2) == pytest.approx(3.1)  # it has become so


def test_shares_follow_what_comes_true():
    found = Chances(0.5)
    for _ in range(100):
        found.note(True)
    assert found.share > 0.9
    for _ in range(100):
        found.note(False)
    assert found.share < 0.1
    for _ in range(2000):
        found.fade(0.005)
    assert found.share == pytest.approx(0.5, abs=0.01)


def test_trials_that_bring_less_than_they_cost_are_fewer_and_fewer():
    """And as many as before, once they pay."""

    def tried(controller, steps, comes_true):
        found, head = 0, Offer(controller.chances("head", 0.6), 1, by_head=True)
        for _ in range(steps):
            guesses = 0 if controller.rests(by_head=True) else count(controller, head)
            controller.took(guesses, 1.0 + 0.4 * guesses, 0.5 * guesses)
            if guesses:
                head.chances.note(comes_true)
                if comes_true:
                    controller.came_true()
            found += guesses
        return found

    controller = learned(1.0, 1.4, guess_s=0.5)
    halves = [tried(controller, 3000, comes_true=False) for _ in range(2)]
    assert 0 < halves[1] < 0.7 * halves[0]
    assert halves[1] < 3000 * 0.005
    assert tried(controller, 3000, comes_true=True) > 2000


def test_a_head_that_does_not_pay_is_not_asked_about_before_every_step():
    controller, asked = learned(1.0, 2.5, guess_s=0.5), 0
    head = Offer(Chances(0.3), 1, by_head=True)
    for _ in range(400):
        if not controller.rests(by_head=True):
            asked += 1
            controller.choose([head])
        controller.took(0, 1.0)
    assert 20 < asked < 80


def resting():
    """A controller whose head has not paid for long, so that it rests; and what could be guessed."""
    controller = learned(1.0, 1.2, guess_s=0.9)
    head, text = Offer(Chances(0.3), 1, by_head=True), offer(0.95, most=1)
    for _ in range(200):
        if not controller.rests(by_head=True):
            controller._balance = 0.0
            assert controller.choose([head]) is None
        controller.took(0, 1.0)
    while not controller.rests(by_head=True):
        controller.choose([head])
    return controller, head, text


def test_guesses_of_the_text_end_the_rest_of_the_head():
    """They tell what steps of several cost now: it may pay."""
    controller, head, text = resting()
    assert controller.rests(by_head=True)
    controller._balance = 3.0
    chosen = controller.choose([text, head])
    assert chosen
    assert chosen[0] is text
    controller.took(1, 1.2)
    assert not controller.rests(by_head=True)


def test_a_head_that_pays_no_more_than_before_rests_as_long_as_before():
    """Guesses of the text in between did not make it be asked about before each of the next 64 steps."""
    controller, head, text = resting()
    controller._balance, asked = 3.0, 0
    assert count(controller, text, head) == 1
    controller.took(1, 1.2)
    for _ in range(64):
        if not controller.rests(by_head=True):
            controller._balance, asked = 0.0, asked + 1
            assert controller.choose([head]) is None
        controller.took(0, 1.0)
    assert asked <= 4


def test_steps_of_a_rest_pay_for_trials_whatever_ends_it():
    controller, head, text = resting()
    controller._balance, controller._keen = 0.5, 1.0
    before, rested = controller._balance, 0
    while controller.rests(by_head=True):
        controller.took(0, 1.0)
        rested += 1
    assert rested > 8
    assert count(controller, text, head) == 1
    assert controller._balance > before + 0.0149 * rested
