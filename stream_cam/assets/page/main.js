// Connects the page's parts: shows the server's messages and sends it the viewer's changes.

import { Chart } from "./chart.js";
import { Classes, N_BARS, Search } from "./classes.js";
import { Controls } from "./controls.js";
import { Link } from "./link.js";
import { Stage } from "./stage.js";
import { Viewer } from "./viewer.js";

const at = (id) => document.getElementById(id);
const ERROR_MS = 6000;
const TOO_SLOW = "The network is too slow for this camera: a smaller --input-size, a longer delay or another way for picture and map to meet (More: --max-delay, --sync), or fewer frames a second (--camera-fps) helps.";
const kiosk = new URLSearchParams(location.search).has("kiosk"); // the picture and its label alone
document.body.classList.toggle("kiosk", kiosk);

let settings = {}; // the server's last values
let now = {}; // with the changes made since
let unanswered = []; // changes that the server has not answered yet: [{ n, changes }]
let changeCount = 0;
let pending = {};
let sending = 0;
let confirm = []; // pictures drawn while the page is hidden; confirmed when it is shown
let ratedAt = 0;
let errorTimer = 0, toastTimer = 0;
let heard = 0; // the number of the newest announcement

const chart = new Chart();
const stage = new Stage({ onDivide: (divider) => change({ divider }), drawn });
const classes = new Classes({ onLock: lock, onNothing: showError });
const search = new Search({ onLock: lock, onNothing: showError });
const controls = new Controls({ change, tell });
const link = new Link({
  onMessage: receive,
  onPicture: (about, jpeg) => stage.show(about, jpeg),
  onUp: () => {
    setReason({ up: true, why: "", ended: false });
    viewer.sendHud();
  },
  onDown: (why) => {
    unanswered = []; // the next hello has the settings that were made
    setReason({ up: false, why });
    show();
  },
  onFallback: (on) => (at("fallback").hidden = !on),
});
const viewer = new Viewer({ link, kiosk, tell, showError });

function setReason(changes) {
  Object.assign(stage.reason, changes);
  stage.updateState();
}

// At most one message in 30 ms: sliders change more often than that.
function change(changes) {
  Object.assign(pending, changes);
  show();
  if (sending) return;
  sending = setTimeout(() => {
    sending = 0;
    unanswered.push({ n: ++changeCount, changes: pending });
    const sent = link.send({ type: "set", n: changeCount, changes: pending });
    pending = {};
    if (sent) return;
    unanswered = [];
    show();
    showError("not connected: nothing was changed");
  }, 30);
}

function answered(n) {
  unanswered = unanswered.filter((one) => one.n > n);
  show();
}

function lock(index) {
  change({ target: index });
}

function drawn(about) {
  // The last answer stays, marked as old, where the picture's map is too old to be shown.
  if (about.top) classes.show(about.top);
  classes.list.classList.toggle("old", !about.top);
  describe(about);
  if (!about.repeated) rate(about);
  confirm.push(about.n);
  if (!document.hidden) confirmAll(false);
}

// Every value is charted; the numbers change slowly enough to be read.
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
  const name = shown && [shown[0], ...(about.against?.length ? [`not ${about.against.join(", ")}`] : [])].join(", ");
  const text = shown ? `Map of ${name}, ${(100 * shown[2]).toFixed(0)} %` : "Picture without a map";
  at("picture-label").textContent = shown ? `${name} ${(100 * shown[2]).toFixed(0)} %` : "";
  if (at("picture").getAttribute("aria-label") !== text) at("picture").setAttribute("aria-label", text);
}

function receive(message) {
  if (message.type === "hello") greet(message);
  else if (message.type === "settings") apply(message.settings);
  else if (message.type === "done") answered(message.n);
  else if (message.type === "stats") figures(message);
  else if (message.type === "error") showError(message.message);
  else if (message.type === "announced") hear(message);
  else if (message.type === "end") setReason({ ended: true });
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
  heard = hello.announced;
  at("note").textContent = hello.settings.recording ? hello.text : "";
  askLabels();
}

function askLabels() {
  fetch(new URL("labels", document.baseURI)).then((answer) => answer.json()).then(known).catch(() => {});
}

function known(labels) {
  search.labels = labels;
  controls.offerClasses(labels);
}

function apply(told) {
  settings = told;
  show();
}

