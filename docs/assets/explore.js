/* The page docs/explore.md: from its controls to pictures and numbers, which RMI (rmi.js) computes. */
(() => {
  const SIDE = 64;
  const EMPTY = new Float64Array(SIDE * SIDE);
  const element = (id) => document.getElementById(id);
  const controls = ["shape", "dx", "dy", "grow", "blur", "noise", "confidence", "pool", "region"];
  const units = { dx: " px", dy: " px", grow: " px", blur: " px", noise: " %", confidence: " %" };
  let chosen = null; // upper left corner of the region that is shown, in pooled pixels

  /** Distance outside of the shape, negative inside, in pixels. */
  const shapes = {
    disc: (x, y) => Math.hypot(x - 31.5, y - 31.5) - 14,
    pole: (x, y) => Math.max(Math.abs(x - 31.5) - 2, Math.abs(y - 31.5) - 24),
    discs: (x, y) =>
      Math.min(...[[20, 20], [44, 18], [30, 44], [48, 46]].map(([cx, cy]) => Math.hypot(x - cx, y - cy) - 5)),
    frame: (x, y) => Math.abs(Math.max(Math.abs(x - 31.5), Math.abs(y - 31.5)) - 16) - 3,
  };

  function draw(shape, dx, dy, grow) {
    return Float64Array.from(EMPTY, (_, i) => (shapes[shape]((i % SIDE) - dx, Math.floor(i / SIDE) - dy) - grow <= 0 ? 1 : 0));
  }

  function blurred(map, sigma) {
    if (sigma === 0) return map;
    const reach = Math.ceil(3 * sigma);
    const kernel = Array.from({ length: 2 * reach + 1 }, (_, i) => Math.exp(-((i - reach) ** 2) / (2 * sigma * sigma)));
    const total = kernel.reduce((a, b) => a + b);
    const along = (from, step, across) =>
      Float64Array.from(from, (_, i) => {
        const place = Math.floor(i / step) % SIDE;
        let sum = 0;
        for (let k = -reach; k <= reach; k++) {
          const other = Math.min(SIDE - 1, Math.max(0, place + k));
          sum += kernel[k + reach] * from[i + (other - place) * step];
        }
        return sum / total;
      });
    return along(along(map, 1), SIDE);
  }

  /** Numbers from 0 to 1 that are the same each time. */
  function random(seed) {
    let state = seed;
    return () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return state / 2 ** 32;
    };
  }

  function settings() {
    const found = {};
    for (const id of controls) found[id] = id === "shape" ? element(id).value : Number(element(id).value);
    return found;
  }

  function probabilities(s, dx) {
    const map = blurred(draw(s.shape, dx, s.dy, s.grow), s.blur);
    const next = random(7);
    const c = s.confidence / 100;
    return map.map((value) => {
      const flipped = next() < s.noise / 100 ? 1 - value : value;
      return 1 - c + (2 * c - 1) * flipped;
    });
  }

  const logitsOf = (map) => map.map((p) => Math.log(p / (1 - p)));
  const explain = (map, truth, s) => RMI.explain(logitsOf(map), truth, SIDE, SIDE, s.pool, s.region);

  function relative(found, empty) {
    return { rmi: (100 * found.above) / empty.above, pixel: (100 * found.pixel) / empty.pixel };
  }

  // ---- pictures

  const color = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  /** A cleared context whose unit is a CSS pixel of a picture of 256 x 256, sharp on any screen. */
  function context(id) {
    const canvas = element(id);
    const scale = 2;
    canvas.width = canvas.height = 256 * scale;
    const pen = canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.clearRect(0, 0, 256, 256);
    pen.font = "12px sans-serif";
    return pen;
  }

  function drawScene(truth, map) {
    const pen = context("scene");
    const cell = 256 / SIDE;
    for (let i = 0; i < truth.length; i++) {
      pen.fillStyle = `rgb(${Math.round(255 * map[i])}, ${truth[i] ? 200 : 0}, 40)`;
      pen.fillRect((i % SIDE) * cell, Math.floor(i / SIDE) * cell, cell + 0.5, cell + 0.5);
    }
  }

  function drawPooled(id, pooled, side) {
    const pen = context(id);
    const cell = 256 / Math.max(pooled.width, pooled.height);
    pooled.map.forEach((value, i) => {
      const gray = Math.round(255 * Math.min(1, value));
      pen.fillStyle = `rgb(${gray}, ${gray}, ${gray})`;
      pen.fillRect((i % pooled.width) * cell, Math.floor(i / pooled.width) * cell, cell + 0.5, cell + 0.5);
    });
    pen.strokeStyle = "#ff7043";
    pen.lineWidth = 3;
    pen.strokeRect(chosen.x * cell, chosen.y * cell, side * cell, side * cell);
  }

  function drawVectors(found, side) {
    const pen = context("vectors");
    const bars = (vector, top) => {
      const width = 248 / vector.length;
      pen.fillStyle = color("--md-default-fg-color--lightest");
      pen.fillRect(4, top, 248, 100);
      vector.forEach((value, i) => {
        pen.fillStyle = "#ff7043";
        pen.fillRect(4 + i * width + 1, top + 100 * (1 - Math.min(1, value)), Math.max(1, width - 2), 100 * Math.min(1, value));
      });
    };
    bars(RMI.regionVector(found.pooledLabels, chosen.y, chosen.x, side), 12);
    bars(RMI.regionVector(found.pooledPrediction, chosen.y, chosen.x, side), 138);
  }

  function drawUnexplained(found, side) {
    const pen = context("unexplained");
    const cell = 256 / side;
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    pen.font = `${side > 3 ? 14 : 18}px sans-serif`;
    found.unexplained.forEach((rest, i) => {
      const share = found.variance[i] > 0 ? Math.min(1, rest / found.variance[i]) : 0;
      const [x, y] = [(i % side) * cell, Math.floor(i / side) * cell];
      pen.fillStyle = `rgb(${Math.round(250 - 60 * share)}, ${Math.round(240 - 180 * share)}, ${Math.round(230 - 190 * share)})`;
      pen.fillRect(x + 1, y + 1, cell - 2, cell - 2);
      pen.fillStyle = share > 0.5 ? "#fff" : "#222";
      pen.fillText(share < 0.1 ? (100 * share).toFixed(1) : Math.round(100 * share), x + cell / 2, y + cell / 2);
    });
  }

  function drawCurves(curve, s) {
    const pen = context("curves");
    const top = Math.max(100, ...curve.map((p) => Math.max(p.rmi, p.pixel)));
    const at = (dx, percent) => [30 + ((dx + 16) / 32) * 220, 226 - (percent / top) * 212];
    pen.fillStyle = pen.strokeStyle = color("--md-default-fg-color--light");
    pen.lineWidth = 1;
    pen.textAlign = "right";
    for (const percent of [0, 50, 100, 150, 200].filter((p) => p <= top)) {
      const [x, y] = at(-16, percent);
      pen.fillText(percent, x - 5, y + 4);
      pen.globalAlpha = 0.25;
      pen.strokeRect(x, y, 220, 0);
      pen.globalAlpha = 1;
    }
    pen.textAlign = "center";
    for (const dx of [-16, -8, 0, 8, 16]) pen.fillText(dx, at(dx, 0)[0] - (dx === 16 ? 6 : 0), 244);
    pen.strokeRect(at(s.dx, 0)[0], 14, 0, 212);
    for (const [key, ink] of [["rmi", "#00897b"], ["pixel", "#ff7043"]]) {
      pen.strokeStyle = ink;
      pen.lineWidth = 2.5;
      pen.beginPath();
      for (const p of curve) pen.lineTo(...at(p.dx, p[key]));
      pen.stroke();
    }
  }

  // ---- from controls to all of it

  let curveKey = "";
  let curve = [];
  let waiting = 0;

  /** The curve, which only changes with something else than the shift sideways; wide regions are sampled. */
  function updateCurve(s, truth, empty) {
    const key = JSON.stringify({ ...s, dx: 0 });
    if (key !== curveKey) {
      const step = s.pool === 1 ? 4 : 1;
      curve = [];
      for (let dx = -16; dx <= 16; dx += step) {
        curve.push({ dx, ...relative(explain(probabilities(s, dx), truth, s), empty) });
      }
      curveKey = key;
    }
    drawCurves(curve, s);
  }

  function update() {
    const s = settings();
    for (const id of controls) {
      const output = element(id).parentElement.querySelector("output");
      if (output) output.textContent = `${element(id).value}${units[id] || ""}`;
    }
    const truth = draw(s.shape, 0, 0, 0);
    const map = probabilities(s, s.dx);
    const found = explain(map, truth, s);
    const empty = explain(EMPTY.map(() => 1 - s.confidence / 100), truth, s);
    const last = { x: found.pooledLabels.width - s.region, y: found.pooledLabels.height - s.region };
    chosen = chosen || { x: Math.round(last.x * 0.7), y: Math.round(last.y * 0.5) };
    chosen = { x: Math.min(last.x, Math.max(0, chosen.x)), y: Math.min(last.y, Math.max(0, chosen.y)) };
    drawScene(truth, map);
    drawPooled("pooled-truth", found.pooledLabels, s.region);
    drawPooled("pooled-prediction", found.pooledPrediction, s.region);
    drawVectors(found, s.region);
    drawUnexplained(found, s.region);
    const percent = relative(found, empty);
    for (const key of ["rmi", "pixel"]) {
      element(`bar-${key}`).style.width = `${Math.min(100, Math.max(0, percent[key]))}%`;
      element(`percent-${key}`).textContent = `${percent[key].toFixed(1)} %`;
    }
    element("value-rmi").textContent = found.value.toFixed(4);
    element("value-perfect").textContent = found.perfect.toFixed(4);
    element("value-pixel").textContent = found.pixel.toFixed(4);
    element("value-loss").textContent = found.loss.toFixed(4);
    clearTimeout(waiting); // the curve is 33 losses: once the hand rests
    waiting = setTimeout(() => updateCurve(s, truth, empty), 60);
  }

  function move(dx, dy) {
    element("dx").value = Number(element("dx").value) + dx;
    element("dy").value = Number(element("dy").value) + dy;
    update();
  }

  function listen() {
    for (const id of controls) {
      element(id).addEventListener("input", () => {
        if (id === "pool") chosen = null;
        update();
      });
    }
    const scene = element("scene");
    let grabbed = null;
    scene.addEventListener("pointerdown", (event) => {
      const s = settings();
      grabbed = { x: event.clientX, y: event.clientY, dx: s.dx, dy: s.dy };
      scene.setPointerCapture(event.pointerId);
    });
    scene.addEventListener("pointermove", (event) => {
      if (!grabbed) return;
      const pixels = SIDE / scene.getBoundingClientRect().width;
      element("dx").value = grabbed.dx + Math.round((event.clientX - grabbed.x) * pixels);
      element("dy").value = grabbed.dy + Math.round((event.clientY - grabbed.y) * pixels);
      update();
    });
    for (const end of ["pointerup", "pointercancel"]) scene.addEventListener(end, () => (grabbed = null));
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    scene.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      move(...steps[event.key]);
    });
    for (const id of ["pooled-truth", "pooled-prediction"]) {
      element(id).addEventListener("pointermove", (event) => {
        const s = settings();
        const box = event.target.getBoundingClientRect();
        const cells = RMI.pool(EMPTY, SIDE, SIDE, s.pool).width / box.width;
        const center = (s.region - 1) / 2;
        chosen = {
          x: Math.round((event.clientX - box.left) * cells - 0.5 - center),
          y: Math.round((event.clientY - box.top) * cells - 0.5 - center),
        };
        update();
      });
    }
    new MutationObserver(update).observe(document.body, { attributeFilter: ["data-md-color-scheme"] });
  }

  listen();
  update();
})();
