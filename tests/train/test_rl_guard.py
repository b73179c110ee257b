"""The guard tells over-optimisation from noise, by looks that can be checked by hand."""

import math
import random

from llmctl.train.rl_guard import Look, judge_looks, paired_z

N = 64


def look(step, proxy, gold, noise=0.3, seed=0):
    rng = random.Random(seed * 1000 + step)
    each = random.Random(5)
    hard = [each.gauss(0, 2) for _ in range(N)]  # how hard each prompt is; the same in every look
    scores = [[h + mean + rng.gauss(0, noise) for h in hard] for mean in (proxy, gold)]
    return Look(step, *scores)


def test_paired_z_by_hand():
    assert paired_z([2.0, 3.0, 4.0], [1.0, 1.0, 1.0]) == 2 / math.sqrt(1 / 3)
    assert paired_z([1.0, None], [0.0, 0.0]) == 0.0
    assert paired_z([1.0, 2.0], [0.0, 1.0]) == math.inf
    assert paired_z([1.0, 2.0], [1.0, 2.0]) == 0.0


def test_proxy_up_and_gold_down_twice_is_over_optimised():
    looks = [look(0, 0, 0), look(10, 1, 0.5), look(20, 2, 0.2)]
    assert not judge_looks(looks).over_optimised  # once may be chance
    verdict = judge_looks([*looks, look(30, 3, 0.1)])
    assert verdict.over_optimised and verdict.best.step == 10
    assert verdict.proxy_z > 1.7 and verdict.gold_z < -1.7


def test_both_falling_or_both_rising_is_not():
    assert judge_looks([look(10 * i, i, i) for i in range(5)]).alarms == 0
    assert judge_looks([look(10 * i, -i, -i) for i in range(5)]).alarms == 0
    assert judge_looks([look(10 * i, i, 0) for i in range(5)]).best.step in range(0, 50, 10)


def test_noise_alone_rarely_alarms():
    stops = sum(
        judge_looks([look(i, 0, 0, seed=seed) for i in range(10)]).over_optimised
        for seed in range(200)
    )
    assert stops <= 2


def test_one_good_look_between_clears_the_alarm():
    looks = [look(0, 0, 1), look(10, 1, 0), look(20, 2, 1), look(30, 3, 0)]
    assert judge_looks(looks).alarms == 1
