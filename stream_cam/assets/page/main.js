// Puts the page together: what comes from the server is shown, what people do is sent to it.

import { Chart } from "./chart.js";
import { Classes, Search } from "./classes.js";
import { Controls } from "./controls.js";
import { Link } from "./link.js";
import { Stage } from "./stage.js";

const at = (id) => document.getElementById(id);
const ERROR_MS = 6000;

let settings = {}; // as the server last told them
let now = {}; // with what was asked for since
let asked = []; // changes that it has not answered yet: [{ n, changes }]
let asks = 0;
let pending = {};
let sending = 0;
let confirm = []; // pictures drawn while nobody looks at the page: more come when somebody does
let ratedAt = 0;
let errorTimer = 0;

const chart = new Chart();
const stage = new Stage({ onDivide: (divider) => change({ divider }), drawn });
const classes = new Classes({ onLock: lock });
const search = new Search({ onLock: lock });
const controls = new Controls({ change });
const link = new Link({
  onMessage: heard,
  onPicture: (about, jpeg) => stage.show(about, jpeg),
  onUp: () => reason({ up: true, why: "", ended: false }),
  onDown: (why) => {
    asked = []; // whether they were heard is told by the next greeting
    reason({ up: false, why });
    show();
  },
  onFallback: (on) => (at("fallback").hidden = !on),
});

function reason(changes) {
  Object.assign(stage.reason, changes);
  stage.judge();
}

// At most one change a picture's time: sliders say more than that.
function change(changes) {
  Object.assign(pending, changes);
  show();
  if (sending) return;
  sending = setTimeout(() => {
    sending = 0;
    asked.push({ n: ++asks, changes: pending });
    const sent = link.send({ type: "set", n: asks, changes: pending });
    pending = {};
    if (sent) return;
    asked = [];
    show();
    complain("not connected: nothing was changed");
  }, 30);
}

function answered(n) {
  asked = asked.filter((one) => one.n > n);
  show();
}

function lock(index) {
  change({ target: index });
}

function drawn(about) {
  classes.show(about.top ?? []); // no bars of a map that is too old to be shown
  describe(about);
  if (!about.repeated) rate(about);
  confirm.push(about.n);
  if (!document.hidden) confirmAll(false);
}

// Every figure is charted; the numbers change slowly enough to be read.
function rate(about) {
  if (about.latency_ms !== undefined) chart.add(about.latency_ms);
  if (performance.now() - ratedAt < 250) return;
  ratedAt = performance.now();
  at("age").textContent = `${about.age_ms.toFixed(0)} ms`;
  if (about.latency_ms !== undefined) at("latency").textContent = `${about.latency_ms.toFixed(0)} ms`;
}

function confirmAll(late) {
  for (const n of confirm) link.send({ type: "drawn", n, late });
  confirm = [];
}

function describe(about) {
  const shown = about.shown?.[0];
  const text = shown ? `Map of ${shown[0]}, ${(100 * shown[2]).toFixed(0)} %` : "Picture without a map";
  if (at("picture").getAttribute("aria-label") !== text) at("picture").setAttribute("aria-label", text);
}

function heard(message) {
  if (message.type === "hello") greet(message);
  else if (message.type === "settings") apply(message.settings);
  else if (message.type === "done") answered(message.n);
  else if (message.type === "stats") figures(message);
  else if (message.type === "error") complain(message.message);
  else if (message.type === "end") reason({ ended: true });
}

function greet(hello) {
  confirm = [];
  document.title = `${hello.source} · stream-cam`;
  at("source").textContent = hello.source;
  document.body.classList.toggle("viewer-only", hello.viewer_only);
  classes.rows.forEach((row) => (row.button.disabled = hello.viewer_only));
  document.body.dataset.run = hello.run;
  controls.offer(hello.choices);
  apply(hello.settings);
  askLabels();
}

function askLabels() {
  fetch(new URL("labels", document.baseURI)).then((answer) => answer.json()).then((labels) => (search.labels = labels)).catch(() => {});
}

function apply(told) {
  settings = told;
  show();
}

