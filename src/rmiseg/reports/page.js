"use strict";
// Everything that names something in the data is set as text, never as HTML.

const report = JSON.parse(document.getElementById("data").textContent);
const { classes, runs, images } = report;
const SVG = "http://www.w3.org/2000/svg";
const RUN_COLORS = ["#0b7dc4", "#e0701a", "#189a6c", "#c5659b", "#b08a00", "#7d6bd6", "#c0392b", "#5f7a8a"];

const find = (id) => document.getElementById(id);
const runColor = (index) => RUN_COLORS[index % RUN_COLORS.length];
const percent = (share, digits = 1) => (share === null ? "–" : (100 * share).toFixed(digits));
const difference = (a, b) => (a === null || b === null ? null : b - a);
const isSmall = (share) => Math.abs(share) < 5e-4; // 0.0 when printed
const signed = (share) =>
  share === null ? "–" : (isSmall(share) ? "" : share > 0 ? "+" : "−") + Math.abs(100 * share).toFixed(1);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  return fill(element, attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "style") Object.assign(element.style, value);
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

function swatch(color, name = "swatch") {
  return make("span", { class: name, style: { background: color }, "aria-hidden": "true" });
}

function showTip(event, ...lines) {
  const tip = find("tip");
  tip.replaceChildren(...lines.map((line) => (line instanceof Node ? line : make("div", {}, line))));
  tip.hidden = false;
  const { width, height } = tip.getBoundingClientRect();
  const x = event.clientX + 14 + width > innerWidth ? event.clientX - width - 14 : event.clientX + 14;
  tip.style.left = `${Math.max(4, x)}px`;
  tip.style.top = `${Math.min(innerHeight - height - 4, event.clientY + 14)}px`;
}

function hideTip() {
  find("tip").hidden = true;
}

// Light and dark: as the system says, until somebody chooses.

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function remembered(value) {
  try {
    if (value !== undefined) localStorage.setItem("rmiseg-theme", value);
    return localStorage.getItem("rmiseg-theme");
  } catch {
    return null; // a file that was opened in a browser that keeps nothing for files
  }
}

function setUpTheme() {
  const before = remembered();
  if (before === "light" || before === "dark") document.documentElement.dataset.theme = before;
  find("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    remembered(document.documentElement.dataset.theme);
  });
}

// Scores of the runs.

const OWN_SCORES = {
  mean_iou: "mIoU %",
  boundary_mean_iou: "boundary mIoU %",
  mean_accuracy: "mean accuracy %",
  pixel_accuracy: "pixel accuracy %",
  frequency_weighted_iou: "frequency-weighted IoU %",
};
const further = runs.flatMap((run) => run.further); // scores of metrics that plugins registered
const SCORES = { ...OWN_SCORES, ...Object.fromEntries(further.map((key) => [key, `${key.replaceAll("_", " ")} %`])) };

function showSummary() {
  find("about").textContent =
    `${report.data.name}, split ${report.data.split}: ${report.data.images} images, ${classes.length} classes, ` +
    `${runs.length} ${runs.length === 1 ? "run" : "runs"}`;
  const heads = [["Run", "text"], ...Object.values(SCORES).map((title) => [title, ""])];
  heads.push(["steps", ""], ["loss", "text"], ["model", "text"]);
  const head = make("tr", {}, ...heads.map(([title, kind]) => make("th", { scope: "col", class: kind }, title)));
  const best = Object.fromEntries(
    Object.keys(SCORES).map((key) => [key, Math.max(...runs.map((run) => run.scores[key] ?? -1))]),
  );
  const rows = runs.map((run, index) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, swatch(runColor(index), "dash"), run.name),
      ...Object.keys(SCORES).map((key) => {
        const isBest = runs.length > 1 && run.scores[key] === best[key];
        const note = key.endsWith("mean_iou") && run.scope ? [make("small", {}, run.scope)] : [];
        return make("td", isBest ? { class: "best" } : {}, percent(run.scores[key] ?? null, 2), ...note);
      }),
      make("td", {}, run.steps.toLocaleString("en")),
      make("td", { class: "text" }, run.loss ?? "–"),
      make("td", { class: "text" }, run.model),
    ),
  );
  find("summary").append(make("thead", {}, head), make("tbody", {}, ...rows));
}

// Training curves.

