// Latency of the last minute: a column a second with the median and the maximum.

const SECONDS = 60;

export class Chart {
  constructor() {
    this.canvas = document.getElementById("chart");
    this.top = document.getElementById("chart-top");
    this.values = [];
    this.columns = [];
    setInterval(() => this.#second(), 1000);
  }

  add(milliseconds) {
    if (Number.isFinite(milliseconds)) this.values.push(milliseconds);
  }

  #second() {
    const sorted = this.values.sort((a, b) => a - b);
    this.values = [];
    this.columns.push(sorted.length ? [sorted[sorted.length >> 1], sorted[sorted.length - 1]] : null);
    if (this.columns.length > SECONDS) this.columns.shift();
    this.#draw();
  }

  #draw() {
    const { canvas, columns } = this;
    const style = getComputedStyle(document.documentElement);
    const ratio = devicePixelRatio || 1;
    const width = Math.max(1, Math.round(canvas.clientWidth * ratio));
    const height = Math.max(1, Math.round(canvas.clientHeight * ratio));
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, width, height);
    const seen = columns.filter(Boolean);
    const most = Math.max(50, ...seen.map(([, worst]) => worst));
    const top = Math.ceil(most / 50) * 50;
    const step = width / SECONDS;
    const y = (value) => height - (Math.min(value, top) / top) * (height - ratio);
    this.top.textContent = `${top} ms`;
    context.fillStyle = style.getPropertyValue("--quiet");
    context.globalAlpha = 0.4;
    for (const line of [y(top), height - ratio]) context.fillRect(0, line, width, ratio);
    context.globalAlpha = 1;
    columns.forEach((column, at) => {
      const x = width - (columns.length - at) * step;
      if (!column) return;
      context.fillStyle = style.getPropertyValue("--bar");
      context.fillRect(x, y(column[1]), Math.max(1, step - ratio), height - y(column[1]));
      context.fillStyle = style.getPropertyValue("--accent");
      context.fillRect(x, y(column[0]), Math.max(1, step - ratio), Math.max(2 * ratio, 2));
    });
    const last = seen.at(-1);
    if (last) {
      const worst = Math.max(...seen.map((column) => column[1]));
      const text = `Latency now ${last[0].toFixed(0)} ms, most in the last minute ${worst.toFixed(0)} ms`;
      canvas.setAttribute("aria-label", text);
    }
  }
}
