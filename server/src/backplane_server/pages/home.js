"use strict";
const log = document.getElementById("log");
const form = document.getElementById("form");
const input = document.getElementById("input");
const send = document.getElementById("send");
const key = document.getElementById("key");
const keyField = document.getElementById("key-field");
const links = document.getElementById("links");
const facts = document.getElementById("facts");
const state = document.getElementById("state");
const messages = [];
let factsKnown = false;
let timer;

function show(kind, text) {
  const line = document.createElement("p");
  line.className = kind;
  line.textContent = text;
  log.append(line);
  line.scrollIntoView({ block: "end" });
  return line;
}

function headers() {
  const all = { "content-type": "application/json" };
  if (key.value) all.authorization = "Bearer " + key.value;
  return all;
}

async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    buffer += value;
    const frames = buffer.split("\n\n");
    buffer = frames.pop();
    for (const frame of frames) {
      if (frame.startsWith("data: ") && frame !== "data: [DONE]") yield JSON.parse(frame.slice(6));
    }
  }
}

async function ask() {
  const line = show("assistant", "");
  const response = await fetch("v1/chat/completions", {
    method: "POST",
    headers: headers(),
    body: JSON.stringify({ messages, stream: true, temperature: 0 }),
  });
  if (!response.ok) {
    const body = await response.json().catch(() => ({}));
    throw new Error((body.error && body.error.message) || "HTTP status " + response.status);
  }
  for await (const event of events(response)) {
    if (event.error) throw new Error(event.error.message);
    for (const choice of event.choices) line.textContent += choice.delta.content || "";
  }
  messages.push({ role: "assistant", content: line.textContent });
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = input.value.trim();
  if (!text) return;
  input.value = "";
  send.disabled = true;
  show("user", text);
  messages.push({ role: "user", content: text });
  try {
    await ask();
  } catch (error) {
    messages.pop();
    show("error", String(error.message || error));
  }
  send.disabled = false;
  input.focus();
});

input.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    form.requestSubmit();
  }
});

function showFacts(pairs) {
  const lines = pairs.flatMap(([name, value]) => {
    const term = document.createElement("dt");
    const description = document.createElement("dd");
    term.textContent = name;
    description.textContent = value;
    return [term, description];
  });
  facts.replaceChildren(...lines);
}

async function loadFacts() {
  const response = await fetch("info", { headers: headers() });
  if (response.status === 401) {
    // A browser sends no key with a link, so these would only lead to refusals.
    keyField.hidden = false;
    links.hidden = true;
  }
  if (!response.ok) return;
  const info = await response.json();
  showFacts([
    ["Model", info.model_id],
    ["Backend", info.backend + " " + info.backend_version],
    ["Device", info.device],
    ["Context", info.max_total_tokens + " tokens, of which a prompt may have " + info.max_input_tokens],
    ["Backplane", info.version],
  ]);
  factsKnown = true;
}

async function poll() {
  let delay = 1000;
  try {
    if (!factsKnown) await loadFacts();
    const full = await fetch("health", { headers: headers() });
    const response = full.status === 401 ? await fetch("health/ready") : full;
    if (response.ok) {
      state.textContent = "ready";
      delay = 15000;
    } else {
      const body = await response.json();
      const { stage, fraction, detail } = body.progress || body;
      const share = typeof fraction === "number" ? " " + Math.round(fraction * 100) + " %" : "";
      state.textContent = "not ready: " + stage + share + (detail ? ": " + detail : "");
    }
  } catch (error) {
    state.textContent = "the server does not answer";
  }
  clearTimeout(timer);
  timer = setTimeout(poll, delay);
}

key.addEventListener("change", () => {
  factsKnown = false;
  clearTimeout(timer);
  poll();
});
poll();