const CURVES = [
  ["val/mIoU", "Validation mIoU", true],
  ["val/pixel_accuracy", "Validation pixel accuracy", true],
  ["val/boundary_mIoU", "Validation boundary mIoU", true],
  ["train/mIoU", "Training mIoU, of the epoch so far", true],
  ["val/loss", "Validation loss", false],
  ["train/loss", "Training loss", false],
  ["train/pixel", "Pixel loss", false],
  ["train/rmi", "RMI above its floor", false],
  ["train/learning_rate", "Learning rate", false],
];

function showCurves() {
  const shown = CURVES.filter(([tag]) => runs.some((run) => run.curves[tag]));
  if (!shown.length) return find("curves-section").remove();
  find("curves-legend").append(
    ...runs.map((run, index) => make("span", {}, swatch(runColor(index), "dash"), run.name)),
  );
  for (const [tag, title, isShare] of shown) {
    const lines = runs
      .map((run, index) => ({ name: run.name, color: runColor(index), curve: run.curves[tag] }))
      .filter((line) => line.curve)
      .map(({ name, color, curve }) => ({ name, color, steps: curve[0], values: curve[1] }));
    const svg = draw("svg", { role: "img" });
    const last = lines.map((line) => `${line.name} ${number(line.values.at(-1), isShare)}`).join(", ");
    svg.setAttribute("aria-label", `${title} over training steps; at the end: ${last}`);
    find("curves").append(make("figure", {}, make("figcaption", {}, title + (isShare ? ", %" : "")), svg));
    new ResizeObserver(() => plot(svg, lines, isShare)).observe(svg);
  }
}

function number(value, isShare) {
  if (value === null) return "–";
  if (isShare) return (100 * value).toFixed(1);
  return Math.abs(value) >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}

function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough);
  const result = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) result.push(k * step);
  return result;
}

function plot(svg, lines, isShare) {
  const { width, height } = svg.getBoundingClientRect();
  if (!width) return;
  const [left, right, top, bottom] = [44, 10, 8, 22];
  const steps = lines.flatMap((line) => line.steps);
  const values = lines.flatMap((line) => line.values).filter((value) => value !== null);
  if (!values.length) return;
  let [x0, x1] = [Math.min(...steps), Math.max(...steps)];
  if (x0 === x1) [x0, x1] = [x0 - 1, x1 + 1];
  let [y0, y1] = [Math.min(...values), Math.max(...values)];
  const least = isShare ? (0.01 - (y1 - y0)) / 2 : 0; // an axis of a point at least, whose labels differ
  const margin = Math.max((y1 - y0) * 0.06, least) || Math.abs(y1) * 0.1 || 1;
  [y0, y1] = [isShare ? Math.max(0, y0 - margin) : y0 - margin, isShare ? Math.min(1, y1 + margin) : y1 + margin];
  const x = (step) => left + ((step - x0) / (x1 - x0)) * (width - left - right);
  const y = (value) => height - bottom - ((value - y0) / (y1 - y0)) * (height - top - bottom);
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.replaceChildren();
  for (const tick of ticks(y0, y1, 4)) {
    svg.append(
      draw("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }),
      draw("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, number(tick, isShare).replace(/\.0$/, "")),
    );
  }
  for (const tick of ticks(x0, x1, Math.max(2, width / 90)).filter(Number.isInteger)) {
    svg.append(draw("text", { x: x(tick), y: height - 6, "text-anchor": "middle" }, tick.toLocaleString("en")));
  }
  for (const line of lines) {
    const points = line.steps.map((step, i) => [step, line.values[i]]).filter(([, value]) => value !== null);
    const path = points.map(([step, value], i) => `${i ? "L" : "M"}${x(step).toFixed(1)},${y(value).toFixed(1)}`);
    svg.append(draw("path", { class: "curve", d: path.join(""), stroke: line.color }));
    if (points.length < 30) {
      for (const [step, value] of points) {
        svg.append(draw("circle", { cx: x(step), cy: y(value), r: 2.6, fill: line.color }));
      }
    }
  }
  const cursor = draw("line", { class: "cursor", y1: top, y2: height - bottom, visibility: "hidden" });
  svg.append(cursor);
  svg.onpointermove = (event) => {
    const wanted = x0 + ((event.clientX - svg.getBoundingClientRect().left - left) / (width - left - right)) * (x1 - x0);
    const nearest = steps.reduce((a, b) => (Math.abs(b - wanted) < Math.abs(a - wanted) ? b : a));
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(nearest));
    cursor.setAttribute("visibility", "visible");
    const rows = lines
      .filter((line) => line.steps.includes(nearest))
      .map((line) =>
        make("div", {}, swatch(line.color, "dash"), `${line.name}: ${number(line.values[line.steps.indexOf(nearest)], isShare)}`),
      );
    showTip(event, `step ${nearest.toLocaleString("en")}`, ...rows);
  };
  svg.onpointerleave = () => {
    cursor.setAttribute("visibility", "hidden");
    hideTip();
  };
}

// Scores of the classes, in a table that can be sorted.

function showClasses() {
  const columns = [
    { title: "Class", value: (c) => classes[c].name.toLowerCase() },
    { title: "pixels %", value: (c) => classes[c].share },
    ...runs.map((run, index) => ({ title: run.name, run: index, value: (c) => run.iou[c] })),
  ];
  if (runs.length === 2) columns.push({ title: "difference", value: (c) => difference(runs[0].iou[c], runs[1].iou[c]) });
  const body = make("tbody");
  const heads = columns.map((column) => {
    const button = make("button", { type: "button" }, column.title);
    const head = make("th", { scope: "col", class: column.run === undefined ? "" : "text" }, button);
    button.addEventListener("click", () => sortBy(column, head));
    return head;
  });
  const rows = classes.map((entry, c) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, swatch(entry.color), entry.name),
      make("td", {}, percent(entry.share, 2)),
      ...runs.map((run, index) => bar(run.iou[c], runColor(index))),
      ...(runs.length === 2 ? [change(difference(runs[0].iou[c], runs[1].iou[c]))] : []),
    ),
  );

  function sortBy(column, head) {
    const first = column.title === "Class" ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? (first === "ascending" ? "descending" : "ascending") : first;
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const sorted = classes.map((_, c) => c).sort((a, b) => compare(column.value(a), column.value(b), sign) || a - b);
    body.replaceChildren(...sorted.map((c) => rows[c]));
  }

  body.append(...rows);
  const means = runs.map((run) => run.scores.mean_iou);
  const scopes = new Set(runs.map((run) => run.scope));
  const foot = make(
    "tr",
    {},
    make("th", { scope: "row" }, "mean", ...(scopes.size === 1 ? scopes : [])),
    make("td", {}),
    ...means.map((mean, index) => bar(mean, runColor(index))),
    ...(runs.length === 2 ? [change(difference(...means))] : []),
  );
  find("classes").append(make("thead", {}, make("tr", {}, ...heads)), body, make("tfoot", {}, foot));
}