// What was asked for counts already, or news that were on their way would undo it for a moment,
// and the next key would count from there.
function show() {
  if (!settings.layout) return; // nothing has been told yet
  const { target, ...rest } = Object.assign({}, ...asked.map((one) => one.changes), pending);
  now = { ...settings, ...rest };
  if (target !== undefined) {
    now.target_index = target === null ? [] : [target];
    now.target = now.target_index.map((index) => search.labels[index] ?? `class ${index}`);
  }
  controls.show(now);
  classes.lock(now.target_index, now.target);
  const single = now.target_index.length < 2;
  const readonly = document.body.classList.contains("viewer-only");
  stage.divide(now.divider, !readonly && now.cam && single && (now.layout === "overlay" || now.layout === "heatmap"));
  reason({ paused: settings.paused }); // a picture is only called paused when it is
}

function figures(stats) {
  at("fps").textContent = stats.fps === undefined ? "–" : stats.fps.toFixed(1);
  at("viewers").textContent = String(stats.viewers);
  reason({ away: stats.away ?? null, waiting: stats.waiting ?? null });
  if (!stats.waiting && !search.labels.length) askLabels(); // there were none before the network was loaded
}

function complain(text) {
  at("error").textContent = text;
  clearTimeout(errorTimer);
  errorTimer = setTimeout(() => (at("error").textContent = ""), ERROR_MS);
}

function save() {
  const anchor = Object.assign(document.createElement("a"), { href: "snapshot.png", download: "" });
  document.body.append(anchor);
  anchor.click();
  anchor.remove();
}

function fullscreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (document.fullscreenEnabled) at("stage").requestFullscreen().catch((error) => complain(error.message));
}

function help() {
  const dialog = at("help");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

const KEYS = {
  " ": () => controls.toggle("paused"),
  s: save,
  r: () => controls.toggle("recording"),
  c: () => controls.toggle("cam"),
  "[": () => controls.strengthen(-0.1),
  "]": () => controls.strengthen(0.1),
  m: () => controls.next("colormap"),
  l: () => controls.next("layout"),
  0: () => lock(null),
  Escape: () => now.target_index?.length && lock(null),
  "/": () => at("search").focus(),
  f: fullscreen,
  "?": help,
};
const NOT_WITHOUT_CONTROL = new Set([" ", "r", "c", "[", "]", "m", "l", "0", "Escape", "/"]);

addEventListener("keydown", (event) => {
  const bracket = event.key === "[" || event.key === "]"; // on many keyboards with Alt or Ctrl
  if ((event.ctrlKey || event.metaKey || event.altKey) && !bracket) return;
  if (event.isComposing || (event.repeat && !bracket)) return;
  const place = event.target;
  if (place.matches("input[type=text], select") && event.key !== "Escape") return;
  if (at("help").open && event.key !== "?") return;
  if (event.key === " " && place.matches("button, input, a")) return;
  const watching = document.body.classList.contains("viewer-only");
  const digit = "12345".indexOf(event.key);
  const action = digit >= 0 ? () => classes.choose(digit) : KEYS[event.key];
  if (!action || (watching && (digit >= 0 || NOT_WITHOUT_CONTROL.has(event.key)))) return;
  event.preventDefault();
  action();
});

// After a click keys mean what they always mean, and not the button once more.
addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
document.addEventListener("visibilitychange", () => document.hidden || confirmAll(true));
at("fullscreen").hidden = !document.fullscreenEnabled;
at("snapshot").addEventListener("click", save);
at("fullscreen").addEventListener("click", fullscreen);
at("help-button").addEventListener("click", help);

// Dark unless the system or the viewer wants it light.
const root = document.documentElement;
const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
const system = matchMedia("(prefers-color-scheme: light)");
const paint = () => (root.dataset.theme = stored() ?? (system.matches ? "light" : "dark"));
system.addEventListener("change", paint);
at("theme").addEventListener("click", () => {
  try { localStorage.setItem("theme", root.dataset.theme === "light" ? "dark" : "light"); } catch { /* private */ }
  paint();
});
paint();
