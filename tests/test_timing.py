import torch

from visiondx.core import timing


def test_calls_take_turns_and_the_first_is_not_counted(monkeypatch):
    clock, order = [0.0], []

    def call(name, seconds):
        def run():
            order.append(name)
            clock[0] += seconds * (10 if len(order) <= 2 else 1)  # slow while warming up

        return run

    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    found = timing.race({"a": call("a", 1.0), "b": call("b", 2.0)}, turns=3)
    assert order == ["a", "b"] * 4
    assert found.columns.tolist() == ["a", "b"]
    assert found["a"].tolist() == [1.0] * 3
    assert (found["b"] / found["a"]).tolist() == [2.0] * 3


def test_peak_memory_counts_what_is_held_at_once():
    size = 100_000  # float32: 0.4 MB

    def one_after_another():
        for _ in range(5):
            torch.zeros(size)

    def together():
        return [torch.zeros(size) for _ in range(5)]

    assert 4 * size <= timing.peak_memory(one_after_another) < 6 * size
    assert 20 * size <= timing.peak_memory(together) < 22 * size
