// Map of an atlas: a point per cell, by regl-scatterplot (page/scatterplot.js). Data: window.ATLAS.points[scale].
"use strict";
const MOST = 300; // tiles of a selection that are shown
const IN_LEGEND = 12; // prototypes

let plot; // the scatterplot, made when a map is opened first
let shownScale; // whose points it has

const load = (file) =>
  new Promise((resolve, reject) => {
    const script = make("script", { src: `page/${file}`, onload: resolve, onerror: () => reject(new Error(file)) });
    document.head.append(script);
  });

const loadPoints = (name) => atlas.points[name] ?? load(`map_${encodeURIComponent(name)}.js`);

const cellOf = (points, i) => {
  const box = points.box.slice(4 * i, 4 * i + 4);
  return { image: points.image[i], box, prototype: points.prototype[i], score: points.score[i] };
};

// A colour per prototype; neighbours in number get distant hues.
const colours = (count) =>
  Array.from({ length: count }, (_, i) => {
    const hue = (i * 137.508) % 360;
    const light = [0.42, 0.55, 0.68][i % 3];
    const channel = (n) => {
      const k = (n + hue / 30) % 12;
      const value = light - 0.65 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1));
      return Math.round(255 * value).toString(16).padStart(2, "0");
    };
    return `#${channel(0)}${channel(8)}${channel(4)}`;
  });

function report(problem) {
  find("map-message").textContent = problem;
  find("map-message").hidden = !problem;
}

let drawn = Promise.resolve(); // maps are drawn one after another
function showMap(scale, text) {
  drawn = drawn.then(() => drawMap(scale, text));
}

async function drawMap(scale, text) {
  const isLeft = () => view !== "map" || scale !== current || text !== searched(); // for a view that is drawn next
  if (isLeft()) return;
  try {
    await loadPoints(scale.name);
    if (!window.scatterplot) await load("scatterplot.js");
    if (!plot) makePlot();
    if (shownScale !== scale) await drawPoints(scale);
    report("");
  } catch (error) {
    shownScale = undefined;
    find("summary").textContent = scale.name;
    find("map-cells").replaceChildren();
    report(`The map cannot be shown (${error.message}). It needs WebGL and the files of the folder "page".`);
    return;
  }
  if (isLeft()) return;
  const points = atlas.points[scale.name];
  const found = text
    ? [...points.x.keys()].filter((i) => String(points.prototype[i]) === text || hasName(points.image[i], text))
    : [];
  if (found.length) plot.select(found, { preventEvent: true });
  else plot.deselect({ preventEvent: true });
  showCells(found, text);
}

async function drawPoints(scale) {
  shownScale = undefined;
  find("map-hover").hidden = true;
  const points = atlas.points[scale.name];
  const ids = scale.prototypes.map(({ id }) => id).sort((a, b) => a - b);
  const place = new Map(ids.map((id, i) => [id, i]));
  const palette = colours(ids.length);
  find("map-legend").replaceChildren(...scale.prototypes.slice(0, IN_LEGEND).map(({ id }) => makeEntry(id, palette[place.get(id)])));
  plot.set({ pointColor: palette, pointSize: Math.max(3, Math.min(8, 400 / Math.sqrt(points.x.length))) });
  await plot.draw({ x: points.x, y: points.y, z: points.prototype.map((id) => place.get(id)) }, { zDataType: "categorical" });
  await plot.reset();
  shownScale = scale;
}

// An entry of the legend selects the cells of its prototype.
function makeEntry(id, colour) {
  const mark = make("span", { className: "mark" });
  mark.style.background = colour;
  const entry = make("button", {}, mark, `${id}`);
  entry.onclick = () => {
    find("find").value = id;
    show();
  };
  return entry;
}

// The scatterplot listens to the mouse alone: one finger acts as its button, and two fingers as its wheel.
function actAsMouse(canvas) {
  let start, last; // places of the finger
  let pressing; // animation frame after which the button is pressed
  let spread; // distance of two fingers, until all are lifted
  const send = (type, { clientX, clientY }, deltaY) => {
    const properties = { bubbles: true, cancelable: true, clientX, clientY, buttons: type === "mousedown" ? 1 : 0, deltaY };
    canvas.dispatchEvent(new (type === "wheel" ? WheelEvent : MouseEvent)(type, properties));
  };
  const onOne = (type, finger) => {
    last = finger;
    if (type === "touchstart") {
      start = finger;
      send("mouseenter", finger);
      send("mousemove", finger);
      // The scatterplot moves by the way since its last frame, which must not be that from an earlier touch.
      pressing = requestAnimationFrame(() => (pressing = requestAnimationFrame(() => send("mousedown", last))));
    } else if (type === "touchmove") {
      send("mousemove", finger);
    } else {
      cancelAnimationFrame(pressing);
      send("mouseup", finger);
      const isTap = type === "touchend" && Math.hypot(finger.clientX - start.clientX, finger.clientY - start.clientY) < 8;
      if (isTap) ["mousedown", "mouseup", "click"].forEach((one) => send(one, finger)); // a slow tap is a click as well
    }
  };
  const onTwo = ([a, b]) => {
    const middle = { clientX: (a.clientX + b.clientX) / 2, clientY: (a.clientY + b.clientY) / 2 };
    const now = Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY);
    cancelAnimationFrame(pressing);
    send(spread ? "mousemove" : "mouseup", middle);
    if (spread) send("wheel", middle, 2 * (spread - now));
    spread = now;
  };
  const onTouch = (event) => {
    event.preventDefault();
    if (event.touches.length > 1) onTwo(event.touches);
    else if (!spread) onOne(event.type, event.changedTouches[0]);
    if (!event.touches.length) spread = undefined;
  };
  for (const type of ["touchstart", "touchmove", "touchend", "touchcancel"]) canvas.addEventListener(type, onTouch, { passive: false });
}

