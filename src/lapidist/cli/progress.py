"""The progress bar of commands whose work has several parts."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar on stderr, as a function of what is being done, how much of it is done, and all."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress

    bar = Progress(
        *Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True), transient=True
    )
    task = bar.add_task("", total=None)

    def show(label: str, done: int, total: int) -> None:
        bar.start()  # not before: a mistake that is found first leaves nothing but its sentence
        if done == 0:
            bar.reset(task)  # the next part has a pace of its own
        bar.update(task, description=escape(label), completed=done, total=total)

    try:
        yield show
    finally:
        if bar.live.is_started:
            bar.stop()
