// The page's data: typed arrays out of base64, pictures out of sprite sheets, colours.

const raw = JSON.parse(document.getElementById("data").textContent);
document.getElementById("data").textContent = "";

function bytes(text) {
  const binary = atob(text), out = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) out[i] = binary.charCodeAt(i);
  return out;
}
const typed = (text, Kind) => new Kind(bytes(text).buffer);

const frames = typed(raw.frame, Int32Array), times = typed(raw.time, Float32Array), N = frames.length;
const maps = raw.maps.map(one => {
  const whole = typed(one.points, Uint16Array), points = new Float32Array(whole.length);
  for (let i = 0; i < whole.length; i++) points[i] = whole[i] / 65535;
  const neighbours = typed(one.neighbours, Int32Array);
  return { name: one.name, points, neighbours, k: neighbours.length / N };
});
const videos = raw.videos, owner = new Int32Array(N);
let next = 0;
videos.forEach((video, number) => {
  video.first = next;
  owner.fill(number, next, next += video.frames);
});
const columns = raw.columns.map(one => ({ ...one, values: typed(one.values, one.kind === "category" ? Int32Array : Float32Array) }));
const MADE = columns.length; // the column of the labels that are given on the page
columns.push({ name: "label", kind: "category", names: [], values: new Int32Array(N).fill(-1) });
const labels = columns[MADE];

const seconds = value => {
  if (value < 60) return value.toFixed(1) + " s";
  const whole = Math.floor(value), pad = n => String(n).padStart(2, "0"), hours = Math.floor(whole / 3600);
  return (hours ? hours + ":" + pad(Math.floor(whole / 60) % 60) : Math.floor(whole / 60)) + ":" + pad(whole % 60);
};
const counted = (n, what) => n.toLocaleString("en") + " " + what + (n === 1 ? "" : "s");
const clipStart = video => video.start ?? 0;
const sinceStart = i => times[i] - clipStart(videos[owner[i]]);
const valueOf = (column, i) => {
  const value = column.values[i];
  if (column.kind === "category") return value < 0 ? "" : column.names[value];
  if (Number.isNaN(value)) return "";
  return column.name === "time" ? seconds(value) : String(+value.toPrecision(5));
};

// Pictures: sheets are decoded when first needed, and the least recently used ones are forgotten.
const SHEETS = 48, sheets = new Map();
const sprites = raw.sprites, perSheet = sprites.perRow * sprites.perRow;
const hasPicture = i => Boolean(videos[owner[i]].size);
function sheetOf(number) {
  let sheet = sheets.get(number);
  if (sheet) sheets.delete(number);
  else {
    const blob = new Blob([bytes(sprites.sheets[number])], { type: "image/jpeg" });
    sheet = { image: null };
    sheet.ready = createImageBitmap(blob).then(image => (sheet.image = image));
  }
  sheets.set(number, sheet);
  if (sheets.size > SHEETS) sheets.delete(sheets.keys().next().value);
  return sheet;
}
function drawFrom(image, context, i, x, y, width, height) {
  const place = i % perSheet, side = sprites.side, [w, h] = videos[owner[i]].size;
  context.drawImage(image, place % sprites.perRow * side, Math.floor(place / sprites.perRow) * side, w, h, x, y, width, height);
}
// Draws at once where the sheet is decoded (true), else calls `later` when it is.
function drawPicture(context, i, x, y, width, height, later) {
  if (!hasPicture(i)) return true;
  const sheet = sheetOf(Math.floor(i / perSheet));
  if (sheet.image) { drawFrom(sheet.image, context, i, x, y, width, height); return true; }
  if (later) sheet.ready.then(later);
  return false;
}
function paintPicture(canvas, i, longer) {
  const [w, h] = hasPicture(i) ? videos[owner[i]].size : [16, 9], scale = longer / Math.max(w, h);
  canvas.width = Math.max(1, Math.round(w * scale));
  canvas.height = Math.max(1, Math.round(h * scale));
  canvas.dataset.frame = i;
  const context = canvas.getContext("2d");
  const again = () => { if (canvas.dataset.frame === String(i)) drawPicture(context, i, 0, 0, canvas.width, canvas.height); };
  drawPicture(context, i, 0, 0, canvas.width, canvas.height, again);
}

// Colours told apart by people with colour vision deficiencies, after Paul Tol's schemes; then repeated.
const LIGHT = ["#4477AA", "#EE6677", "#228833", "#C9A227", "#33BBEE", "#AA3377", "#EE7733", "#009988", "#7B5FC7", "#882255", "#999933", "#CC6677", "#117733", "#6FA8DC", "#B8A04A", "#44AA99", "#C463B8", "#0077BB", "#CC3311", "#777777"];
const DARK = ["#6FA3DB", "#FF8492", "#4CBF62", "#E3C34F", "#66CCEE", "#D763A5", "#FF9957", "#2BC4B2", "#A48BF0", "#C9588B", "#C2C25A", "#E59AA6", "#4FAE76", "#9CC7F2", "#E3D08A", "#7AD6C6", "#E08CD6", "#4BA6E0", "#F0694A", "#A8A8A8"];
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [232, 208, 40]];
const DARKRAMP = [[124, 77, 180], [84, 118, 190], [45, 165, 158], [112, 212, 108], [253, 231, 60]];
const isDark = () => document.documentElement.dataset.theme === "dark";
const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));
const css = ([r, g, b]) => `rgb(${r}, ${g}, ${b})`;
const nothing = () => isDark() ? [92, 100, 114] : [168, 174, 184];
function ramp(share) {
  const stops = isDark() ? DARKRAMP : RAMP, at = Math.min(0.9999, Math.max(0, share)) * (stops.length - 1), low = Math.floor(at);
  return stops[low].map((value, c) => Math.round(value + (stops[low + 1][c] - value) * (at - low)));
}
const palette = code => rgb((isDark() ? DARK : LIGHT)[code % LIGHT.length]);
function rangeOf(column) {
  let low = Infinity, high = -Infinity;
  for (const value of column.values) if (value === value) { low = Math.min(low, value); high = Math.max(high, value); }
  return low <= high ? [low, high] : [0, 0];
}
// The colour of every point [N], as [r, g, b] in one number.
function coloursOf(column) {
  const out = new Uint32Array(N), pack = ([r, g, b]) => (255 << 24 | b << 16 | g << 8 | r) >>> 0, none = pack(nothing());
  if (column.kind === "category") {
    const known = column.names.map((_, code) => pack(palette(code)));
    for (let i = 0; i < N; i++) out[i] = column.values[i] < 0 ? none : known[column.values[i]];
  } else {
    const [low, high] = rangeOf(column), table = Array.from({ length: 256 }, (_, at) => pack(ramp(at / 255)));
    for (let i = 0; i < N; i++) {
      const value = column.values[i];
      out[i] = value === value ? table[high > low ? Math.round((value - low) / (high - low) * 255) : 128] : none;
    }
  }
  return out;
}
const cssOf = packed => `rgb(${packed & 255}, ${packed >> 8 & 255}, ${packed >> 16 & 255})`;
