// Runs the page's script with a stand-in for the document, against a real server.
// Arguments: the script's path, the server's address, what to say, and the key to type, if any.
import { readFileSync } from "node:fs";

const [, , script, address, text, key] = process.argv;

function element(tag) {
  const listeners = {};
  return {
    tag,
    children: [],
    className: "",
    textContent: "",
    value: "",
    disabled: false,
    hidden: tag === "key-field",
    append(child) {
      this.children.push(child);
    },
    replaceChildren(...children) {
      this.children = children;
    },
    scrollIntoView() {},
    focus() {},
    addEventListener(name, listener) {
      listeners[name] = listener;
    },
    fire: (name) => listeners[name]({ preventDefault() {} }),
  };
}

const elements = Object.fromEntries(
  ["log", "form", "input", "send", "key", "key-field", "links", "facts", "state"].map((id) => [
    id,
    element(id),
  ]),
);
globalThis.document = {
  getElementById: (id) => elements[id],
  createElement: element,
};
const realFetch = globalThis.fetch;
globalThis.fetch = (path, options) => realFetch(address + "/" + path, options);
(0, eval)(readFileSync(script, "utf8"));

async function until(condition) {
  const deadline = Date.now() + 20000;
  while (!condition() && Date.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

await until(() => elements.state.textContent !== "");
const before = {
  keyAsked: !elements["key-field"].hidden,
  linksShown: !elements.links.hidden,
  numFacts: elements.facts.children.length,
};
if (key) {
  elements.key.value = key;
  elements.key.fire("change");
  await until(() => elements.facts.children.length > 0);
}
elements.input.value = text;
await elements.form.fire("submit");
const textOf = (parent) => parent.children.map((child) => child.textContent);
const lines = elements.log.children.map((line) => [line.className, line.textContent]);
console.log(
  JSON.stringify({
    before,
    lines,
    facts: textOf(elements.facts),
    state: elements.state.textContent,
  }),
);
process.exit(0);
