from visiondx import timing


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
