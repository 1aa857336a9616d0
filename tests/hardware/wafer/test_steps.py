from lapidist.hardware.wafer.description import Description
from lapidist.hardware.wafer.steps import Pointwise, Reconfigure, Repeat, Together, unrolled


def named(name: str) -> Pointwise:
    return Pointwise(name, (), (), 1)


def test_loops_are_unrolled_and_overlapping_steps_listed() -> None:
    program = (
        named("a"),
        Reconfigure(),
        Repeat(2, (Together((named("b"), named("c"))), named("d"))),
        Repeat(0, (named("never"),)),
        Together((named("e"),)),
    )
    found = [(step.operation, turn) for step, turn in unrolled(program)]  # type: ignore[union-attr]
    assert found == [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("b", 1), ("c", 1), ("d", 1), ("e", 0)]
    assert list(Description("p", 1, 1, {}, program).execution()) == list(unrolled(program))
