// Buttons, sliders and choices: they show the run's settings and change them.

const SLIDERS = {
  alpha: (value) => value.toFixed(2),
  smooth: (value) => (value ? `${value.toFixed(2)} s` : "off"),
  hold: (value) => (value ? `${value.toFixed(1)} s` : "off"),
  max_delay: (value) => `${value.toFixed(1)} s`,
  max_age: (value) => `${value.toFixed(1)} s`,
};
const SWITCHES = { cam: "Map", paused: "Pause", recording: "Record" };
const SELECTS = ["colormap", "sync", "scale", "upsampling"];
const LAYOUT_NAMES = { overlay: "overlay", side: "side", heatmap: "heat", top5: "top 5" };

export class Controls {
  constructor({ change, tell }) {
    this.change = change;
    this.tell = tell;
    this.now = {};
    this.choices = {};
    this.held = null; // the slider that is being moved on this page
    for (const name of Object.keys(SLIDERS)) this.#slider(name);
    for (const name of ["cam", "paused"]) {
      document.getElementById(name).addEventListener("click", () => this.toggle(name));
    }
    document.getElementById("recording").addEventListener("click", () => this.record());
    for (const name of SELECTS) {
      const select = document.getElementById(name);
      select.addEventListener("change", () => change({ [name]: select.value }));
    }
    const against = document.getElementById("against");
    against.addEventListener("change", () => change({ against: against.value ? [against.value] : null }));
    document.getElementById("layout").addEventListener("change", (event) => change({ layout: event.target.value }));
  }

  offer(choices) {
    this.choices = choices;
    for (const name of SELECTS) {
      document.getElementById(name).replaceChildren(...choices[name].map((one) => new Option(one, one)));
    }
    const layout = document.getElementById("layout");
    layout.querySelectorAll("label").forEach((label) => label.remove());
    for (const name of choices.layout) {
      const label = document.createElement("label");
      const radio = Object.assign(document.createElement("input"), { type: "radio", name: "layout", value: name });
      const text = Object.assign(document.createElement("span"), { textContent: LAYOUT_NAMES[name] ?? name });
      label.append(radio, text);
      layout.append(label);
    }
  }

  show(settings) {
    this.now = settings;
    for (const name of Object.keys(SLIDERS)) if (this.held !== name) this.#place(name, settings[name]);
    for (const name of Object.keys(SWITCHES)) {
      document.getElementById(name).setAttribute("aria-pressed", String(settings[name]));
    }
    for (const name of SELECTS) document.getElementById(name).value = settings[name];
    this.#showAgainst(settings.against ?? []);
    document.getElementById("scale-bar").dataset.colormap = settings.colormap;
    for (const radio of document.querySelectorAll("#layout input")) radio.checked = radio.value === settings.layout;
  }

  // The classes that a map may be against.
  offerClasses(labels) {
    this.labels = labels;
    this.#showAgainst(this.now.against ?? []);
  }

  #showAgainst(against) {
    const select = document.getElementById("against");
    const nexts = against.length > 1 && against.every((one) => one === "next");
    const value = nexts ? `next:${against.length}` : against.join(", ");
    const names = ["", "next", "next:3", ...(this.labels ?? [])];
    if (!names.includes(value)) names.push(value);
    if (names.length !== select.options.length || select.options[names.length - 1].value !== names.at(-1)) {
      const said = { "": "–", next: "the next best", "next:3": "the next three" };
      select.replaceChildren(...names.map((one) => new Option(said[one] ?? one, one)));
    }
    select.value = value;
  }

  // Shows the map against the best other class, or plain again.
  contrast() {
    const against = this.now.against?.length ? null : ["next"];
    this.change({ against });
  }

  toggle(name) {
    this.change({ [name]: !this.now[name] });
  }

  // The run announces the file when it begins and when it is finished.
  record() {
    if (!this.now.recording && this.now.paused) this.tell("it records when the pause is over");
    this.toggle("recording");
  }

  next(name) {
    const names = this.choices[name] ?? [];
    this.change({ [name]: names[(names.indexOf(this.now[name]) + 1) % names.length] });
  }

  strengthen(step) {
    this.change({ alpha: Math.min(1, Math.max(0, Math.round(100 * (this.now.alpha + step)) / 100)) });
  }

  #slider(name) {
    const slider = document.getElementById(name);
    slider.addEventListener("input", () => {
      this.held = name;
      this.#place(name, slider.valueAsNumber);
      this.change({ [name]: slider.valueAsNumber });
    });
    for (const end of ["change", "blur", "pointerup"]) slider.addEventListener(end, () => (this.held = null));
  }

  #place(name, value) {
    const slider = document.getElementById(name);
    if (slider.valueAsNumber !== value) slider.value = String(value);
    const text = SLIDERS[name](value);
    slider.setAttribute("aria-valuetext", text);
    document.getElementById(`${name}-value`).textContent = text;
  }
}
