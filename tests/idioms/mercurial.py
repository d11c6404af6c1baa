"""Mercurial's lock of the store, as an extension: hg --config extensions.idiom=mercurial.py idiom ROLE

The store of a repository elsewhere is the directory of the locks.
"""

import os
import sys
import time

from mercurial import error, hg, registrar

cmdtable = {}
command = registrar.command(cmdtable)


def repository(ui):
    path = os.environb[b"SCRATCH"] + b"/repository"
    if not os.path.isdir(path):
        # Nothing but the lock is in the store then.
        ui.setconfig(b"format", b"use-share-safe", False)
        hg.repository(ui, path, create=True)
        os.rename(path + b"/.hg/store", path + b"/store")
        os.symlink(os.getcwdb(), path + b"/.hg/store")
    return hg.repository(ui, path)


def say(word):
    print(word, flush=True)


@command(b"idiom", [], b"ROLE", norepo=True)
def idiom(ui, role):
    repo = repository(ui)
    if role == b"hold":
        lock = repo.lock(wait=False)
        say("held")
        sys.stdin.readline()
        lock.release()
        say("released")
        # The holder lives on: what frees the name is the release.
        sys.stdin.readline()
    elif role == b"try":
        # The exception that says busy is the answer: hg prints it as it does for its own commands.
        repo.lock(wait=False).release()
    elif role == b"wait":
        try:
            repo.lock(wait=False).release()
            return
        except error.LockHeld:
            say("busy")
        # Its own pause between two attempts is a second long.
        while True:
            try:
                lock = repo.lock(wait=False)
                break
            except error.LockHeld:
                time.sleep(0.01)
        say("got")
        lock.release()
