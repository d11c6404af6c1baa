// A racer, or a holder that dies, of race.rs: node racer.js, by proper-lockfile.
const fs = require('fs');
const net = require('net');
const readline = require('readline');
const lock = require('proper-lockfile');

// 2000 ms is the least that it takes. A lock that it lost in the meantime is counted by the race,
// not by it.
const options = { realpath: false, stale: 2000, onCompromised: () => {} };

async function race() {
  // Its timers must run while it holds, so nothing here blocks but the gate.
  const socket = new net.Socket({ fd: 0 });
  const say = (word) => socket.write(`${word}\n`);
  const lines = readline.createInterface({ input: socket })[Symbol.asyncIterator]();
  say('ready');
  for (let line = await lines.next(); !line.done; line = await lines.next()) {
    const [gate, name, patience] = line.value.split(' ');
    const retries = { retries: patience / 50, factor: 1, minTimeout: 50, maxTimeout: 50 };
    await new Promise((resolve) => socket.write('at\n', resolve));
    fs.closeSync(fs.openSync(gate, 'r'));
    let answer = 'won';
    try {
      await lock.lock(name, { ...options, retries });
    } catch (error) {
      answer = error.code === 'ELOCKED' ? 'lost' : `failed: ${error}`;
    }
    say(answer);
    await lines.next();
    let end = 'ended';
    if (answer === 'won') await lock.unlock(name, options).catch((error) => (end = `ended: ${error}`));
    say(end);
  }
}

if (process.env.RACER_ROLE === 'hold') {
  lock.lock(process.env.RACER_NAME, options).then(() => process.kill(process.pid, 'SIGKILL'));
} else {
  race();
}
