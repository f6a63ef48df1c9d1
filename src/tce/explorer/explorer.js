// The page: what is shown, chosen, coloured and labelled; buttons, keys and files.

const element = id => document.getElementById(id);
const shown = new Uint8Array(N).fill(1), chosen = new Uint8Array(N);
let hiddenCount = 0, selection = [], column = columns[0], colours = new Uint32Array(N), current = -1, hovered = -1;
const off = new Set(); // codes of the column that the legend switched off

function make(tag, text = "", kind = "") {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  made.textContent = text;
  return made;
}

element("title").textContent = raw.title;
element("note").textContent = raw.note;
document.documentElement.dataset.theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";

const player = new Player(i => setCurrent(i, false));
const handlers = {
  hover: (i, event, from) => hover(i, event, from),
  pick: (i, from) => i >= 0 ? play(i, from) : select([]),
  select,
};
const scatters = maps.map(map => new Scatter(element("maps"), map, handlers));
const timelines = new Timelines(element("strips"), { hover, pick: i => play(i) });
let active = scatters[0]; // whose nearest frames are shown

// --- Colours and what is shown
for (const [number, one] of columns.entries()) {
  const option = make("option", one.name.slice(0, 80));
  option.value = number;
  option.disabled = number === MADE;
  element("colour").append(option);
}
element("colour").addEventListener("change", event => colourBy(Number(event.target.value)));
function colourBy(number) {
  column = columns[number];
  element("colour").value = number;
  off.clear();
  recolour();
  applyFilter();
}
function recolour() {
  colours = coloursOf(column);
  drawLegend();
  redraw();
}
function redraw() {
  scatters.forEach(one => one.draw());
  timelines.draw();
}
function drawLegend() {
  const legend = element("legend");
  legend.replaceChildren();
  element("legend-title").textContent = column.name[0].toUpperCase() + column.name.slice(1, 60);
  if (column.kind === "number") {
    const [low, high] = rangeOf(column), box = make("div", "", "scale"), bar = make("canvas"), ends = make("p");
    bar.width = 256;
    bar.height = 1;
    const context = bar.getContext("2d");
    for (let x = 0; x < 256; x++) { context.fillStyle = css(ramp(x / 255)); context.fillRect(x, 0, 1, 1); }
    const say = value => column.name === "time" ? seconds(value) : String(+value.toPrecision(4));
    ends.append(make("span", say(low)), make("span", say(high)));
    box.append(bar, ends);
    legend.append(box);
    return;
  }
  const counts = new Map();
  for (const code of column.values) counts.set(code, (counts.get(code) ?? 0) + 1);
  const codes = [...counts.keys()].sort((a, b) => (a < 0) - (b < 0) || a - b), MOST = 500;
  for (const code of codes.slice(0, MOST)) {
    const button = make("button"), text = make("span", code < 0 ? "none" : column.names[code], "text"), dot = make("canvas");
    dot.width = dot.height = 24;
    dot.style.width = dot.style.height = "12px";
    const context = dot.getContext("2d");
    context.fillStyle = css(code < 0 ? nothing() : palette(code));
    context.beginPath();
    context.arc(12, 12, 11, 0, 2 * Math.PI);
    context.fill();
    text.dir = "auto";
    button.type = "button";
    button.title = code < 0 ? "" : column.names[code];
    button.setAttribute("aria-pressed", String(!off.has(code)));
    button.append(dot, text, make("span", counts.get(code).toLocaleString("en"), "number"));
    button.addEventListener("click", () => {
      if (off.has(code)) off.delete(code);
      else if (off.size === 0 && codes.length > 2) codes.forEach(other => other !== code && off.add(other)); // the first click: this one alone
      else off.add(code);
      if (off.size >= codes.length) off.clear();
      const top = legend.scrollTop;
      drawLegend();
      legend.scrollTop = top;
      const again = legend.children[codes.indexOf(code)];
      if (again) again.focus({ preventScroll: true });
      applyFilter();
    });
    legend.append(button);
  }
  if (codes.length > MOST) legend.append(make("p", `and ${(codes.length - MOST).toLocaleString("en")} more`, "hint"));
  if (column.names.length > LIGHT.length) legend.append(make("p", `Colours repeat after ${LIGHT.length}.`, "hint"));
}
element("show-all").addEventListener("click", () => {
  off.clear();
  element("search").value = "";
  drawLegend();
  applyFilter();
});
element("search").addEventListener("input", () => applyFilter());
const lowered = text => text.normalize("NFKC").toLowerCase();
function applyFilter() {
  const words = lowered(element("search").value).split(/\s+/).filter(Boolean), texts = columns.filter(one => one.kind === "category" && one.name !== "cluster");
  const hits = texts.map(one => one.names.map(lowered));
  hiddenCount = 0;
  for (let i = 0; i < N; i++) {
    let fits = !(column.kind === "category" && off.has(column.values[i]));
    if (fits && words.length) {
      fits = words.every(word => texts.some((one, n) => one.values[i] >= 0 && hits[n][one.values[i]].includes(word)));
    }
    shown[i] = fits ? 1 : 0;
    hiddenCount += fits ? 0 : 1;
  }
  element("show-all").hidden = !hiddenCount;
  element("show-all").textContent = `Show all (${(N - hiddenCount).toLocaleString("en")} of ${N.toLocaleString("en")})`;
  timelines.filter();
  redraw();
}

