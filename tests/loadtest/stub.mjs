// Stands in for k6's modules, to run the script's own logic under Node: one iteration against planned answers.
// Prints as JSON what was asked, what was measured, and the options.
import { mkdirSync, writeFileSync, copyFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const [script, folder, planned] = process.argv.slice(2);
const modules = {
  "k6": "export const check = (v, all) => globalThis.k6.check(v, all);",
  "k6/http": "export default globalThis.k6.http;",
  "k6/metrics": "export class Trend { constructor(n) { this.n = n; } add(v) { globalThis.k6.add(this.n, v); } }"
    + " export class Counter extends Trend {}",
  "k6/execution": "export default { scenario: { iterationInTest: 7 } };",
};
const home = join(folder, "node_modules", "k6");
mkdirSync(home, { recursive: true });
writeFileSync(join(home, "package.json"), JSON.stringify({
  name: "k6", type: "module",
  exports: { ".": "./k6.js", "./http": "./http.js", "./metrics": "./metrics.js", "./execution": "./execution.js" },
}));
for (const [name, text] of Object.entries(modules)) {
  writeFileSync(join(home, `${name.split("/").pop()}.js`), text);
}
const copy = join(folder, "script.mjs");
copyFileSync(script, copy);

const answers = JSON.parse(planned);
const asked = [], metrics = {};
const answer = (method, url, options) => {
  asked.push({ method, url, prefer: options.headers.Prefer, key: options.headers["Idempotency-Key"] });
  const { status, body } = answers.shift();
  return { status, json: () => body };
};
globalThis.__ENV = process.env;
globalThis.k6 = {
  check: (value, all) => Object.values(all).every((holds) => holds(value)),
  add: (name, value) => (metrics[name] ??= []).push(value),
  http: {
    post: (url, body, options) => ({ ...answer("POST", url, options), sent: JSON.parse(body) }),
    get: (url, options) => answer("GET", url, options),
  },
};
const { default: iterate, options } = await import(pathToFileURL(copy));
iterate();
console.log(JSON.stringify({ asked, metrics, options }));
