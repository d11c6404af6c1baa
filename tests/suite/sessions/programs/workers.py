"""A master and its workers: workers.py KIND. Each line that it prints is what came of a step."""
import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys


def attempt(call, *words):
    try:
        call(*words)
        return 'done'
    except OSError as error:
        return errno.errorcode[error.errno]


def take(name):
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    return attempt(lambda: os.close(os.open(f'claims/{name}', flags)))


def drop(name):
    return attempt(os.unlink, f'claims/{name}')


def both(name):
    return f'{take(name)} {drop(name)}'


def holder(name):
    with open('leases') as leases:
        records = [json.loads(line) for line in leases]
    pids = [record['pid'] for record in records if record.get('name') == name]
    return pids[0] if pids else None


def serve(lines, say):
    for line in lines:
        if line == 'exit':
            return
        call, name = line.split()
        say({'take': take, 'drop': drop}[call](name))


class Piped:
    """A worker behind two pipes: what `start` made of them is its pid."""

    def __init__(self):
        there, self.ask_fd = os.pipe()
        self.answer_fd, back = os.pipe()
        for fd in there, back:
            os.set_inheritable(fd, True)
        self.pid = self.start(there, back)
        os.close(there)
        os.close(back)
        self.answers = os.fdopen(self.answer_fd)

    def work(self, there, back):
        os.close(self.ask_fd)
        serve((line.rstrip() for line in os.fdopen(there)), lambda word: os.write(back, f'{word}\n'.encode()))

    def ask(self, words):
        os.write(self.ask_fd, f'{words}\n'.encode())
        return self.answers.readline().strip()

    def end(self, how):
        if how == 'kill':
            os.kill(self.pid, signal.SIGKILL)
        else:
            os.write(self.ask_fd, b'exit\n')
        self.wait()


class Forked(Piped):
    """os.fork, as a server that forks its workers before they are needed."""

    def start(self, there, back):
        pid = os.fork()
        if pid == 0:
            self.work(there, back)
            os._exit(0)
        return pid

    def wait(self):
        os.waitpid(self.pid, 0)


class Popen(Piped):
    """subprocess."""

    def start(self, there, back):
        words = [sys.executable, __file__, 'worker', str(there), str(back)]
        self.child = subprocess.Popen(words, pass_fds=[there, back])
        return self.child.pid

    def wait(self):
        self.child.wait()


class Process:
    """multiprocessing.Process."""

    def __init__(self, method):
        context = multiprocessing.get_context(method)
        self.pipe, theirs = context.Pipe()
        self.child = context.Process(target=served, args=(theirs,))
        self.child.start()
        self.pid = self.child.pid

    def ask(self, words):
        self.pipe.send(words)
        return self.pipe.recv()

    def end(self, how):
        if how == 'kill':
            self.child.kill()
        else:
            self.pipe.send('exit')
        self.child.join()


def served(pipe):
    serve(iter(pipe.recv, None), pipe.send)


def workers(start):
    first, second, third = start(), start(), start()
    print('first', first.ask('take x'), holder('x') == first.pid)
    print('second', second.ask('take x'), second.ask('drop x'))
    print('master', both('x'))
    first.end('kill')
    print('second', second.ask('take x'), holder('x') == second.pid)
    print('third', third.ask('take x'), third.ask('drop x'))
    second.end('exit')
    print('master', holder('x') == os.getpid())
    print('third', third.ask('take x'))
    print('master', both('x'))
    third.end('exit')


def hold(name, fd):
    os.write(fd, f'{os.getpid()} {take(name)}\n'.encode())
    signal.pause()


def pool():
    """A task that never ends keeps one of the two workers, so that the other has all that comes after it."""
    reader, writer = os.pipe()
    with multiprocessing.get_context('fork').Pool(2) as workers:
        workers.apply_async(hold, ('x', writer))
        first, answer = os.fdopen(reader).readline().split()
        print('first', answer, holder('x') == int(first))
        print('second', workers.apply(both, ('x',)))
        print('master', both('x'))
        os.kill(int(first), signal.SIGKILL)
        while any(child.pid == int(first) for child in multiprocessing.active_children()):
            pass
        print('second', workers.apply(take, ('x',)), holder('x') not in (int(first), os.getpid()))
    # Its workers were told to end, or killed before they were.
    drop('x')
    with multiprocessing.get_context('fork').Pool(1) as workers:
        print('worker', workers.apply(take, ('x',)))
        workers.close()
        workers.join()
    print('master', holder('x') == os.getpid())
    print('master', both('x'))


def main():
    kind = sys.argv[1]
    if kind == 'worker':
        there, back = map(int, sys.argv[2:])
        serve((line.rstrip() for line in os.fdopen(there)), lambda word: os.write(back, f'{word}\n'.encode()))
    elif kind == 'pool':
        pool()
    else:
        kinds = {'prefork': Forked, 'subprocess': Popen}
        workers(kinds.get(kind) or (lambda: Process(kind)))


if __name__ == '__main__':
    main()