// --- Frames under the pointer, and the chosen one
const tip = element("tip"), tipPicture = tip.querySelector("canvas");
function hover(i, event, from) {
  if (i !== hovered) {
    hovered = i;
    document.body.dataset.hover = i;
    for (const one of scatters) { one.hover = i; one.drawOver(); }
    timelines.hover = i;
    timelines.draw();
    if (i >= 0) {
      tipPicture.hidden = !hasPicture(i);
      if (hasPicture(i)) paintPicture(tipPicture, i, sprites.side);
      const [w, h] = hasPicture(i) ? videos[owner[i]].size : [1, 1];
      tipPicture.style.width = Math.round(144 * w / Math.max(w, h)) + "px";
      tip.querySelector("b").textContent = videos[owner[i]].name.slice(0, 300);
      const value = column.name === "video" || column.name === "time" ? "" : valueOf(column, i);
      tip.querySelector("span").textContent = seconds(sinceStart(i)) + (value ? " · " + value.slice(0, 120) : "");
    }
  }
  tip.hidden = i < 0;
  if (i < 0) return;
  const box = tip.getBoundingClientRect(), x = event.clientX + 16, y = event.clientY + 16;
  tip.style.left = Math.max(4, x + box.width > innerWidth - 4 ? event.clientX - box.width - 14 : x) + "px";
  tip.style.top = Math.max(4, y + box.height > innerHeight - 4 ? event.clientY - box.height - 14 : y) + "px";
}
function play(i, from) {
  if (from) active = from;
  setCurrent(i, true);
  player.show(i, true);
  element("frame").scrollIntoView({ block: "nearest" });
}
function pictureButton(i, under) {
  const button = make("button"), canvas = make("canvas");
  const name = `${videos[owner[i]].name.slice(0, 200)}, ${seconds(sinceStart(i))}`;
  button.type = "button";
  button.title = name;
  button.setAttribute("aria-label", name);
  button.dataset.frame = i;
  if (hasPicture(i)) { paintPicture(canvas, i, sprites.side); button.append(canvas); }
  const text = make("span", under, "under");
  text.dir = "auto";
  button.append(text);
  button.addEventListener("click", () => play(i));
  button.addEventListener("pointerenter", event => hover(i, event));
  button.addEventListener("pointerleave", event => hover(-1, event));
  button.addEventListener("focus", () => { for (const one of scatters) { one.hover = i; one.drawOver(); } });
  return button;
}
const shortName = name => name.slice(Math.max(name.lastIndexOf("/"), name.lastIndexOf("\\")) + 1).slice(0, 80);
const caption = i => videos.length > 1 ? shortName(videos[owner[i]].name) : seconds(sinceStart(i));
// `settled`: the frame was chosen, rather than passed while playing.
function setCurrent(i, settled) {
  const changed = current < 0 || owner[i] !== owner[current];
  current = i;
  document.body.dataset.current = i;
  const video = videos[owner[i]];
  for (const one of scatters) {
    one.current = i;
    one.path = [video.first, video.first + video.frames];
    if (settled) one.reveal(i);
    one.drawOver();
  }
  timelines.current = i;
  if (changed || settled) timelines.reveal(owner[i]);
  timelines.draw();
  element("empty").hidden = true;
  element("detail").hidden = false;
  element("clock").textContent = seconds(sinceStart(i));
  if (changed || settled) element("name").textContent = video.name;
  showFacts(i);
  if (!settled) return;
  showNearest(i);
  element("live").textContent = `${video.name.slice(0, 200)}, ${seconds(sinceStart(i))}`;
}
function showFacts(i) {
  const facts = element("facts");
  facts.replaceChildren();
  const rows = [["frame", String(frames[i])]];
  for (const one of columns) if (one.name !== "video" && one.name !== "time") rows.push([one.name, valueOf(one, i)]);
  for (const [name, value] of rows) {
    if (!value) continue;
    const term = make("dt", name.slice(0, 40)), text = make("dd", value);
    text.dir = "auto";
    facts.append(term, text);
  }
}
function showNearest(i) {
  const near = element("near"), { neighbours, k, name } = active.map;
  near.replaceChildren();
  for (let n = 0; n < k; n++) {
    const other = neighbours[i * k + n];
    if (other >= 0) near.append(pictureButton(other, caption(other)));
  }
  element("near-title").hidden = !near.childElementCount;
  element("near-title").textContent = (videos.length > 1 ? "Nearest frames of other videos" : "Nearest frames") + (maps.length > 1 ? ` · ${name.slice(0, 60)}` : "");
}

