import json
import os
import signal
import threading
import time

from vistok.extraction.leases import Leases, _place


def claim_in_a_child(folder, name: str) -> int:
    """The id of a process that holds a lease and sleeps."""
    pid = os.fork()
    if pid == 0:
        with Leases(folder) as leases:
            leases.claim(name)
            (folder / "claimed").touch()
            time.sleep(60)
        os._exit(0)
    while not (folder / "claimed").exists():
        time.sleep(0.005)
    return pid


def foreign(folder, name: str) -> None:
    """A lease of a worker on another machine."""
    owner = {"host": "elsewhere", "boot": "other", "pid": 1, "started": "1"}
    (folder / f"{name}.0").write_text(json.dumps(owner))


def test_a_lease_has_one_holder_and_can_be_given_back(tmp_path):
    with Leases(tmp_path) as first, Leases(tmp_path) as second:
        assert first.claim("a")
        assert not second.claim("a")
        assert second.claim("b")
        first.release("a")
        assert second.claim("a")
    assert not tmp_path.exists()


def test_a_dead_process_loses_its_lease_at_once(tmp_path):
    pid = claim_in_a_child(tmp_path, "a")
    with Leases(tmp_path) as leases:
        assert not leases.claim("a")
        os.kill(pid, signal.SIGKILL)
        while not leases.claim("a"):  # it may take a moment to die; nobody has waited for it yet
            time.sleep(0.005)
        os.waitpid(pid, 0)
        with Leases(tmp_path) as other:
            assert not other.claim("a")


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path):
    with Leases(tmp_path) as leases:
        assert leases.claim("a")
        [lease] = tmp_path.iterdir()
        owner = json.loads(lease.read_text())
        lease.write_text(json.dumps(owner | {"started": "1"}))  # this process's number, but an earlier start
        with Leases(tmp_path) as other:
            assert other.claim("a")


def test_a_worker_elsewhere_keeps_its_lease_while_it_shows_life(tmp_path):
    foreign(tmp_path, "a")
    with Leases(tmp_path, timeout=0.2) as leases:
        for _ in range(20):
            os.utime(tmp_path / "a.0")
            assert not leases.claim("a")
            time.sleep(0.02)
        started = time.monotonic()
        while not leases.claim("a"):
            time.sleep(0.01)
        assert time.monotonic() - started >= 0.15


def test_clocks_do_not_matter(tmp_path):
    for moment in (0, 4_000_000_000):  # 1970 and 2096: only whether it changes counts
        foreign(tmp_path, str(moment))
        os.utime(tmp_path / f"{moment}.0", (moment, moment))
        with Leases(tmp_path, timeout=30) as leases:
            assert not leases.claim(str(moment))


def test_a_holder_shows_life(tmp_path):
    with Leases(tmp_path, timeout=0.16) as leases:
        leases.claim("a")
        before = (tmp_path / "a.0").stat().st_mtime_ns
        time.sleep(0.2)
        assert (tmp_path / "a.0").stat().st_mtime_ns > before


def test_of_many_finders_of_a_dead_lease_one_gets_it(tmp_path):
    for round_ in range(20):
        name = f"lease-{round_}"
        owner = {**_place(), "pid": 2**22 + 1, "started": "1"}
        (tmp_path / f"{name}.0").write_text(json.dumps(owner))
        barrier, won = threading.Barrier(8), []

        def find(barrier=barrier, won=won, name=name):
            leases = Leases(tmp_path)
            barrier.wait()
            if leases.claim(name):
                won.append(leases)

        threads = [threading.Thread(target=find) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


def test_another_container_has_other_process_numbers(tmp_path):
    with Leases(tmp_path, timeout=0.2) as leases:
        owner = {**_place(), "pids": "pid:[1]", "pid": 2**22 + 1, "started": "1"}
        (tmp_path / "a.0").write_text(json.dumps(owner))
        assert not leases.claim("a")  # alive as far as anybody here can tell
        time.sleep(0.25)
        assert leases.claim("a")
