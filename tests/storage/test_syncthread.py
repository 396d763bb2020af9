import threading

import pytest
import trio
import trio.testing

from storage.syncthread import SyncThread, open_sync_thread


async def test_a_call_runs_in_the_other_thread_and_returns_its_value() -> None:
    async with open_sync_thread() as thread:
        here = threading.get_ident()
        there = await thread.run_sync(threading.get_ident)
        assert there != here
        assert await thread.run_sync(threading.get_ident) == there
        assert await thread.run_sync(divmod, 7, 3) == (2, 1)


async def test_an_error_is_raised_to_the_caller_and_the_thread_goes_on() -> None:
    async with open_sync_thread() as thread:
        with pytest.raises(ZeroDivisionError):
            await thread.run_sync(divmod, 1, 0)
        with pytest.raises(SystemExit):
            await thread.run_sync(exit)
        assert await thread.run_sync(len, "abc") == 3


async def test_the_loop_goes_on_meanwhile() -> None:
    async with open_sync_thread() as thread, trio.open_nursery() as nursery:
        let_go = threading.Event()
        nursery.start_soon(thread.run_sync, let_go.wait)
        await trio.testing.wait_all_tasks_blocked()
        let_go.set()


async def test_a_call_is_never_abandoned() -> None:
    finished: list[bool] = []

    def work() -> str:
        started.set()
        assert let_go.wait(10)
        finished.append(True)
        return "value"

    started, let_go = threading.Event(), threading.Event()
    async with open_sync_thread() as thread:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:

                @nursery.start_soon
                async def cancel_while_it_runs() -> None:
                    while not started.is_set():
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
                    let_go.set()

                value = await thread.run_sync(work)
                # The caller learns what happened before it notices that it was cancelled.
                assert (value, finished) == ("value", [True])
        assert scope.cancelled_caught or scope.cancel_called
        assert await thread.run_sync(len, "abc") == 3


async def test_a_second_call_at_once_is_refused() -> None:
    async with open_sync_thread() as thread, trio.open_nursery() as nursery:
        let_go = threading.Event()
        nursery.start_soon(thread.run_sync, let_go.wait)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await thread.run_sync(len, "abc")
        let_go.set()


async def test_closing_ends_the_thread() -> None:
    thread = SyncThread()
    await thread.run_sync(len, "abc")
    thread.close()
    assert "ringlog-sync" not in {each.name for each in threading.enumerate()}
