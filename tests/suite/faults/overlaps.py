# A racer for paths in one small tree: overlaps.py MOUNT MARKS SEED LAST
# Takes a path, or two, as files or by a line in `control`, until the file LAST exists. While it
# holds a path it leaves a mark in MARKS, outside of the mount, and looks for those of others: two
# that overlap, and whose processes live, are two holders. Prints how often it held something.
import errno, os, random, sys

mount, marks, seed, last = sys.argv[1:]
os.chdir(mount)
dice = random.Random(seed)
REFUSED = {errno.EEXIST, errno.EBUSY, errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.ESTALE}


def path():
    return '/'.join(['r'] + [dice.choice('abc') for _ in range(dice.randint(1, 3))])


def is_alive(pid):
    try:
        with open(f'/proc/{pid}/stat') as stat:
            return stat.read().rsplit(')', 1)[1].split()[0] not in 'ZX'
    except OSError:
        return False


def overlap(one, other):
    return one == other or one.startswith(other + '/') or other.startswith(one + '/')


def by_file(name):
    try:
        os.makedirs('paths/' + name.rsplit('/', 1)[0], exist_ok=True)
        os.close(os.open('paths/' + name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        return [name]
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return []


def line(key, names):
    control = os.open('control', os.O_WRONLY)
    listed = ','.join(f'"/{name}"' for name in names)
    try:
        os.write(control, f'{{"{key}":[{listed}]}}\n'.encode())
        return names
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        return []
    finally:
        os.close(control)


def check(held):
    own = []
    for name in held:
        own.append(f'{os.getpid()}@{name.replace("/", "-")}')
        os.close(os.open(f'{marks}/{own[-1]}', os.O_CREAT | os.O_WRONLY))
    for mark in os.listdir(marks):
        pid, other = mark.split('@')
        other = other.replace('-', '/')
        if int(pid) != os.getpid() and any(overlap(name, other) for name in held) and is_alive(pid):
            # It may have been removed since it was listed: it is of a holder only while it is there.
            if os.path.exists(f'{marks}/{mark}') and is_alive(pid):
                print('two hold', held, mark, flush=True)
                sys.exit(1)
    for mark in own:
        os.unlink(f'{marks}/{mark}')


rounds = 0
while not os.path.exists(last):
    if dice.random() < 0.5:
        held = by_file(path())
    else:
        held = line('reserve', sorted({path() for _ in range(dice.randint(1, 2))}))
    if not held:
        continue
    rounds += 1
    check(held)
    if dice.random() < 0.5 and len(held) == 1:
        try:
            os.unlink('paths/' + held[0])
        except IsADirectoryError:
            # It was one until just now, and the kernel does not know yet.
            line('unreserve', held)
        except OSError as error:
            print('lost', held, error, flush=True)
            sys.exit(1)
    else:
        line('unreserve', held)
print(rounds, flush=True)