// --- Selection and labels
const GRID = 200;
function select(list) {
  chosen.fill(0);
  for (const i of list) chosen[i] = 1;
  selection = list;
  document.body.dataset.selected = list.length;
  element("selection").hidden = !list.length;
  element("count").textContent = counted(list.length, "frame") + " selected";
  const grid = element("chosen");
  grid.replaceChildren();
  const step = Math.max(1, list.length / GRID);
  let count = 0;
  for (let n = 0; n < list.length; n += step, count++) {
    const i = list[Math.floor(n)];
    grid.append(pictureButton(i, caption(i)));
  }
  element("more").textContent = count < list.length ? `${count} of them are shown, spread evenly.` : "";
  if (list.length) {
    element("live").textContent = element("count").textContent;
    element("selection").scrollIntoView({ block: "nearest" });
  }
  redraw();
}
element("clear").addEventListener("click", () => select([]));
element("label-form").addEventListener("submit", event => {
  event.preventDefault();
  const name = element("label").value.trim();
  if (!name || !selection.length) return;
  let code = labels.names.indexOf(name);
  if (code < 0) {
    code = labels.names.push(name) - 1;
    const option = make("option");
    option.value = name;
    element("known").append(option);
  }
  for (const i of selection) labels.values[i] = code;
  element("colour").options[MADE].disabled = false;
  element("labels").hidden = false;
  const count = labels.values.reduce((sum, value) => sum + (value >= 0), 0);
  element("labelled").textContent = counted(count, "frame") + " labelled";
  element("live").textContent = `${counted(selection.length, "frame")} labelled ${name}`;
  element("label").value = "";
  if (current >= 0) showFacts(current);
  colourBy(MADE);
});

