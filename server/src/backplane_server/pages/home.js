"use strict";
const log = document.getElementById("log");
const form = document.getElementById("form");
const input = document.getElementById("input");
const send = document.getElementById("send");
const key = document.getElementById("key");
const state = document.getElementById("state");
const messages = [];

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

async function poll() {
  let delay = 1000;
  try {
    const response = await fetch("health/ready");
    if (response.ok) {
      state.textContent = "ready";
      delay = 15000;
    } else {
      const body = await response.json();
      const share = typeof body.fraction === "number" ? " " + Math.round(body.fraction * 100) + " %" : "";
      state.textContent = "not ready: " + body.stage + share;
    }
  } catch (error) {
    state.textContent = "the server does not answer";
  }
  setTimeout(poll, delay);
}
poll();
