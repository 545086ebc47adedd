"""Background calls: their results are waited for, their errors are raised."""

import pytest

from sar_mixmae_jax.utils.background import BackgroundTasks


def test_all_calls_end_before_the_context():
    found = []
    with BackgroundTasks() as tasks:
        for number in range(50):
            tasks.submit(found.append, number)
    assert sorted(found) == list(range(50))


def test_an_error_is_raised_by_the_context():
    with pytest.raises(ZeroDivisionError), BackgroundTasks() as tasks:
        tasks.submit(divmod, 1, 0)


def test_an_error_is_raised_by_a_later_call():
    def submit_until_it_fails(tasks):
        while True:
            tasks.submit(sum, ())

    tasks = BackgroundTasks()
    tasks.submit(divmod, 1, 0)
    with pytest.raises(ZeroDivisionError):
        submit_until_it_fails(tasks)
