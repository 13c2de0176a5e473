'use strict';

/** A line in: {rtpCapabilities, operations}. A line out: [{frames, engine, uncaught}, …], one for each operation. */

const { createInterface } = require('node:readline');
const { Application } = require('./application');

async function perform({ rtpCapabilities, operations }) {
  const application = new Application(rtpCapabilities);
  const results = [];
  for (const operation of operations) results.push(await application.perform(operation));
  application.close();
  return results;
}

async function main() {
  for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${JSON.stringify(await perform(JSON.parse(line)))}\n`);
  }
}

main();
