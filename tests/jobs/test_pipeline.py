import threading
import time

import pytest

from nlden.jobs.pipeline import WriteBehind, read_ahead


def test_items_arrive_in_order():
    assert list(read_ahead(range(100), depth=3)) == list(range(100))


def test_reading_stays_within_its_depth():
    drawn = []

    def source():
        for i in range(50):
            drawn.append(i)
            yield i

    reading = read_ahead(source(), depth=2)
    assert next(reading) == 0
    time.sleep(0.3)
    assert len(drawn) <= 5  # one out, two waiting, one or two in hand
    reading.close()


def test_an_error_of_the_source_is_raised_after_its_items():
    def source():
        yield 1
        raise OSError("gone")

    got = []
    with pytest.raises(OSError, match="gone"):
        got.extend(read_ahead(source()))
    assert list(got) in ([], [1])


def test_closing_early_ends_the_thread():
    before = threading.active_count()
    reading = read_ahead(iter(int, 1), depth=2)
    next(reading)
    reading.close()
    assert threading.active_count() == before


def test_everything_is_written_in_order():
    written = []
    with WriteBehind(written.append, depth=2) as behind:
        for i in range(50):
            behind.put(i)
    assert written == list(range(50))


def test_an_error_of_the_writer_is_raised():
    def fail(item):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), WriteBehind(fail, depth=1) as behind:
        for i in range(50):
            behind.put(i)
            time.sleep(0.001)


def test_an_error_of_the_producer_drops_what_waits():
    with pytest.raises(KeyError), WriteBehind(lambda item: time.sleep(0.01), depth=50) as behind:
        for i in range(40):
            behind.put(i)
        raise KeyError
