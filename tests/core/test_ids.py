from __future__ import annotations

import os
import threading
import time

from nexus.core.ids import is_id, new_id

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def test_an_id_tells_its_prefix_and_its_moment() -> None:
    before = time.time_ns() // 1_000_000
    made = new_id("run")
    after = time.time_ns() // 1_000_000
    assert is_id(made, "run")
    assert not is_id(made, "inv")
    moment = 0
    for letter in made[4:14]:
        moment = moment * 32 + _ALPHABET.index(letter)
    assert before <= moment <= after


def test_later_ids_sort_behind() -> None:
    made = []
    for _ in range(40):
        made.append(new_id("inv"))
        time.sleep(0.002)
    assert made == sorted(made)


def test_threads_never_make_the_same() -> None:
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend([new_id("inv") for _ in range(5000)])) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 20_000


def test_every_letter_is_as_likely() -> None:
    counts = dict.fromkeys(_ALPHABET, 0)
    for _ in range(4000):
        for letter in new_id("inv")[-16:]:
            counts[letter] += 1
    assert all(1700 < count < 2300 for count in counts.values())  # 2000 each, give or take six deviations


def test_a_forked_child_makes_others_than_its_parent() -> None:
    new_id("inv")
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.write(writer, new_id("inv")[-16:].encode())
        os._exit(0)
    os.waitpid(child, 0)
    theirs = os.read(reader, 16).decode()
    os.close(reader)
    os.close(writer)
    assert theirs not in {new_id("inv")[-16:] for _ in range(300)}
