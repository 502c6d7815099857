"""The few sizes that steps are recorded and compiled for. S slots, n of them in use."""


def bucket(size: int, most: int, least: int = 1) -> int:
    """The next of 1, 2, 3, 4, 6, 8, 12, 16, 24, ..., at least `least` and at most `most`.

    Powers of two and one between: at most a third of a bucket is unused, and S slots have 2 log2 S of them.
    """
    size = max(size, least)
    power = 1 << (size - 1).bit_length()
    between = 3 * power // 4
    return min(between if power >= 4 and size <= between else power, most)


def quarter(rows: int, slots: int) -> int:
    """The least of S, S/4, S/16, ... (rounded up) that holds n rows.

    A step of few rows takes about as long as one of four times as many, since it reads the same weights; so a
    compilation, which takes long, is worth it for few sizes only.
    """
    found = slots
    while rows <= -(-found // 4) < found:
        found = -(-found // 4)
    return found
