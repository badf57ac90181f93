// Runs the page's script with a stand-in for the document, against a real server.
// Arguments: the script's path, the server's address, what to say.
import { readFileSync } from "node:fs";

const [, , script, address, text] = process.argv;

function element(tag) {
  const listeners = {};
  return {
    tag,
    children: [],
    className: "",
    textContent: "",
    value: "",
    disabled: false,
    append(child) {
      this.children.push(child);
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
  ["log", "form", "input", "send", "key", "state"].map((id) => [id, element(id)]),
);
globalThis.document = {
  getElementById: (id) => elements[id],
  createElement: element,
};
const realFetch = globalThis.fetch;
globalThis.fetch = (path, options) => realFetch(address + "/" + path, options);
(0, eval)(readFileSync(script, "utf8"));

elements.input.value = text;
await elements.form.fire("submit");
const deadline = Date.now() + 5000;
while (elements.state.textContent === "" && Date.now() < deadline) {
  await new Promise((resolve) => setTimeout(resolve, 20));
}
const lines = elements.log.children.map((line) => [line.className, line.textContent]);
console.log(JSON.stringify({ lines, state: elements.state.textContent }));
process.exit(0);
