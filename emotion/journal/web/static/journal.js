// What all pages share: events of the background, forms that answer without a new page.
"use strict";

const swap = async (selector, url = location.href) => {
  const response = await fetch(url, { headers: { Accept: "text/html" } });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const old = document.querySelector(selector), fresh = page.querySelector(selector);
  if (!old || !fresh) { location.assign(response.url); return; }
  // the parts that may have changed, so that a playing clip and a half-written note stay
  const parts = old.querySelectorAll("[data-part]");
  if (!parts.length) { old.replaceWith(fresh); return; }
  for (const attribute of fresh.attributes) old.setAttribute(attribute.name, attribute.value);
  for (const part of parts) {
    const name = `[data-part="${part.dataset.part}"]`, next = fresh.querySelector(name);
    if (!next) { part.replaceChildren(); continue; }
    if (part.innerHTML !== next.innerHTML) part.replaceChildren(...next.childNodes);
    part.className = next.className;
  }
};

// One tap corrects: the answer changes in place. Without JavaScript the form loads the page again.
document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-swap]");
  if (!form) return;
  event.preventDefault();
  const button = event.submitter, body = new URLSearchParams(new FormData(form));
  if (button?.name) body.set(button.name, button.value);
  const response = await fetch(form.action, { method: "POST", body, headers: { Accept: "text/html" } });
  if (!response.ok) { location.assign(location.href); return; }
  await swap("#entry");
  document.querySelector(`form[data-swap] button[value="${CSS.escape(button?.value ?? "")}"]`)?.focus();
});

// Server-sent events, only where something is under way.
const entry = document.querySelector("#entry"), jobs = document.querySelector("#jobs");
const waits = () => ["waiting", "analyzing"].includes(document.querySelector("#entry")?.dataset.state);
const runs = () => document.querySelector('[data-job][data-state="running"]');
if (waits() || runs()) {
  const source = new EventSource("/events");
  const refresh = async () => {
    if (entry) await swap("#entry");
    else if (jobs) await swap("#jobs");
    else location.reload();
    if (!waits() && !runs()) source.close();
  };
  source.addEventListener("open", refresh); // it may have ended before we listened
  source.addEventListener("message", ({ data }) => {
    const event = JSON.parse(data);
    if (event.kind === "entry" && event.id === entry?.dataset.entry) refresh();
    const item = event.kind === "job" && document.querySelector(`[data-job="${CSS.escape(event.id)}"]`);
    if (!item) return;
    if (event.state !== "running") refresh();
    else if (item.querySelector("progress")) item.querySelector("progress").value = event.progress;
  });
}