// --- Files
// A text that a spreadsheet would run as a formula gets an apostrophe, as tce's own tables do.
function cell(value) {
  let text = String(value);
  if (typeof value === "string" && /^'*[=+\-@\t\r]/.test(text) && !(text.trim() !== "" && Number.isFinite(Number(text)))) text = "'" + text;
  return /[",\n\r]|^\s|\s$/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}
function save(name, rows) {
  const link = make("a"), address = URL.createObjectURL(new Blob([rows.map(row => row.map(cell).join(",") + "\n").join("")], { type: "text/csv;charset=utf-8" }));
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}
const round = value => Math.round(value * 1000) / 1000;
const nextTime = i => { // when the next sampled frame is shown; "" at the clip's end
  const video = videos[owner[i]];
  return i + 1 < video.first + video.frames ? round(times[i + 1]) : video.end ?? "";
};
element("save-selection").addEventListener("click", () => {
  const named = labels.names.length ? labels : columns.find(one => one.name === "class") ?? labels;
  save("selection.csv", [["video", "start", "end", "frame", "label"], ...selection.map(i => [videos[owner[i]].path, round(times[i]), nextTime(i), frames[i], valueOf(named, i)])]);
});
// Which of the labelled videos test a classifier: as the lists have it, else every fourth group (or video, or
// run of frames, where there is one of those only), and of two or three the last one.
function splitsOf(owners) {
  const given = columns.find(one => one.name === "split");
  if (given) return owners.map(number => valueOf(given, videos[number].first));
  const group = columns.find(one => one.name === "group");
  const ways = [owners.map((_, n) => n), owners, owners.map(number => group ? valueOf(group, videos[number].first) || number : number)];
  const units = ways.reverse().find(way => new Set(way).size > 1) ?? owners, names = [...new Set(units)];
  const isTest = unit => names.length < 4 ? names.length > 1 && unit === names.at(-1) : names.indexOf(unit) % 4 === 3;
  return units.map(unit => isTest(unit) ? "test" : "train");
}
// A row for each run of frames with one label; a clip that has it throughout needs no times.
function labelRows() {
  const rows = [], owners = [];
  for (const [number, video] of videos.entries()) {
    const stop = video.first + video.frames;
    for (let i = video.first; i < stop;) {
      const code = labels.values[i];
      let end = i + 1;
      while (end < stop && labels.values[end] === code) end++;
      if (code >= 0) {
        rows.push([video.path, labels.names[code], i === video.first ? video.start ?? "" : round(times[i]), end === stop ? video.end ?? "" : round(times[end])]);
        owners.push(number);
      }
      i = end;
    }
  }
  const splits = splitsOf(owners);
  return rows.map((row, n) => [...row, splits[n]]);
}
element("save-labels").addEventListener("click", () => save("labels.csv", [["path", "label", "start", "end", "split"], ...labelRows()]));

// --- Buttons and keys
function toggle(id, set) {
  const button = element(id), on = button.getAttribute("aria-pressed") !== "true";
  button.setAttribute("aria-pressed", String(on));
  set(on);
}
const toggleLasso = () => toggle("lasso", on => scatters.forEach(one => { one.lassoing = on; one.over.classList.toggle("lasso", on); }));
const togglePictures = () => toggle("pictures", on => scatters.forEach(one => { one.withPictures = on; one.draw(); }));
element("lasso").addEventListener("click", toggleLasso);
element("pictures").addEventListener("click", togglePictures);
element("pictures").hidden = !sprites.sheets.length;
element("fit").addEventListener("click", () => scatters.forEach(one => one.fit()));
element("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  recolour();
});
element("narrower").addEventListener("click", () => timelines.zoomBy(1 / 1.6));
element("wider").addEventListener("click", () => timelines.zoomBy(1.6));

function step(by) {
  if (current < 0) return go(0);
  const { first, frames: count } = videos[owner[current]];
  go(Math.max(first, Math.min(first + count - 1, current + by)));
}
function stepVideo(by) {
  if (current < 0) return go(0);
  const at = timelines.rows.indexOf(owner[current]), number = timelines.rows[Math.max(0, Math.min(timelines.rows.length - 1, at + by))];
  if (number !== undefined) go(videos[number].first);
}
function go(i) {
  if (!N) return;
  setCurrent(i, true);
  player.show(i, false);
}
const zoomAll = factor => scatters.forEach(one => one.zoomBy(factor));
const KEYS = {
  ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => stepVideo(1), ArrowUp: () => stepVideo(-1),
  Enter: () => current >= 0 && play(current), " ": () => player.toggle(), "+": () => zoomAll(1.4), "=": () => zoomAll(1.4), "-": () => zoomAll(1 / 1.4),
  0: () => scatters.forEach(one => one.fit()), l: toggleLasso, p: () => element("pictures").hidden || togglePictures(),
  "/": () => element("search").focus(), Escape: () => select([]),
};
document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest("input, select, textarea, video"), pressing = event.target.closest("button");
  if (event.key === "Escape" && typing) return event.target.blur();
  if (typing || pressing && (event.key === "Enter" || event.key === " ")) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) { event.preventDefault(); act(); }
});

colourBy(0);
document.body.dataset.ready = N;
// For scripts that drive the page.
window.explorer = { scatters, timelines, player, videos, columns, state: () => ({ current, hovered, selection, hiddenCount }) };
