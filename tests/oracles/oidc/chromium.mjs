// A person at a browser: Chromium, headless, driven over its debugging pipe. Visits a page, signs in as the given user, agrees, and ends when
// the browser shows the given text. The browser trusts any certificate: whom mayfly trusts is its own matter. Usage: chromium.mjs BINARY URL USER TEXT
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [binary, url, user, text] = process.argv.slice(2);
const profile = mkdtempSync(join(tmpdir(), 'browser-'));
const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe', `--user-data-dir=${profile}`,
  '--ignore-certificate-errors', 'about:blank'];
const browser = spawn(binary, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
const waiting = new Map();
let number = 0;
let heard = '';
browser.stdio[4].on('data', (bytes) => {
  heard += bytes;
  const messages = heard.split('\0');
  heard = messages.pop();
  for (const message of messages.map((text) => JSON.parse(text))) waiting.get(message.id)?.(message);
});
const call = (method, params = {}, sessionId = undefined) => new Promise((done, failed) => {
  number += 1;
  waiting.set(number, (answer) => (answer.error ? failed(new Error(`${method}: ${answer.error.message}`)) : done(answer.result)));
  setTimeout(() => failed(new Error(`${method}: no answer`)), 5000).unref();
  browser.stdio[3].write(`${JSON.stringify({ id: number, method, params, sessionId })}\0`);
});
try {
  const { targetId } = await call('Target.createTarget', { url });
  const { sessionId } = await call('Target.attachToTarget', { targetId, flatten: true });
  const act = `(() => {
    const said = document.body?.innerText ?? '';
    if (said.includes(${JSON.stringify(text)})) return 'done';
    const form = document.querySelector('form');
    if (document.readyState !== 'complete' || !form || form.dataset.sent) return location.href;
    form.dataset.sent = 'yes';
    const login = form.querySelector('[name=login]');
    if (login) { login.value = ${JSON.stringify(user)}; form.querySelector('[name=password]').value = 'x'; }
    (form.querySelector('[type=submit]') ?? form).click?.();
    if (!form.querySelector('[type=submit]')) form.submit();
    return 'sent ' + location.href;
  })()`;
  let last = '';
  for (let step = 0; last !== 'done'; step += 1) {
    if (step === 300) throw new Error(`the page does not come: ${last}`);
    await new Promise((done) => setTimeout(done, 100));
    const { result } = await call('Runtime.evaluate', { expression: act }, sessionId).catch(() => ({ result: {} }));
    last = result.value ?? last;
  }
} catch (error) {
  console.error(error);
  process.exitCode = 1;
} finally {
  const ended = new Promise((done) => browser.once('exit', done));
  if (browser.exitCode === null && browser.signalCode === null && browser.kill('SIGKILL')) await ended;
  rmSync(profile, { recursive: true, force: true });
}
process.exit();
