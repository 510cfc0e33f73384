// The tables: what is shown is a function of the state, and the state is the address after the #.

const make = (name, properties = {}, ...children) => {
  const node = Object.assign(document.createElement(name), properties);
  node.append(...children);
  return node;
};
const titled = (text) => make("caption", {}, make("span", { textContent: text }));
const byId = (id) => document.getElementById(id);
const { groups, legend } = JSON.parse(byId("data").textContent);
const form = byId("controls");
const FAMILIES = ["baseline", "method", "reference", "oracle", "chance"];
const FIRST = 60; // rows that are drawn at once; the others follow when the browser is idle
const START = { data: groups[0].id, part: "0", task: "", text: "", q: "", family: FAMILIES.join(), sort: "", dir: "", open: "", fig: "" };
let state = { ...START };
let drawing = 0;

const group = () => groups.find((g) => g.id === state.data);
const table = () => group().tables[Number(state.part)];
const listed = (name) => state[name].split(",").filter(Boolean);
const idOf = (row) => Object.values(row.keys)[0] || row.label;

function readAddress() {
  const given = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  state = { ...START };
  for (const name in START) if (name in given) state[name] = given[name];
  if (!group()) state.data = START.data;
  if (!table()) state.part = "0";
}

function writeAddress() {
  const changed = Object.entries(state).filter(([name, value]) => value !== START[name]);
  history.replaceState(null, "", changed.length ? `#${new URLSearchParams(changed)}` : location.pathname + location.search);
}

function fillControls() {
  const option = (value, text) => make("option", { value, textContent: text });
  form.data.replaceChildren(...groups.map((g) => option(g.id, g.title)));
  form.data.value = state.data;
  const whole = group().title;
  const names = group().tables.map((t, i) => (i ? t.title.replace(`${whole}: `, "") : "whole test set"));
  form.part.replaceChildren(...names.map((name, i) => option(String(i), name)));
  form.part.value = state.part;
  const tasks = [...new Set(table().headers.filter((h) => h.task).map((h) => h.task))];
  if (!tasks.includes(state.task)) state.task = "";
  form.task.replaceChildren(option("", "all"), ...tasks.map((t) => option(t, t)));
  form.task.value = state.task;
  form.text.value = state.text;
  for (const menu of [form.part, form.task]) menu.parentNode.hidden = menu.options.length < 2;
  if (form.q.value !== state.q) form.q.value = state.q;
  for (const box of form.querySelectorAll("[name=family]")) {
    box.checked = listed("family").includes(box.value);
    box.parentNode.hidden = !group().rows.some((row) => row.family === box.value);
  }
}

// ---- the table

function columns() {
  const { headers } = table();
  return headers.map((_, i) => i).filter((i) => !state.task || !headers[i].task || headers[i].task === state.task);
}

function rows() {
  const { rows: known } = group();
  const families = listed("family");
  const wanted = state.q.toLowerCase();
  const kept = table().cells.filter(([at]) => {
    const row = known[at];
    if (!families.includes(row.family) || !row.label.toLowerCase().includes(wanted)) return false;
    return !state.text || row.family === "oracle" || row.family === "chance" || row.text === (state.text === "with");
  });
  const column = table().headers.findIndex((h) => h.text === state.sort);
  if (column < 0) return kept;
  const sign = state.dir === "ascending" ? 1 : -1;
  const order = new Intl.Collator("en", { numeric: true });
  if (column === 0) return kept.sort((a, b) => sign * order.compare(known[a[0]].label, known[b[0]].label));
  return kept.sort(([, ...a], [, ...b]) => {
    const [one, other] = [a[column - 1][1], b[column - 1][1]];
    if (one === null || other === null) return (one === null) - (other === null); // what is undefined is always last
    return sign * (one - other);
  });
}

function sortBy(header) {
  const first = header.up ? "ascending" : "descending";
  const other = header.up ? "descending" : "ascending";
  state.dir = state.sort === header.text && state.dir === first ? other : first;
  state.sort = header.text;
  showSorting();
  drawRows();
  writeAddress();
}

function showSorting() {
  for (const th of document.querySelectorAll(".board > thead th")) {
    if (th.dataset.header === state.sort) th.setAttribute("aria-sort", state.dir);
    else th.removeAttribute("aria-sort");
  }
}

function drawTable() {
  const { title, caption, headers, notes } = table();
  byId("results").textContent = title;
  const heads = columns().map((i) => {
    const { text, task, measure, plain } = headers[i];
    const button = make("button", { type: "button", title: `Sort by ${text}` });
    if (task) button.append(task, make("small", { textContent: measure }));
    else button.append(text);
    button.addEventListener("click", () => sortBy(headers[i]));
    const th = make("th", { scope: "col", className: plain ? "number" : "" }, button);
    th.dataset.header = text;
    return th;
  });
  const body = make("tbody");
  const grid = make("table", { className: "board" }, titled(caption || title), make("thead", {}, make("tr", {}, ...heads)), body);
  const wide = make("div", { className: "wide", tabIndex: 0 }, grid);
  wide.setAttribute("role", "region");
  wide.setAttribute("aria-labelledby", "results");
  byId("table").replaceChildren(wide);
  byId("notes").replaceChildren(make("ul", {}, ...notes.map((text) => make("li", { textContent: text }))));
  showSorting();
  drawRows();
}