// Unanswered changes are shown at once. Otherwise a message that was on its way would undo them for
// a moment, and the next key would start from there.
function show() {
  if (!settings.layout) return; // no hello yet
  const { target, ...rest } = Object.assign({}, ...unanswered.map((one) => one.changes), pending);
  now = { ...settings, ...rest };
  now.against ??= []; // null: against none
  if (target !== undefined) {
    now.target_index = target === null ? [] : [target];
    now.target = now.target_index.map((index) => search.labels[index] ?? `class ${index}`);
  }
  controls.show(now);
  classes.lock(now.target_index, now.target);
  const single = now.target_index.length < 2;
  const readonly = document.body.classList.contains("viewer-only");
  stage.divide(now.divider, !readonly && now.cam && single && (now.layout === "overlay" || now.layout === "heatmap"));
  setReason({ paused: settings.paused }); // the server's value: the picture is paused only when the server says so
}

function figures(stats) {
  hear(stats);
  at("fps").textContent = stats.fps === undefined ? "–" : stats.fps.toFixed(1);
  at("viewers").textContent = String(stats.viewers);
  setReason({ away: stats.away ?? null, waiting: stats.waiting ?? null });
  const sync = stats.sync;
  at("map-state").textContent = sync && !settings.paused ? mapState(sync, stats.age_seconds) : "its own";
  at("advice").hidden = !sync?.too_slow;
  at("advice").textContent = sync?.too_slow ? TOO_SLOW : "";
  if (!stats.waiting && !search.labels.length) askLabels(); // the server has none before the network is loaded
}

function mapState({ mode, delay_seconds: delay }, age) {
  if (mode === "newest") return age == null ? "newest" : `newest, ${(1000 * age).toFixed(0)} ms old`;
  return delay == null ? mode : `${mode}, ${(1000 * delay).toFixed(0)} ms late`;
}

// Such as the name of a recording, when it begins and when it is finished.
function hear({ announced, text }) {
  if (!announced || announced === heard) return;
  heard = announced;
  tell(text);
}

function tell(text) {
  at("note").textContent = text;
  toast(text);
}

function showError(text) {
  at("error").textContent = text;
  toast(text);
  clearTimeout(errorTimer);
  errorTimer = setTimeout(() => (at("error").textContent = ""), ERROR_MS);
}

// Over the picture where nothing stands beside it: in full screen, on a wall, on a phone.
function toast(text) {
  at("toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => (at("toast").textContent = ""), ERROR_MS);
}

function help() {
  const dialog = at("help");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

// Where the picture fills the screen, the controls lie over it.
function openPanel(open) {
  document.body.classList.toggle("panel-open", open);
  at("panel-button").setAttribute("aria-expanded", String(open));
}

const KEYS = {
  " ": () => controls.toggle("paused"),
  s: () => viewer.save(),
  r: () => controls.record(),
  h: () => viewer.toggleHud(),
  c: () => controls.toggle("cam"),
  "[": () => controls.strengthen(-0.1),
  "]": () => controls.strengthen(0.1),
  m: () => controls.next("colormap"),
  l: () => controls.next("layout"),
  n: () => controls.contrast(),
  0: () => lock(null),
  Escape: () => now.target_index?.length && lock(null),
  "/": () => at("search").focus(),
  f: () => viewer.fullscreen(),
  "?": help,
};
const NOT_WITHOUT_CONTROL = new Set([" ", "r", "c", "[", "]", "m", "l", "n", "0", "Escape", "/"]);

const NEEDS_MAP = new Set(["[", "]", "m"]);

addEventListener("keydown", (event) => {
  const bracket = event.key === "[" || event.key === "]"; // on many keyboards with Alt or Ctrl
  if ((event.ctrlKey || event.metaKey || event.altKey) && !bracket) return;
  if (event.isComposing || (event.repeat && !bracket)) return;
  const target = event.target;
  if (target.matches("input[type=text], select") && event.key !== "Escape") return;
  if (at("help").open && event.key !== "?") return;
  if (event.key === " " && target.matches("button, input, a")) return;
  const watching = document.body.classList.contains("viewer-only");
  const place = Number(event.key) - 1;
  const choosesClass = /^[1-9]$/.test(event.key) && place < N_BARS;
  const action = choosesClass ? () => classes.choose(place) : KEYS[event.key];
  if (!action) return;
  event.preventDefault();
  if (watching && (choosesClass || NOT_WITHOUT_CONTROL.has(event.key))) {
    showError("this page only watches: its run allows no changes from here");
    return;
  }
  action();
  if (NEEDS_MAP.has(event.key) && !now.cam) tell("the map is off: c shows it");
});

// After a click, keys are shortcuts again and do not press the button once more.
addEventListener("click", (event) => event.detail && event.target.closest("button")?.blur());
document.addEventListener("visibilitychange", () => document.hidden || confirmAll(true));
at("help-button").addEventListener("click", help);
at("panel-button").addEventListener("click", () => openPanel(!document.body.classList.contains("panel-open")));
// A touch on the picture closes the controls that lie over it.
at("picture").addEventListener("click", () => openPanel(false));
