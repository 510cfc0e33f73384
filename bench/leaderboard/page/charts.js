"use strict";
// The figures, drawn when they are opened. Defines drawFigures, which page.js calls.

const WIDTH = 440;
const HEIGHT = 270;
const EDGE = { left: 54, right: 14, top: 10, bottom: 42 };
const COLOURS = Array.from({ length: 8 }, (_, i) => `var(--c${i})`);
const DASHES = ["", "6 3", "2 3", "8 3 2 3"];
let drawn = null;

const svg = (name, attributes = {}, ...children) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
};
const short = (x) => {
  for (const [unit, sign] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (Math.abs(x) >= unit) return `${+(x / unit).toPrecision(3)}${sign}`;
  return String(+x.toPrecision(3));
};

function drawFigures() {
  drawn ??= JSON.parse(byId("drawn").textContent);
  const own = drawn.filter((f) => groups[f.table].id === state.data);
  byId("charts").replaceChildren(...own.map((figure) => {
    const body = make("div");
    const box = make("details", { open: listed("fig").includes(figure.kind) }, make("summary", { textContent: figure.title }), body);
    box.addEventListener("toggle", () => {
      const others = listed("fig").filter((kind) => kind !== figure.kind);
      state.fig = (box.open ? [...others, figure.kind] : others).join();
      writeAddress();
      if (box.open && !body.firstChild) drawFigure(figure, body);
    });
    if (box.open) drawFigure(figure, body);
    return box;
  }));
}

function drawFigure(figure, body) {
  body.append(make("p", { className: "figure-caption", textContent: figure.caption }));
  if (figure.grid) body.append(drawGains(figure));
  else if (figure.ranking) body.append(drawRanking(figure));
  else if (figure.panels[0].points.length) body.append(...drawPoints(figure));
  else body.append(...drawLines(figure));
}

// ---- axes

function scale([low, high], [from, to], log) {
  const f = log ? Math.log10 : (x) => x;
  return (x) => from + ((f(x) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
}

function ticks([low, high], log) {
  if (log) {
    const steps = high / low < 200 ? [1, 2, 5] : [1];
    const powers = Array.from({ length: 24 }, (_, i) => 10 ** (i - 6));
    return powers.flatMap((p) => steps.map((s) => s * p)).filter((x) => x >= low && x <= high);
  }
  const rough = (high - low) / 5 || 1;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((s) => s * unit).find((s) => s >= rough);
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, i) => (first + i) * step);
}

function axes(panel, xs, ys, log, label) {
  const x = scale(xs, [EDGE.left, WIDTH - EDGE.right], log);
  const y = scale(ys, [HEIGHT - EDGE.bottom, EDGE.top]);
  const plot = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "group", "aria-label": label });
  const text = (at, content) => { const node = svg("text", at); node.textContent = content; plot.append(node); };
  for (const t of ticks(xs, log)) {
    plot.append(svg("line", { x1: x(t), x2: x(t), y1: EDGE.top, y2: HEIGHT - EDGE.bottom, class: "axis" }));
    text({ x: x(t), y: HEIGHT - EDGE.bottom + 16, "text-anchor": "middle" }, short(t));
  }
  for (const t of ticks(ys)) {
    plot.append(svg("line", { x1: EDGE.left, x2: WIDTH - EDGE.right, y1: y(t), y2: y(t), class: "axis" }));
    text({ x: EDGE.left - 6, y: y(t) + 4, "text-anchor": "end" }, short(t));
  }
  text({ x: (WIDTH + EDGE.left) / 2, y: HEIGHT - 6, "text-anchor": "middle" }, panel.x_label);
  text({ x: 14, y: HEIGHT / 2 - 12, "text-anchor": "middle", transform: `rotate(-90 14 ${HEIGHT / 2 - 12})` }, panel.y_label);
  return { plot, x, y };
}

const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");

function widened([low, high], share) {
  const by = (high - low) * share || Math.abs(high) * share || 1;
  return [low - by, high + by];
}

// ---- quality against cost

