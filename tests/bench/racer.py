"""A racer, or the parent of holders that die, of race.rs: python racer.py open|filelock"""

import os
import signal
import sys


class Open:
    busy = FileExistsError

    def __init__(self, name):
        self.name = name

    def take(self, patience):
        os.close(os.open(self.name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))

    def give(self):
        os.remove(self.name)


class SoftFileLock:
    def __init__(self, name):
        self.lock = filelock.SoftFileLock(name)

    def take(self, patience):
        self.lock.acquire(timeout=patience, poll_interval=0.005)

    def give(self):
        self.lock.release()


if sys.argv[1] == "filelock":
    import filelock

    SoftFileLock.busy = filelock.Timeout
Lock = {"open": Open, "filelock": SoftFileLock}[sys.argv[1]]


def say(word):
    os.write(0, word.encode() + b"\n")


def nest():
    """A child for each name: it takes the name and is killed, and has been waited for when that is said."""
    say("ready")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.setsid()
            lock = Lock(line.strip())
            lock.take(0)
            os.kill(os.getpid(), signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        say("dead" if os.WIFSIGNALED(status) else "failed: the holder")


def race():
    say("ready")
    while line := sys.stdin.readline():
        gate, name, patience = line.split()
        lock = Lock(name)
        say("at")
        os.close(os.open(gate, os.O_RDONLY))
        try:
            lock.take(int(patience) / 1000)
            answer = "won"
        except lock.busy:
            answer = "lost"
        except Exception as error:
            answer = f"failed: {error!r}"
        say(answer)
        sys.stdin.readline()
        try:
            if answer == "won":
                lock.give()
            say("ended")
        except Exception as error:
            say(f"ended: {error!r}")


nest() if os.environ["RACER_ROLE"] == "nest" else race()
