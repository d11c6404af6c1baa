#!/usr/bin/env python3
"""Kills programs that run a command below a lock, and measures what becomes of the lock.

    tests/bench/wrappers.py [CLAIMFS]       else target/debug/claimfs

Each way runs a command that lives for a minute. The wrapper is killed by SIGKILL; the command is
not. From then on another one tries to get the lock. If it has not got it after 15 s, the command is
killed too. Three rounds; medians. mount-scripts/bench-peers installs Redis and etcd, .ci/run
installs filelock; a way whose program is missing is left out, with a line that says so.
"""

import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROUNDS = 3
# Longer than every lease here lives without its wrapper.
PATIENCE = 15
SECONDS = 10
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
VENV = os.path.join(ROOT, "target/clients/venv/bin/python")

FILELOCK = """
import subprocess, sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    subprocess.run(sys.argv[2:])
"""

# The recipe of Redis's documentation for one server: SET NX PX, and a script that deletes the key
# only if it is still one's own.
REDIS = """
token=$$.$(date +%s%N) name=$2
[ "$(redis-cli -s "$1" SET "$2" $token NX PX $3)" = OK ] || exit 1
shift 3
"$@"
script='if redis.call("get",KEYS[1])==ARGV[1] then return redis.call("del",KEYS[1]) end'
redis-cli -s "$0" EVAL "$script" 1 "$name" $token
"""


def wait_for(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            sys.exit("wrappers: it does not start")
        time.sleep(0.005)


def answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Way:
    """A wrapper: how it holds, and how another tries until it has got it."""

    def __init__(self, name, needs, hold, get):
        self.name, self.needs, self.hold, self.get = name, needs, hold, get


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(") ", 1)[1][0] != "Z"
    except OSError:
        return False


def play(way, dir, number):
    """Seconds until another has the lock, counted from the death of the wrapper, or None while the
    command lives; whether the command lives then; seconds from its death, if that was awaited."""
    pid_file = os.path.join(tempfile.mkdtemp(dir=dir), "pid")
    work = ["sh", "-c", 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 60', pid_file]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    holder = subprocess.Popen(way.hold(f"x{number}", work), start_new_session=True, **quiet)
    wait_for(lambda: os.path.exists(pid_file))
    child = int(open(pid_file).read())
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    killed = time.monotonic()
    other = subprocess.Popen(way.get(f"x{number}"), start_new_session=True, **quiet)
    try:
        other.wait(timeout=PATIENCE)
        return time.monotonic() - killed, is_alive(child), None
    except subprocess.TimeoutExpired:
        os.kill(child, signal.SIGKILL)
        died = time.monotonic()
        other.wait(timeout=PATIENCE)
        return None, False, time.monotonic() - died
    finally:
        if is_alive(child):
            os.kill(child, signal.SIGKILL)
        if other.poll() is None:
            other.kill()


def report(way, dir):
    rounds = [play(way, dir, number) for number in range(ROUNDS)]
    freed = [free for free, _, _ in rounds]
    if None in freed:
        after = statistics.median(late for _, _, late in rounds if late is not None)
        print(f"{way.name:24} not free while the command runs; {1000 * after:.0f} ms after its end")
    else:
        runs = sum(alive for _, alive, _ in rounds)
        seconds = statistics.median(freed)
        print(f"{way.name:24} free after {seconds:.2f} s; command still runs: {runs} of {ROUNDS}")
    sys.stdout.flush()


def ways(dir, claimfs, redis, etcd, mount):
    file = lambda name: os.path.join(dir, name)
    endpoint = f"--endpoints=127.0.0.1:{etcd}"
    retry = 'until [ "$(redis-cli -s "$0" SET "$1" other NX PX 10000)" = OK ]; do sleep 0.01; done'
    return [
        Way("flock", "flock", lambda n, c: ["flock", file(n), *c],
            lambda n: ["flock", file(n), "true"]),
        Way("flock -o", "flock", lambda n, c: ["flock", "-o", file(n), *c],
            lambda n: ["flock", file(n), "true"]),
        Way("filelock FileLock", VENV, lambda n, c: [VENV, "-c", FILELOCK, file(n), *c],
            lambda n: ["flock", file(n), "true"]),
        Way(f"Redis SET NX PX {SECONDS}000", "redis-server",
            lambda n, c: ["sh", "-c", REDIS, redis, redis, n, f"{SECONDS}000", *c],
            lambda n: ["sh", "-c", retry, redis, n]),
        Way(f"etcdctl lock --ttl={SECONDS}", "etcdctl",
            lambda n, c: ["etcdctl", endpoint, "lock", f"--ttl={SECONDS}", "--", n, *c],
            lambda n: ["etcdctl", endpoint, "lock", n, "true"]),
        Way("claimfs run", claimfs, lambda n, c: [claimfs, "--mount", mount, "run", n, "--", *c],
            lambda n: [claimfs, "--mount", mount, "run", n, "--wait", "--", "true"]),
    ]


def main():
    claimfs = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "target/debug/claimfs")
    os.environ["ETCDCTL_API"] = "3"
    # The caller may be a session of its own.
    for name in ["CLAIMFS_SESSION", "LOOOP_SESSION_ID", "BABYSIT_SESSION_ID", "GT_SESSION"]:
        os.environ.pop(name, None)
    servers, quiet = [], {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as dir:
        redis, etcd, peers = os.path.join(dir, "redis.sock"), free_port(), free_port()
        mount, state = os.path.join(dir, "claims"), os.path.join(dir, "state")
        subprocess.run([claimfs, "mount", "--state-dir", state, mount], check=True, **quiet)
        try:
            if shutil.which("redis-server"):
                start = ["redis-server", "--port", "0", "--unixsocket", redis, "--save", ""]
                start += ["--dir", dir]
                servers.append(subprocess.Popen(start, **quiet))
                wait_for(lambda: os.path.exists(redis))
            if shutil.which("etcd") and shutil.which("etcdctl"):
                clients, own = f"http://127.0.0.1:{etcd}", f"http://127.0.0.1:{peers}"
                start = ["etcd", "--data-dir", os.path.join(dir, "etcd"), "--name", "bench",
                         "--initial-cluster", f"bench={own}"]
                for option in ["--listen-client-urls", "--advertise-client-urls"]:
                    start += [option, clients]
                for option in ["--listen-peer-urls", "--initial-advertise-peer-urls"]:
                    start += [option, own]
                servers.append(subprocess.Popen(start, **quiet))
                wait_for(lambda: answers(etcd))
                put = ["etcdctl", f"--endpoints=127.0.0.1:{etcd}", "put", "ready", "yes"]
                wait_for(lambda: subprocess.run(put, **quiet).returncode == 0)
            for way in ways(dir, claimfs, redis, etcd, mount):
                if shutil.which(way.needs):
                    report(way, dir)
                else:
                    print(f"{way.name:24} SKIP: {way.needs} is not installed")
        finally:
            for server in servers:
                server.kill()
                server.wait()
            subprocess.run([claimfs, "umount", mount], **quiet)


main()
