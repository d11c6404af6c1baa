// Locks of Node: node node.js LIBRARY ROLE
const fs = require('fs');
const [library, role] = process.argv.slice(2);

// One attempt, again and again, for what has no way to wait of its own.
async function again(take, busy) {
  for (;;) {
    try {
      return await take();
    } catch (error) {
      if (error.code !== busy) throw error;
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
}

const libraries = {
  open: () => {
    const take = async () => fs.closeSync(fs.openSync('x', 'wx'));
    return { busy: 'EEXIST', take, wait: () => again(take, 'EEXIST'), give: async () => fs.unlinkSync('x') };
  },
  mkdir: () => {
    const take = async () => fs.mkdirSync('x');
    return { busy: 'EEXIST', take, wait: () => again(take, 'EEXIST'), give: async () => fs.rmdirSync('x') };
  },
  'proper-lockfile': () => {
    const lock = require('proper-lockfile');
    // What is locked, x, need not exist; the lock is the directory x.lock.
    const options = { realpath: false };
    const retries = { forever: true, minTimeout: 20, maxTimeout: 50 };
    return {
      busy: 'ELOCKED',
      take: () => lock.lock('x', options),
      wait: () => lock.lock('x', { ...options, retries }),
      give: () => lock.unlock('x', options),
    };
  },
};

function line() {
  return new Promise((resolve) => {
    process.stdin.once('data', resolve);
    process.stdin.once('end', resolve);
  });
}

async function main() {
  const lock = libraries[library]();
  if (role === 'hold') {
    await lock.take();
    console.log('held');
    await line();
    await lock.give();
    console.log('released');
    // The holder lives on: what frees the name is the release.
    await line();
  } else if (role === 'try') {
    // The error that says busy is the answer.
    await lock.take();
    await lock.give();
  } else if (role === 'wait') {
    try {
      await lock.take();
      return;
    } catch (error) {
      if (error.code !== lock.busy) throw error;
      console.log('busy');
    }
    await lock.wait();
    console.log('got');
    await lock.give();
  }
}

// What another way of ending would leave out: the process does not wait for its standard input.
main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
