"""Lock libraries of Python: python python.py LIBRARY ROLE"""

import os
import sys
import time


class Open:
    """open(…, 'x')"""

    busy = FileExistsError

    def take(self):
        with open("x", "x") as file:
            file.write("me")

    def wait(self):
        while True:
            try:
                return self.take()
            except self.busy:
                time.sleep(0.01)

    def give(self):
        os.remove("x")


class FileLock:
    """The locks of filelock that are files."""

    def __init__(self, kind):
        import filelock

        self.busy = filelock.Timeout
        self.lock = getattr(filelock, kind)("x")

    def take(self):
        self.lock.acquire(timeout=0)

    def wait(self):
        self.lock.acquire(timeout=20, poll_interval=0.02)

    def give(self):
        self.lock.release()


class Flufl:
    """flufl.lock"""

    def __init__(self):
        from flufl.lock import Lock, TimeOutError

        self.busy = TimeOutError
        self.lock = Lock("x")

    def take(self):
        self.lock.lock(timeout=0)

    def wait(self):
        # Its own pause between two attempts is random, and up to two seconds long.
        while True:
            try:
                return self.take()
            except self.busy:
                time.sleep(0.01)

    def give(self):
        self.lock.unlock()


class Lockfile:
    """The locks of lockfile."""

    def __init__(self, kind):
        import lockfile
        from importlib import import_module

        self.busy = lockfile.AlreadyLocked
        self.lock = getattr(import_module("lockfile." + kind.lower()), kind)("x")

    def take(self):
        self.lock.acquire(timeout=0)

    def wait(self):
        # It tries ten times in that time: PIDLockFile does not wait at all without one.
        # SymlinkLockFile asks whether the lock is a link and then where it leads; if it goes in
        # between, on whatever filesystem, that is an error of its own, and its users try again.
        while True:
            try:
                return self.lock.acquire(timeout=4)
            except FileNotFoundError:
                pass

    def give(self):
        self.lock.release()


LIBRARIES = {
    "open": Open,
    "SoftFileLock": lambda: FileLock("SoftFileLock"),
    "SoftFileLease": lambda: FileLock("SoftFileLease"),
    "flufl.lock": Flufl,
    "LinkLockFile": lambda: Lockfile("LinkLockFile"),
    "MkdirLockFile": lambda: Lockfile("MkdirLockFile"),
    "SymlinkLockFile": lambda: Lockfile("SymlinkLockFile"),
    "PIDLockFile": lambda: Lockfile("PIDLockFile"),
}


def main(library, role):
    lock = LIBRARIES[library]()
    if role == "hold":
        lock.take()
        print("held", flush=True)
        sys.stdin.readline()
        lock.give()
        print("released", flush=True)
        # The holder lives on: what frees the name is the release.
        sys.stdin.readline()
    elif role == "try":
        # The exception that says busy is the answer, traceback and all.
        lock.take()
        lock.give()
    elif role == "wait":
        try:
            lock.take()
            return
        except lock.busy:
            print("busy", flush=True)
        lock.wait()
        print("got", flush=True)
        lock.give()


main(*sys.argv[1:])
