"""The searches of quant.fitting.search for one sub-block, as float32 arithmetic in the order of its columns."""

import numpy as np

F = np.float32


def total(values):
    """Their sum, one after the other."""
    result = F(0)
    for value in values:
        result = F(result + value)
    return result


def levels(values, least, most):
    return np.clip(np.rint(values), least, most).astype(F)


def affine(x, w, most, first, step, steps, magnitudes=False):
    """-> scale, minimum"""

    def error(q, scale, low):
        difference = scale * q + low - x
        return total(w * (np.abs(difference) if magnitudes else difference * difference))

    low, high = min(x.min(), F(0)), x.max()
    if low == high:
        return F(0), -low
    scale = F(1) / (F(most) / (high - low))
    best = error(levels(F(most) / (high - low) * (x - low), 0, most), scale, low)
    sum_w, sum_x = total(w), total(w * x)
    for i in range(steps + 1):
        q = levels((F(first) + F(step) * F(i) + F(most)) / (high - low) * (x - low), 0, most)
        sum_l, sum_l2, sum_xl = total(w * q), total(w * q * q), total(w * q * x)
        determinant = sum_w * sum_l2 - sum_l * sum_l
        if not determinant > 0:
            continue
        new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant
        new_low = (sum_l2 * sum_x - sum_l * sum_xl) / determinant
        if new_low > 0:
            new_scale, new_low = sum_xl / sum_l2, F(0)
        if error(q, new_scale, new_low) < best:
            best, scale, low = error(q, new_scale, new_low), new_scale, new_low
    return scale, -low


def symmetric(x, w, most):
    """-> scale"""
    extreme = x[np.abs(x).argmax()]
    if abs(extreme) < 1e-15:
        return F(0)
    scale, best = F(0), F(0)
    for i in (0, *range(-9, 0), *range(1, 10)):
        q = levels(-(F(most) + F(0.1) * F(i)) / extreme * x, -most, most - 1)
        sum_xl, sum_l2 = total(w * x * q), total(w * q * q)
        if sum_l2 > 0 and (i == 0 or sum_xl * sum_xl > best * sum_l2):
            scale = sum_xl / sum_l2
            best = scale * sum_xl
    return scale


def improve(x, w, q, least, most, others):
    """Five rounds over q, which is changed. -> scale"""
    sum_xl, sum_l2 = total(w * x * q), total(w * q * q)
    for i in list(range(len(x))) * 5:
        other_xl, other_l2 = F(sum_xl - w[i] * x[i] * q[i]), F(sum_l2 - w[i] * q[i] * q[i])
        if not (other_xl > 0 and (other_l2 > 0 or not others)):
            continue
        new = levels(x[i] * other_l2 / other_xl, least, most)
        new_xl, new_l2 = F(other_xl + w[i] * x[i] * new), F(other_l2 + w[i] * new * new)
        if new != q[i] and new_l2 > 0 and new_xl * new_xl * sum_l2 > sum_xl * sum_xl * new_l2:
            q[i], sum_xl, sum_l2 = new, new_xl, new_l2
    return sum_xl / sum_l2 if sum_l2 > 0 else F(0)


def symmetric_by_rounds(x, most):
    """-> scale, q"""
    extreme = x[np.abs(x).argmax()]
    if abs(extreme) < 1e-15:
        return F(0), np.full(len(x), -most, F)
    q = levels(F(-most) / extreme * x, -most, most - 1)
    return improve(x, x * x, q, -most, most - 1, False), q


def positive(x, w, most):
    """-> scale, q"""
    if x.max() < 1e-15:
        return F(0), np.zeros(len(x), F)
    inverses = [(F(0.1) * F(i) + F(most)) / x.max() for i in (0, *range(-4, 0), *range(1, 5))]
    differences = [x - F(1) / inverse * levels(inverse * x, 0, most) for inverse in inverses]
    errors = [total(w * difference * difference) for difference in differences]
    q = levels(inverses[np.argmin(errors)] * x, 0, most)
    return improve(x, w, q, 0, most, True), q