function makePlot() {
  actAsMouse(find("map-canvas"));
  plot = window.scatterplot.default({
    canvas: find("map-canvas"),
    colorBy: "z",
    pointColorActive: "#d6336c",
    pointColorHover: "#d6336c",
    pointOutlineWidth: 2,
    opacityInactiveScale: 0.25,
    lassoColor: "#d6336c",
  });
  window.atlasMap = plot;
  plot.subscribe("select", ({ points }) => showCells(points));
  plot.subscribe("deselect", () => showCells([]));
  plot.subscribe("pointOver", (i) => {
    if (!shownScale) return;
    const points = atlas.points[shownScale.name];
    const cell = cellOf(points, i);
    const tile = make("div", { className: "tile" });
    placeSource(tile, cell.image, cell.box, TILE, TILE);
    loadSheet(tile);
    const [x, y] = plot.getScreenPosition(i);
    const hover = find("map-hover");
    hover.replaceChildren(tile, `prototype ${cell.prototype}`);
    hover.hidden = false;
    const frame = find("map-frame");
    hover.style.left = `${Math.min(x + 12, frame.clientWidth - hover.offsetWidth)}px`;
    hover.style.top = `${Math.min(y + 12, frame.clientHeight - hover.offsetHeight)}px`;
  });
  plot.subscribe("pointOut", () => (find("map-hover").hidden = true));
}

// Cells of the most frequent prototype of a selection first; of one prototype by their cosine.
function sortCells(indices, { prototype, score }) {
  const counts = new Map();
  for (const i of indices) counts.set(prototype[i], (counts.get(prototype[i]) ?? 0) + 1);
  const order = (a, b) =>
    counts.get(prototype[b]) - counts.get(prototype[a]) || prototype[a] - prototype[b] || score[b] - score[a];
  return [...indices].sort(order);
}

// Shows the cells of a selection; one under the pointer or with the focus is marked on the map.
function showCells(selected, text = "") {
  const scale = shownScale;
  if (!scale) return;
  const points = atlas.points[scale.name];
  const indices = sortCells(selected, points);
  const total = points.x.length;
  const cells = indices.map((i) => cellOf(points, i));
  find("summary").textContent =
    `${scale.name}: ${indices.length ? `${indices.length} of ${total}` : total} cells ` +
    (indices.length ? "selected" : "on the map, coloured by prototype; cells close together have similar embeddings") +
    (text && !indices.length ? "; 0 found" : "");
  const tiles = indices.slice(0, MOST).map((i, number) => {
    const tile = makeCellTile(scale, cells, number);
    tile.onmouseenter = tile.onfocus = () => plot.hover(i, { preventEvent: true });
    return tile;
  });
  const more = indices.length - tiles.length;
  const hint = more > 0 ? `${more} more: select fewer points to see them all.` : "Select points, or search, to see their cells.";
  find("map-cells").replaceChildren(...tiles, ...(more > 0 || !tiles.length ? [make("p", { className: "hint" }, hint)] : []));
}

function setLasso(isLasso) {
  const zoom = matchMedia("(pointer: coarse)").matches ? "two fingers zoom" : "scroll to zoom";
  find("map-lasso").setAttribute("aria-pressed", isLasso);
  find("map-hint").textContent = `${isLasso ? "drag around points" : "drag to move"}, ${zoom}`;
  plot?.set({ mouseMode: isLasso ? "lasso" : "panZoom" });
}
setLasso(false);
find("map-lasso").onclick = () => setLasso(find("map-lasso").getAttribute("aria-pressed") !== "true");
find("map-fit").onclick = () => plot?.reset();
find("map-clear").onclick = () => {
  find("find").value = "";
  plot?.deselect({ preventEvent: true });
  showCells([]);
};
