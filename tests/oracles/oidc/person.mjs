// A person at a browser, without one: follows a page with its cookies, signs in as the given user, agrees, and ends when a page has the given
// text. Usage: person.mjs URL USER TEXT
const [start, user, text] = process.argv.slice(2);
const cookies = new Map();
async function go(url, options = {}) {
  const headers = { cookie: [...cookies].map(([k, v]) => `${k}=${v}`).join('; '), ...options.headers };
  const answer = await fetch(url, { redirect: 'manual', ...options, headers });
  for (const line of answer.headers.getSetCookie()) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
    if (value) cookies.set(name, value);
    else cookies.delete(name);
  }
  return answer;
}
let at = start;
let answer = await go(at);
for (let step = 0; step < 40; step += 1) {
  if (answer.status >= 300 && answer.status < 400) {
    at = new URL(answer.headers.get('location'), at).href;
    answer = await go(at);
    continue;
  }
  const page = await answer.text();
  if (page.includes(text)) process.exit(0);
  const form = /<form[^>]*>[\s\S]*?<\/form>/.exec(page)?.[0];
  if (!form) throw new Error(`no form at ${at}: ${page}`);
  const fields = new URLSearchParams();
  for (const [tag] of form.matchAll(/<input[^>]*>/g)) {
    const of = (name) => new RegExp(`${name}="([^"]*)"`).exec(tag)?.[1];
    if (of('name')) fields.set(of('name'), { login: user, password: 'x' }[of('name')] ?? of('value') ?? '');
  }
  at = new URL(/action="([^"]*)"/.exec(form)?.[1]?.replaceAll('&amp;', '&') || at, at).href;
  answer = await go(at, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: fields.toString(),
  });
}
throw new Error('the sign-in did not end');
