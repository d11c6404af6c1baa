"""Processes that claim x and end.

  WAY            claims, and ends in this way
  orphan WAY     its grandchild claims, loses its parent, and ends; this waits for it
  zombie WAY     its grandchild claims and ends; on standard input, its child is told to wait for it
                 ("reap") or to remove the claim ("remove"), another child tries to remove the
                 claim and to make it ("sibling")
"""
import ctypes
import os
import resource
import signal
import sys
import threading

libc = ctypes.CDLL(None, use_errno=True)
PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER = 4, 36
SYS_EXIT = 60 if os.uname().machine == 'x86_64' else 93


def claim():
    os.close(os.open('claims/x', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))


def kill(number):
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    while True:
        signal.pause()


def dump():
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY,) * 2)
    os.chdir(os.environ['CORES'])
    kill(signal.SIGSEGV)


def from_thread(what):
    """The first thread waits for ever while another does it."""
    threading.Thread(target=what).start()
    signal.pause()


def without_leader(what):
    """The first thread exits, another goes on and does it."""
    def wait():
        while ') Z ' not in open(f'/proc/{os.getpid()}/stat').read():
            pass
        what()
    threading.Thread(target=wait).start()
    libc.syscall(SYS_EXIT, 0)


def execute(script):
    os.execv('/bin/sh', ['sh', '-c', script])


WAYS = {
    'exit 0': lambda: os._exit(0),
    'exit 3': lambda: os._exit(3),
    'kill': lambda: kill(signal.SIGKILL),
    'dump': dump,
    'pipe': lambda: kill(signal.SIGPIPE),
    'exec exit': lambda: from_thread(lambda: execute('exit 4')),
    'exec kill': lambda: from_thread(lambda: execute('kill -9 $$')),
    'thread exit': lambda: from_thread(lambda: os._exit(6)),
    'leader exit': lambda: without_leader(lambda: os._exit(5)),
    'leader kill': lambda: without_leader(lambda: kill(signal.SIGKILL)),
}


def say(text):
    print(text, flush=True)


def begin(way):
    claim()
    if os.environ.get('HIDDEN'):
        libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    way()


def orphan(way):
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    there, here = os.pipe()
    if os.fork() == 0:
        middle = os.getpid()
        if os.fork() == 0:
            claim()
            os.write(here, b'.')
            while os.getppid() == middle:
                pass
            way()
        os.read(there, 1)
        os._exit(0)
    os.wait()
    os.wait()
    say('reaped')
    sys.stdin.readline()


def tried(call):
    try:
        call()
        return 'done'
    except OSError as error:
        return error.strerror


def remove():
    os.unlink('claims/x')


def zombie(way):
    here, there = os.pipe()
    if os.fork() == 0:
        os.close(there)
        child = os.fork()
        if child == 0:
            begin(way)
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        say('dead')
        for line in os.fdopen(here):
            if line == 'reap\n':
                os.waitpid(child, 0)
                say('reaped')
            else:
                say(tried(remove))
        os._exit(0)
    for line in sys.stdin:
        if line != 'sibling\n':
            os.write(there, line.encode())
            continue
        sibling = os.fork()
        if sibling == 0:
            say(f'{tried(remove)}, {tried(claim)}')
            os._exit(0)
        os.waitpid(sibling, 0)


how = sys.argv[1]
if how in ('orphan', 'zombie'):
    {'orphan': orphan, 'zombie': zombie}[how](WAYS[sys.argv[2]])
else:
    begin(WAYS[how])
