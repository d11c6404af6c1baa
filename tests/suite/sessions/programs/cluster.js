// A cluster of node: what came of each step, a line each, as workers.py prints it.
const cluster = require('cluster');
const fs = require('fs');

const attempt = (call) => {
  try {
    call();
    return 'done';
  } catch (error) {
    return error.code;
  }
};
const calls = {
  take: (name) => attempt(() => fs.closeSync(fs.openSync(`claims/${name}`, 'wx'))),
  drop: (name) => attempt(() => fs.unlinkSync(`claims/${name}`)),
  exit: () => process.exit(0),
};

const holder = (name) => {
  const records = fs.readFileSync('leases', 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  return records.find((record) => record.name === name)?.pid;
};

const master = async () => {
  const start = () => new Promise((resolve) => {
    const worker = cluster.fork();
    worker.once('online', () => resolve(worker));
  });
  const ask = (worker, call) => new Promise((resolve) => {
    worker.once('message', resolve);
    worker.send([call, 'x']);
  });
  const ended = (worker, how) => new Promise((resolve) => {
    worker.once('exit', resolve);
    how(worker);
  });
  const [first, second, third] = [await start(), await start(), await start()];
  const is = (worker) => holder('x') === worker.process.pid;
  console.log('first', await ask(first, 'take'), is(first));
  console.log('second', await ask(second, 'take'), await ask(second, 'drop'));
  console.log('master', calls.take('x'), calls.drop('x'));
  await ended(first, (worker) => process.kill(worker.process.pid, 'SIGKILL'));
  console.log('second', await ask(second, 'take'), is(second));
  console.log('third', await ask(third, 'take'), await ask(third, 'drop'));
  await ended(second, (worker) => worker.send(['exit']));
  console.log('master', holder('x') === process.pid);
  console.log('third', await ask(third, 'take'));
  console.log('master', calls.take('x'), calls.drop('x'));
  await ended(third, (worker) => worker.send(['exit']));
};

if (cluster.isPrimary) {
  master();
} else {
  process.on('message', ([call, name]) => process.send(calls[call](name)));
}