function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // what has no value comes last, in either order
  return a < b ? -sign : a > b ? sign : 0;
}

function bar(share, color) {
  const filled = make("b", { style: { width: `${100 * (share ?? 0)}%`, background: color } });
  return make("td", { class: "bar" }, make("div", {}, make("span", {}, percent(share)), make("i", { "aria-hidden": "true" }, filled)));
}

function change(share) {
  return make("td", { class: share === null || isSmall(share) ? "quiet" : share > 0 ? "up" : "down" }, signed(share));
}

// Confusion matrices.

const MOST_SHOWN = 40; // classes of a matrix that can still be read

function showConfusions() {
  const buttons = runs.map((run, index) =>
    make("button", { type: "button", "aria-pressed": "false", onclick: () => choose(index) }, swatch(runColor(index), "dash"), run.name),
  );
  function choose(index) {
    buttons.forEach((button, other) => button.setAttribute("aria-pressed", String(other === index)));
    drawMatrix(runs[index].confusion);
    listConfusions(runs[index].confusion);
  }
  find("confusion-runs").append(...buttons);
  choose(0);
}

function drawMatrix(confusion) {
  const totals = confusion.map((row) => row.reduce((a, b) => a + b, 0));
  const wrong = totals.map((total, c) => total - confusion[c][c]);
  const shown = classes
    .map((_, c) => c)
    .sort((a, b) => wrong[b] - wrong[a])
    .slice(0, MOST_SHOWN)
    .sort((a, b) => a - b);
  const size = Math.max(15, Math.min(46, Math.floor(560 / shown.length)));
  const name = (c) => (classes[c].name.length > 16 ? `${classes[c].name.slice(0, 15)}…` : classes[c].name);
  const longest = Math.max(...shown.map((c) => name(c).length));
  const [left, top] = [longest * 7 + 16, longest * 5 + 22];
  const extent = shown.length * size;
  const svg = draw("svg", {
    width: left + extent + longest * 4, height: top + extent + 8, role: "img",
    "aria-label": `Confusion matrix of ${shown.length} classes; the list of the most frequent confusions says it in words`,
  });
  shown.forEach((trueClass, i) => {
    const middle = top + i * size + size / 2;
    svg.append(draw("text", { x: left - 8, y: middle + 4, "text-anchor": "end" }, name(trueClass)));
    const x = left + i * size + size / 2;
    svg.append(draw("text", { x: 0, y: 0, transform: `translate(${x + 4},${top - 8}) rotate(-45)` }, name(trueClass)));
    shown.forEach((predicted, j) => {
      const share = totals[trueClass] ? confusion[trueClass][predicted] / totals[trueClass] : 0;
      const strength = 100 * Math.sqrt(share);
      const cell = draw("rect", {
        x: left + j * size, y: top + i * size, width: size, height: size,
        style: { fill: `color-mix(in oklab, var(--heat) ${strength.toFixed(1)}%, var(--panel))` },
      });
      const tell = () => {
        find("cell").textContent =
          `${percent(totals[trueClass] ? share : null, 2)} % of the pixels of ${classes[trueClass].name} ` +
          `${trueClass === predicted ? "were found" : `were predicted as ${classes[predicted].name}`} ` +
          `(${confusion[trueClass][predicted].toLocaleString("en")} pixels)`;
      };
      cell.addEventListener("pointerenter", tell);
      cell.addEventListener("click", tell);
      svg.append(cell);
      if (size >= 30 && share >= 0.005) {
        const at = { class: `inside ${strength > 60 ? "strong" : ""}`, x: left + (j + 0.5) * size, y: middle + 4, "text-anchor": "middle" };
        svg.append(draw("text", at, (100 * share).toFixed(0)));
      }
    });
  });
  find("matrix").replaceChildren(svg);
  const leftOut = classes.length - shown.length;
  find("cell").textContent = leftOut
    ? `The ${shown.length} classes with the most wrong pixels; ${leftOut} others are left out.`
    : "Point at a cell to read it. Numbers are percent of the true class.";
}