function drawRows() {
  const body = document.querySelector(".board > tbody");
  const found = rows();
  const shown = columns();
  const turn = ++drawing;
  const append = (from, to) => {
    const piece = document.createDocumentFragment();
    for (const cells of found.slice(from, to)) piece.append(...drawRow(cells, shown));
    body.append(piece);
  };
  const rest = (from) => {
    if (turn !== drawing || from >= found.length) return; // another drawing has begun, or all is drawn
    append(from, from + 4 * FIRST);
    setTimeout(rest, 0, from + 4 * FIRST);
  };
  body.replaceChildren();
  append(0, FIRST);
  setTimeout(rest, 0, FIRST);
  byId("status").textContent = `${found.length} of ${table().cells.length} rows`;
}

function drawRow([at, ...cells], shown) {
  const row = group().rows[at];
  const { headers } = table();
  const kind = { oracle: "yardstick", chance: "yardstick", reference: "reference" }[row.family] || "";
  const line = make("tr", { className: kind });
  const head = make("th", { scope: "row" });
  const open = listed("open").includes(idOf(row));
  if (row.command) {
    const button = make("button", { type: "button", textContent: row.label });
    button.setAttribute("aria-expanded", String(open));
    button.addEventListener("click", () => toggle(button, line, row, cells, shown));
    head.append(button);
  } else head.textContent = row.label;
  line.append(head);
  for (const i of shown.slice(1)) {
    const [text, , delta, best] = cells[i - 1];
    const cell = make("td", { className: headers[i].plain ? "number" : "" });
    cell.append(make("span", { textContent: text, className: best ? "best" : "" }));
    if (delta) cell.append(make("span", { textContent: delta, className: delta.includes("*") ? "delta star" : "delta" }));
    line.append(cell);
  }
  return open ? [line, drawDetail(row, cells, shown)] : [line];
}

function toggle(button, line, row, cells, shown) {
  const opened = button.getAttribute("aria-expanded") !== "true";
  button.setAttribute("aria-expanded", String(opened));
  if (opened) line.after(drawDetail(row, cells, shown));
  else line.nextSibling.remove();
  const others = listed("open").filter((id) => id !== idOf(row));
  state.open = (opened ? [...others, idOf(row)] : others).join();
  writeAddress();
}

function drawDetail(row, cells, shown) {
  const { headers } = table();
  const valued = shown.slice(1).filter((i) => Object.keys(cells[i - 1][4]).length);
  const head = ["seed", ...valued.map((i) => headers[i].text), "key of the record"].map((text) => make("th", { scope: "col", textContent: text }));
  const lines = Object.entries(row.keys).map(([seed, key]) => {
    const values = valued.map((i) => make("td", { className: "number", textContent: cells[i - 1][4][seed] ?? "–" }));
    return make("tr", {}, make("th", { scope: "row", textContent: seed }), ...values, make("td", {}, make("code", { textContent: key })));
  });
  const caption = titled(`${row.label}: value of each seed`);
  const seeds = make("div", { className: "wide", tabIndex: 0 }, make("table", {}, caption, make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines)));
  const pairs = Object.entries(row.config).map(([key, value]) =>
    make("div", {}, make("dt", { textContent: key }), make("dd", { textContent: value === null ? "none" : typeof value === "string" ? value : JSON.stringify(value) })));
  const settings = make("div", {}, make("h3", { textContent: "Configuration" }), make("dl", { className: "pairs" }, ...pairs));
  const command = make("div", {}, make("h3", { textContent: "Command that reproduces these runs" }), make("pre", { textContent: row.command, tabIndex: 0 }));
  const cell = make("td", { colSpan: shown.length }, make("div", {}, seeds, settings, command));
  return make("tr", { className: "detail" }, cell);
}

// ---- all together

function draw() {
  fillControls();
  drawTable();
  drawFigures();
}

function changed(event) {
  if (!event.target.name) return;
  const before = state.data;
  const families = [...form.querySelectorAll("[name=family]:checked")].map((box) => box.value);
  state = { ...state, data: form.data.value, part: form.part.value, task: form.task.value, text: form.text.value, q: form.q.value, family: families.join() };
  if (state.data !== before) state = { ...state, part: "0", task: "", open: "" };
  fillControls();
  if (["text", "q", "family"].includes(event.target.name)) drawRows();
  else drawTable();
  if (state.data !== before) drawFigures();
  writeAddress();
}

function setTheme(theme) {
  const dark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  if (theme) document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-pressed", String(dark));
}

function stored(value) {
  try { // a browser may forbid a file to keep anything
    if (value) localStorage.setItem("theme", value);
    return localStorage.getItem("theme");
  } catch {
    return value;
  }
}

form.querySelector("fieldset").append(...FAMILIES.map((name) =>
  make("label", {}, make("input", { type: "checkbox", name: "family", value: name }), name)));
byId("legend").replaceChildren(...legend.map((text) => make("li", { textContent: text })));
form.addEventListener("input", changed);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  state = { ...START, data: state.data, fig: state.fig };
  draw();
  writeAddress();
});
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("results").focus();
});
byId("theme").addEventListener("click", () => {
  const theme = byId("theme").getAttribute("aria-pressed") === "true" ? "light" : "dark";
  stored(theme);
  setTheme(theme);
});
addEventListener("hashchange", () => { readAddress(); draw(); });
setTheme(stored());
readAddress();
draw();
