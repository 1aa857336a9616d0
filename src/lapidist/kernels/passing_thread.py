"""Using OpenMP once without leaving a team of its threads behind."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def in_passing_thread(function: Callable[[], Result]) -> Result:
    """Call a function in a thread that ends with it; its result is returned, what it raises is raised.

    OpenMP (GCC's, on which PyTorch and the native library run) keeps a team for each thread that ever used it. Once the
    teams have more members than there are cores, all of them sleep between operators instead of spinning, and waking
    them takes longer than a small operator does. What a thread prepares for another to run should leave no team.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except BaseException as error:  # the caller's to handle
            outcome.set_exception(error)

    # Daemonic: interrupting the caller does not wait for it.
    thread = threading.Thread(target=run, name="lapidist-passing", daemon=True)
    thread.start()
    result = outcome.result()
    thread.join()  # its team ends with it
    return result