function listConfusions(confusion) {
  const total = confusion.flat().reduce((a, b) => a + b, 0);
  const pairs = confusion.flatMap((row, a) => row.map((count, b) => ({ a, b, count }))).filter(({ a, b, count }) => a !== b && count);
  pairs.sort((p, q) => q.count - p.count);
  const items = pairs.slice(0, 10).map(({ a, b, count }) =>
    make(
      "li",
      {},
      swatch(classes[a].color), `${classes[a].name} as `, swatch(classes[b].color), `${classes[b].name} `,
      make("span", { class: "quiet" }, `${percent(count / total, 2)} % of all pixels`),
    ),
  );
  find("frequent").replaceChildren(...(items.length ? items : [make("li", {}, "none")]));
}

// Pictures.

const IGNORED = classes.length; // what the maps hold where the truth does not count
const visible = classes.map(() => true);
const layers = [
  { name: "Image" },
  { name: "Truth", map: (image) => image.truth },
  ...runs.map((run, index) => ({ name: run.name, map: (image) => image.predictions[index] })),
  ...runs.map((run, index) => ({ name: `Errors of ${run.name}`, map: (image) => image.predictions[index], errors: true })),
];
const colors = classes.map(({ color }) => [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16)));

const mean = (scores) => {
  const known = scores.filter((score) => score !== null);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : null;
};
const spread = (scores) => {
  const known = scores.filter((score) => score !== null);
  return known.length > 1 ? Math.max(...known) - Math.min(...known) : null;
};
const ORDERS = {
  "worst first": (a, b) => compare(mean(a.scores), mean(b.scores), 1),
  "best first": (a, b) => compare(mean(a.scores), mean(b.scores), -1),
  ...(runs.length > 1 ? { "most changed first": (a, b) => compare(spread(a.scores), spread(b.scores), -1) } : {}),
  "by name": (a, b) => (a.name < b.name ? -1 : 1),
};

function showGallery() {
  find("selection").textContent =
    (images.length < report.data.images
      ? `${images.length} of ${report.data.images} images: the worst and the best${runs.length > 1 ? ", and those on which the runs differ most" : ""}. `
      : "") +
    "The percentages are the mean IoU of the classes in each image. Drag the handle, or use the arrow keys, to compare the two sides.";
  const cards = images.map(card);
  const selects = { left: runs.length > 1 ? 2 : 1, right: runs.length > 1 ? 3 : 2 };
  for (const [side, initial] of Object.entries(selects)) {
    layers.forEach((layer, index) => find(side).append(make("option", { value: index }, layer.name)));
    find(side).value = initial;
    find(side).addEventListener("change", () => cards.forEach((each) => each.repaint()));
  }
  for (const order of Object.keys(ORDERS)) find("order").append(make("option", { value: order }, order));
  const arrange = () => {
    const sorted = [...cards].sort((a, b) => ORDERS[find("order").value](a.image, b.image));
    find("gallery").replaceChildren(...sorted.map((each) => each.element));
  };
  find("order").addEventListener("change", arrange);
  const fade = () => find("gallery").style.setProperty("--opacity", find("opacity").value / 100);
  find("opacity").addEventListener("input", fade);
  fade();
  showLegend(() => cards.forEach((each) => each.repaint()));
  arrange();
}