function drawPoints(figure) {
  const readout = make("p", { className: "readout", textContent: "Point at a dot, or walk with the arrow keys, to read it; click or Enter opens its row." });
  const panels = figure.panels.map((panel) => {
    const rivals = panel.points.filter((p) => p.kind === "competitor");
    const low = Math.min(...rivals.map((p) => p.skill - (p.half_width || 0)));
    const points = panel.points.filter((p) => p.skill >= low).sort((a, b) => a.cost - b.cost || a.skill - b.skill);
    const costs = points.map((p) => p.cost);
    const high = Math.max(...points.map((p) => p.skill + (p.half_width || 0)));
    const { plot, x, y } = axes(panel, [Math.min(...costs) / 1.2, Math.max(...costs) * 1.2], widened([low, high], 0.04), true, `${figure.title}, ${panel.x_label}`);
    const front = svg("path", { d: path(points.filter((p) => p.front).map((p) => [x(p.cost), y(p.skill)])) });
    front.style.stroke = "var(--c1)";
    plot.append(front);
    const marks = points.map((p, i) => drawMark(plot, p, x, y, readout, i));
    plot.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
      const next = marks[marks.indexOf(document.activeElement) + step];
      if (!step || !next) return;
      event.preventDefault();
      document.activeElement.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
    return make("figure", {}, make("h3", { textContent: `Mean skill against ${panel.x_label}` }), plot);
  });
  return [readout, make("div", { className: "panels" }, ...panels)];
}

function drawMark(plot, p, x, y, readout, index) {
  const colour = p.kind === "reference" ? "var(--c7)" : p.front ? "var(--c1)" : "var(--c0)";
  const text = `${p.label}: mean skill ${p.skill.toFixed(4)}${p.half_width ? ` ± ${p.half_width.toFixed(4)}` : ""}, cost ${short(p.cost)}${p.front ? ", on the Pareto front" : ""}`;
  if (p.half_width) {
    const bar = svg("line", { x1: x(p.cost), x2: x(p.cost), y1: y(p.skill - p.half_width), y2: y(p.skill + p.half_width), class: "error" });
    bar.style.stroke = colour;
    plot.append(bar);
  }
  const mark = svg("circle", { cx: x(p.cost), cy: y(p.skill), r: 5, class: "mark", tabindex: index ? -1 : 0, role: "button", "aria-label": text });
  mark.style.fill = colour;
  const tell = () => { readout.textContent = text; };
  mark.addEventListener("pointerenter", tell);
  mark.addEventListener("focus", tell);
  mark.addEventListener("click", () => openRow(p.label));
  mark.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault(); // or the key would press the row's button too
    openRow(p.label);
  });
  plot.append(mark);
  return mark;
}

function openRow(label) {
  const row = group().rows.find((r) => r.label === label);
  state = { ...state, part: "0", q: label, text: "", family: START.family, open: [...new Set([...listed("open"), idOf(row)])].join() };
  fillControls();
  drawTable();
  writeAddress();
  byId("results").scrollIntoView();
  const button = [...document.querySelectorAll(".board > tbody > tr > th > button")].find((b) => b.textContent === label);
  button?.focus();
}

// ---- training and tuning curves

function drawLines(figure) {
  const labels = [...new Set(figure.panels.flatMap((p) => p.lines.map((l) => l.label)))];
  const chosen = new Set(figure.shown);
  const rank = [...figure.shown, ...labels.filter((l) => !chosen.has(l))]; // a line keeps its colour
  const look = (label) => [COLOURS[rank.indexOf(label) % 8], DASHES[Math.floor(rank.indexOf(label) / 8) % 4]];
  const panels = make("div", { className: "panels" });
  const update = () => panels.replaceChildren(...figure.panels.map((panel) => drawCurves(figure, panel, chosen, look)));
  const boxes = rank.map((label) => {
    const input = make("input", { type: "checkbox", checked: chosen.has(label) });
    input.addEventListener("change", () => {
      if (input.checked) chosen.add(label);
      else chosen.delete(label);
      update();
    });
    const swatch = make("i");
    swatch.style.borderTopColor = look(label)[0];
    swatch.style.borderTopStyle = look(label)[1] ? "dashed" : "solid";
    return make("label", {}, input, swatch, make("span", { textContent: label }));
  });
  update();
  return [make("fieldset", {}, make("legend", { textContent: "Lines" }), make("div", { className: "choice" }, ...boxes)), panels];
}

