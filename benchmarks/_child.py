"""A call in a process of its own, which is ended when its time is up."""

from __future__ import annotations

import multiprocessing
import pickle

GRACE = 10.0


class TimeLimit(Exception):
    """The call took longer than it was given."""


def call_within(seconds, function, *arguments):
    """Return what the function returns, unless it takes longer than the seconds.

    A thread cannot be ended and a signal does not interrupt compiled code, so the call
    has a process of its own. That is spawned, not forked: a fork of a process whose
    OpenMP threads have run may wait for them for ever.

    Parameters
    ----------
    seconds : float
        From the start of the process, which imports what the function needs.
    function : callable
        Found by name in a module, as pickle needs it.
    *arguments : objects that pickle

    Raises
    ------
    TimeLimit
        If the time is up.
    RuntimeError
        If the process ended without an answer, as when memory is exhausted; otherwise
        what the function raises.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sending, function, arguments))
    process.start()
    sending.close()  # so that the child's death ends the wait below
    try:
        if not receiving.poll(seconds):
            raise TimeLimit(f"more than {seconds:g} s")
        value, error = receiving.recv()
        process.join(GRACE)  # to clear away what it has opened
    except EOFError:
        process.join()
        text = f"the process ended with code {process.exitcode}"
        raise RuntimeError(text) from None
    finally:
        process.kill()
        process.join()
        receiving.close()
    if error is not None:
        raise error
    return value


def _answer(sending, function, arguments):
    try:
        answer = function(*arguments), None
    except Exception as error:  # raised again by the parent
        answer = None, _portable(error)
    sending.send(answer)


def _portable(error):
    """Return the error, or one with its text where it does not survive pickle."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