function showLegend(repaint) {
  const buttons = classes.map((entry, c) =>
    make("button", {
      type: "button", "aria-pressed": "true",
      onclick: () => { visible[c] = !visible[c]; update(); },
    }, swatch(entry.color), entry.name),
  );
  const all = make("button", {
    type: "button", class: "all",
    onclick: () => { visible.fill(!visible.every(Boolean)); update(); },
  });
  function update() {
    buttons.forEach((button, c) => button.setAttribute("aria-pressed", String(visible[c])));
    all.textContent = visible.every(Boolean) ? "none" : "all";
    repaint();
  }
  find("legend").append(all, ...buttons);
  update();
}

function card(image) {
  const canvases = ["left", "right"].map((side) =>
    make("canvas", { width: image.width, height: image.height, "data-side": side, style: { opacity: "var(--opacity)" } }),
  );
  const labels = ["on-left", "on-right"].map((side) => make("span", { class: `side ${side}` }));
  const divider = make("span", { class: "divider" });
  const slider = make("input", { type: "range", min: 0, max: 100, step: 0.5, value: 50, "aria-label": `Compare the two sides of ${image.name}` });
  const slide = () => {
    canvases[0].style.clipPath = `inset(0 ${100 - slider.value}% 0 0)`;
    canvases[1].style.clipPath = `inset(0 0 0 ${slider.value}%)`;
    divider.style.left = `${slider.value}%`;
  };
  slider.addEventListener("input", slide);
  slide();
  const photo = make("img", { src: image.photo, alt: "", loading: "lazy", decoding: "async" });
  const stage = make("div", { class: "stage", style: { aspectRatio: `${image.width} / ${image.height}` } }, photo, ...canvases, slider, divider, ...labels);
  const scores = image.scores.map((score, index) => make("span", {}, swatch(runColor(index), "dash"), `${percent(score)} %`));
  const element = make("figure", { class: "card" }, stage, make("figcaption", {}, make("strong", {}, image.name), make("div", {}, ...scores)));

  let isNear = false;
  async function paint() {
    if (!isNear) return;
    for (const [index, side] of ["left", "right"].entries()) {
      const layer = layers[find(side).value];
      labels[index].textContent = layer.name;
      await paintLayer(canvases[index], image, layer, () => layers[find(side).value] === layer);
    }
  }
  new IntersectionObserver(([entry]) => {
    const appeared = entry.isIntersecting && !isNear;
    isNear = entry.isIntersecting;
    if (appeared) paint();
  }, { rootMargin: "300px" }).observe(element);
  return { element, image, repaint: paint };
}

// Reading a map takes time, in which another layer may be chosen.
async function paintLayer(canvas, image, layer, isWanted) {
  const context = canvas.getContext("2d");
  if (!layer.map) return context.clearRect(0, 0, canvas.width, canvas.height);
  const [ids, truth] = await Promise.all([readMap(image, layer.map(image)), readMap(image, image.truth)]);
  if (!isWanted()) return;
  const picture = context.createImageData(image.width, image.height);
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i];
    if (id === IGNORED || !visible[id]) continue;
    if (layer.errors && (id === truth[i] || truth[i] === IGNORED)) continue;
    const [r, g, b] = colors[id];
    picture.data[4 * i] = r;
    picture.data[4 * i + 1] = g;
    picture.data[4 * i + 2] = b;
    picture.data[4 * i + 3] = 255;
  }
  context.putImageData(picture, 0, 0);
}

// The gray values of a map's picture are class ids; kept once read.
const read = new Map();

async function readMap(image, source) {
  if (!read.has(source)) {
    const element = new Image();
    element.src = source;
    await element.decode();
    const canvas = make("canvas", { width: image.width, height: image.height });
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(element, 0, 0);
    const { data } = context.getImageData(0, 0, image.width, image.height);
    read.set(source, Uint8Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]));
  }
  return read.get(source);
}

setUpTheme();
showSummary();
showCurves();
showClasses();
showConfusions();
showGallery();