function drawCurves(figure, panel, chosen, look) {
  const lines = panel.lines.filter((l) => chosen.has(l.label));
  const all = lines.flatMap((l) => [...l.y, ...l.low, ...l.high]);
  const name = panel.title || panel.y_label;
  const box = make("figure", {}, make("h3", { textContent: name }));
  if (!all.length) return box;
  const xs = [lines[0].low.length ? 1 : 0, Math.max(...lines.flatMap((l) => l.x))];
  const about = lines.map((l) => `${l.label}: from ${short(l.y[0])} to ${short(l.y.at(-1))}`).join("; ");
  const { plot, x, y } = axes(panel, xs, widened([Math.min(...all), Math.max(...all)], 0.05), false, `${figure.title}, ${name}. ${about}`);
  for (const line of lines) {
    const [colour, dash] = look(line.label);
    const at = (values) => line.x.map((v, i) => [x(v), y(values[i])]);
    if (line.low.length) {
      const band = svg("path", { d: `${path([...at(line.high), ...at(line.low).reverse()])}Z`, class: "band" });
      band.style.fill = colour;
      plot.append(band);
    }
    const steps = at(line.y).flatMap(([a, b], i, all) => (i && !line.low.length ? [[a, all[i - 1][1]], [a, b]] : [[a, b]]));
    const curve = svg("path", { d: path(steps), "stroke-dasharray": dash });
    curve.style.stroke = colour;
    const title = svg("title");
    title.textContent = line.label;
    curve.append(title);
    plot.append(curve);
  }
  box.append(plot);
  return box;
}

// ---- gains and ranks

function drawGains({ title, grid }) {
  const reach = Math.max(10, ...grid.values.flat().map(Math.abs));
  const depth = (v) => Math.round((95 * (Math.abs(v) < 1 ? Math.abs(v) : 1 + Math.log10(Math.abs(v)))) / (1 + Math.log10(reach)));
  const lines = grid.rows.map((label, i) => {
    const cells = grid.values[i].map((value, j) => {
      const text = value === null ? "–" : `${value <= -0.05 ? "−" : "+"}${Math.abs(value).toFixed(1)}${grid.stars[i][j] ? "*" : ""}`;
      const cell = make("td", { textContent: text });
      if (value) cell.style.backgroundColor = `color-mix(in oklab, var(--${value < 0 ? "worse" : "better"}) ${depth(value)}%, var(--paper))`;
      if (value && depth(value) > 66) cell.style.color = "#fff";
      return cell;
    });
    return make("tr", {}, make("th", { scope: "row", textContent: label }), ...cells);
  });
  const heads = ["method", ...grid.columns].map((text, i) => make("th", { scope: "col", textContent: text, className: i ? "number" : "" }));
  const grown = make("table", { className: "gains" }, titled(`${title}, %`), make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines));
  return make("div", { className: "wide", tabIndex: 0 }, grown);
}

function drawRanking({ title, ranking }) {
  const { labels, ranks, critical } = ranking;
  const ends = ranks.map((rank) => [rank - critical / 2, rank + critical / 2]);
  const x = scale([ends[0][0], ends.at(-1)[1]], [4, 236]);
  const lines = labels.map((label, i) => {
    const bar = svg("line", { x1: x(ends[i][0]), x2: x(ends[i][1]), y1: 8, y2: 8, class: "error" });
    const dot = svg("circle", { cx: x(ranks[i]), cy: 8, r: 4 });
    bar.style.stroke = dot.style.fill = "var(--c0)";
    const plot = svg("svg", { viewBox: "0 0 240 16", "aria-hidden": true }, bar, dot);
    const rank = make("td", { className: "number", textContent: ranks[i].toFixed(1) });
    return make("tr", {}, make("th", { scope: "row", textContent: label }), rank, make("td", {}, plot));
  });
  const heads = ["method", "mean rank", "bars that don't overlap: a difference"].map((text) => make("th", { scope: "col", textContent: text }));
  return make("div", { className: "wide", tabIndex: 0 }, make("table", { className: "ranks" }, titled(title), make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines)));
}
