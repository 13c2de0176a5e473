// Builds into dist/: the page (index.html, app.js, app.css, icon.svg and the notices of what is bundled), and
// resumable-transport.js, a module by itself for other applications.
// `--watch` builds again on every change.

import { copyFile, mkdir, readFile, readdir, rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import esbuild from 'esbuild';

import { noticeTexts } from './licenses.mjs';

const root = path.dirname(fileURLToPath(import.meta.url));
const source = path.join(root, 'src');
const dist = path.join(root, 'dist');
const copied = ['index.html', 'icon.svg'];
const watching = process.argv.includes('--watch');

const options = {
  absWorkingDir: root,
  entryPoints: { app: 'src/main.js' },
  entryNames: '[name]',
  outdir: dist,
  bundle: true,
  format: 'iife',
  platform: 'browser',
  target: ['chrome105', 'firefox110', 'safari16'],
  // The two libraries are written for bundlers that know Node's `global`.
  define: { global: 'globalThis' },
  // Only reached by browsers without `globalThis`, which have no WebRTC worth speaking of.
  external: ['es5-ext/*'],
  minify: true,
  // In the bundle itself, and only for those who change the page.
  sourcemap: watching && 'inline',
  legalComments: 'none',
  metafile: true,
  logLevel: 'info',
  plugins: [{ name: 'static files and notices', setup: (build) => build.onEnd(finish) }],
};

const transport = {
  absWorkingDir: root,
  entryPoints: ['src/resumable-transport.js'],
  outdir: dist,
  bundle: true,
  format: 'esm',
  platform: 'neutral',
  target: options.target,
  logLevel: 'info',
};

async function finish({ metafile, errors }) {
  if (errors.length > 0) return;
  for (const name of copied) await copyFile(path.join(source, name), path.join(dist, name));
  await writeFile(path.join(dist, 'THIRD_PARTY_NOTICES.txt'), await notices(metafile));
}

/** The notices of exactly those packages whose code went into the bundle. */
async function notices(metafile) {
  const names = new Set();
  for (const input of Object.keys(metafile.inputs)) {
    const match = input.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)\//);
    if (match) names.add(match[0]);
  }
  const texts = [];
  for (const folder of [...names].sort()) texts.push(await notice(path.join(root, folder)));
  return `This page contains the following software.\n\n${texts.join('\n')}`;
}

async function notice(folder) {
  const about = JSON.parse(await readFile(path.join(folder, 'package.json'), 'utf8'));
  const file = (await readdir(folder)).find((name) => /^licen[cs]e/i.test(name));
  const text = file ? await readFile(path.join(folder, file), 'utf8') : noticeTexts[about.name];
  // A new dependency without a license file must be looked up by a person, once.
  if (!text) throw new Error(`${about.name}: no license file; add its text to licenses.mjs`);
  const title = `${about.name} ${about.version} (${about.license})`;
  return `${'-'.repeat(78)}\n${title}\n${'-'.repeat(78)}\n\n${text.trim()}\n`;
}

await rm(dist, { recursive: true, force: true });
await mkdir(dist, { recursive: true });
if (watching) {
  for (const each of [{ ...options, minify: false }, transport]) await (await esbuild.context(each)).watch();
} else {
  await Promise.all([options, transport].map((each) => esbuild.build(each)));
}
