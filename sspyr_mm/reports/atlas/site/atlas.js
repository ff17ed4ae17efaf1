// Page of an atlas. Data: window.ATLAS, written by sspyr_mm/reports/atlas/atlas_page.py.
"use strict";
const atlas = window.ATLAS;
const find = (id) => document.getElementById(id);
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const TILE = 64; // pixels
const percent = (share) => `${(100 * share).toFixed(share < 0.001 ? 2 : 1)} %`;

const loadSheet = (element) => (element.style.backgroundImage = `url("${element.dataset.sheet}")`);

// A tile shows a part of a sheet, which is loaded when the tile comes near the window.
const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        loadSheet(target);
        observer.unobserve(target);
      }
    }
  },
  { rootMargin: "600px" },
);

function makeTile(tag, scale, row, column) {
  const tile = make(tag, { className: "tile" });
  const rows = Math.min(scale.rows, scale.prototypes.length - scale.rows * Math.floor(row / scale.rows));
  tile.dataset.sheet = scale.sheets[Math.floor(row / scale.rows)];
  tile.style.backgroundSize = `${100 * scale.columns}% ${100 * rows}%`;
  const x = scale.columns > 1 ? column / (scale.columns - 1) : 0;
  const y = rows > 1 ? (row % scale.rows) / (rows - 1) : 0;
  tile.style.backgroundPosition = `${100 * x}% ${100 * y}%`;
  observer.observe(tile);
  return tile;
}

// Makes an element of a size in pixels show a box (shares of the image) of a source image.
function placeSource(element, image, [left, top, right, bottom], width, height) {
  const { sheets, side, columns, per_sheet: perSheet, sizes } = atlas.images;
  const [imageWidth, imageHeight] = sizes[image];
  const sheet = Math.floor(image / perSheet);
  const place = image % perSheet;
  const rows = Math.ceil(Math.min(perSheet, sizes.length - perSheet * sheet) / columns);
  const zoomX = width / ((right - left) * imageWidth);
  const zoomY = height / ((bottom - top) * imageHeight);
  const x = side * (place % columns) + left * imageWidth;
  const y = side * Math.floor(place / columns) + top * imageHeight;
  Object.assign(element.style, {
    width: `${width}px`,
    height: `${height}px`,
    backgroundSize: `${zoomX * side * columns}px ${zoomY * side * rows}px`,
    backgroundPosition: `${-zoomX * x}px ${-zoomY * y}px`,
  });
  element.dataset.sheet = sheets[sheet];
}

// A cell is { image, box, prototype, score, margin }; the arrow keys go through the list.
function showSource(scale, cells, number) {
  const { image, box, prototype, score, margin } = cells[number];
  const [left, top, right, bottom] = box;
  const [width, height] = atlas.images.sizes[image];
  const frame = find("source-image");
  const zoom = Math.min(2, (0.85 * window.innerWidth) / width);
  placeSource(frame, image, [0, 0, 1, 1], zoom * width, zoom * height);
  loadSheet(frame);
  find("source-box").style.cssText = `left: ${100 * left}%; top: ${100 * top}%;
    width: ${100 * (right - left)}%; height: ${100 * (bottom - top)}%`;
  find("source-name").textContent = atlas.images.names[image];
  const lead = margin !== undefined && scale.num_prototypes > 1 ? `, margin ${margin}` : "";
  find("source-facts").textContent = `Prototype ${prototype} of ${scale.name}: cosine ${score}${lead}`;
  const dialog = find("source");
  const link = find("source-prototype");
  link.textContent = `Show prototype ${prototype}`;
  link.href = `#${scale.name}-${prototype}`;
  link.onclick = (event) => {
    dialog.close();
    followSame(event);
  };
  dialog.onkeydown = (event) => {
    const next = number + { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (next >= 0 && next < cells.length) showSource(scale, cells, next);
  };
  if (!dialog.open) dialog.showModal();
}

// A click on the address that the page has already does not change it.
function followSame({ currentTarget }) {
  if (location.hash === currentTarget.hash) follow();
}

// Makes the tile of a cell from its source image.
function makeCellTile(scale, cells, number) {
  const cell = cells[number];
  const tile = make("button", { className: "tile", title: atlas.images.names[cell.image] });
  tile.setAttribute("aria-label", `Prototype ${cell.prototype}: ${tile.title}`);
  placeSource(tile, cell.image, cell.box, TILE, TILE);
  tile.onclick = () => showSource(scale, cells, number);
  observer.observe(tile);
  return tile;
}

// Prototypes of scale 0 by finer prototype, and the reverse of `weights`.
for (const link of atlas.links) {
  link.reverse = [];
  link.weights.forEach((row, id) => row.forEach(([j, weight]) => (link.reverse[j] ??= []).push([id, weight])));
}

function makeLinks(scale, prototype) {
  const found = [];
  for (const { fine, coarse, weights, reverse } of atlas.links) {
    const toFine = scale.name === coarse;
    if (!toFine && scale.name !== fine) continue;
    const other = atlas.scales.find(({ name }) => name === (toFine ? fine : coarse));
    const pairs = (toFine ? weights : reverse)[prototype.id] ?? [];
    const line = make("div", { className: "links" }, toFine ? `composed of ${fine} (weight):` : `part of ${coarse} (weight):`);
    const rowed = pairs.map(([id, weight]) => [id, weight, other.prototypes.findIndex((one) => one.id === id)]);
    const shown = rowed.filter(([, , row]) => row >= 0).sort((a, b) => b[1] - a[1]);
    for (const [id, weight, row] of shown.slice(0, 12)) {
      const link = make("a", { href: `#${other.name}-${id}` }, makeTile("span", other, row, 0), `${id} (${weight})`);
      link.onclick = followSame;
      line.append(link);
    }
    if (line.childElementCount) found.push(line);
  }
  return found;
}

function makeCard(scale, prototype, row) {
  const share = prototype.count / scale.num_assigned;
  const heading = make("h2", {}, `${prototype.id}`);
  heading.append(make("small", {}, ` ${prototype.count} cells, ${percent(share)}`));
  if (atlas.maps.includes(scale.name))
    heading.append(" ", make("a", { href: `#map-${scale.name}-${prototype.id}`, className: "hint" }, "on the map"));
  const card = make("article", { id: `${scale.name}-${prototype.id}` }, heading);
  const cells = make("div", { className: "cells" });
  const listed = prototype.cells.map(([image, left, top, right, bottom, score, margin]) => {
    return { image, box: [left, top, right, bottom], prototype: prototype.id, score, margin };
  });
  listed.forEach(({ image }, column) => {
    const tile = makeTile("button", scale, row, column);
    tile.title = atlas.images.names[image];
    tile.setAttribute("aria-label", `Cell ${column + 1} of prototype ${prototype.id}: ${tile.title}`);
    tile.onclick = () => showSource(scale, listed, column);
    cells.append(tile);
  });
  card.append(cells, ...makeLinks(scale, prototype));
  return card;
}

let current = atlas.scales[0];
let view = "prototypes"; // or "map"
let rows = []; // [prototype, row of its sheets] to show, in order

// Cards are made as they come near the window: thousands at once would take seconds.
function makeCards(count) {
  const start = find("prototypes").childElementCount;
  const cards = rows.slice(start, start + count).map(([prototype, row]) => makeCard(current, prototype, row));
  find("prototypes").append(...cards);
  bottom.unobserve(find("bottom"));
  if (start + count < rows.length) bottom.observe(find("bottom"));
}
const bottom = new IntersectionObserver((entries) => entries.some((e) => e.isIntersecting) && makeCards(50), {
  rootMargin: "1500px",
});

const searched = () => find("find").value.trim().toLowerCase();
// Text of digits alone is the number of a prototype, or the whole name of a file without its ending.
function hasName(image, text) {
  const name = atlas.images.names[image].toLowerCase();
  return /\D/.test(text) ? name.includes(text) : name.replace(/.*[/\\]/, "").replace(/\.[^.]*$/, "") === text;
}

function matches(prototype, text) {
  if (!text) return true;
  return String(prototype.id) === text || prototype.cells.some(([image]) => hasName(image, text));
}

function show() {
  atlas.scales.forEach((scale, i) => find("scales").children[i].setAttribute("aria-selected", scale === current));
  for (const name of ["prototypes", "map"]) find(`view-${name}`).setAttribute("aria-pressed", view === name);
  find("views").hidden = !atlas.maps.length;
  find("view-map").disabled = !atlas.maps.includes(current.name);
  find("ordering").hidden = find("prototypes").hidden = view === "map";
  find("map").hidden = view !== "map";
  observer.disconnect();
  showOwn();
  find("prototypes").replaceChildren();
  if (view === "map") {
    bottom.unobserve(find("bottom"));
    showMap(current, searched());
    return;
  }
  const order = find("order").value;
  const text = searched();
  const key = { count: (p) => -p.count, score: (p) => -p.cells[0][5], id: (p) => p.id }[order];
  rows = current.prototypes.map((prototype, row) => [prototype, row]).filter(([p]) => matches(p, text));
  rows.sort(([a], [b]) => key(a) - key(b) || a.id - b.id);
  makeCards(50);
  const used = current.prototypes.length;
  find("summary").textContent =
    `${current.name}: ${used} of ${current.num_prototypes} prototypes used by ${current.num_assigned} cells of ` +
    `${atlas.num_images} images` + (text ? `; ${rows.length} found` : "");
}

// "whole images", or the cells of an image.
function partsOf(scale) {
  const side = Math.round(Math.sqrt(scale.num_assigned / atlas.num_images));
  return side > 1 ? `${side} x ${side} cells` : "whole images";
}

function choose(scale) {
  current = scale;
  if (!atlas.maps.includes(scale.name)) view = "prototypes";
  show();
}

// #s1-12 shows prototype 12 of scale s1, #map-s1 the map of s1, and #map-s1-12 the cells of prototype 12 on it.
function follow() {
  const [, onMap, name, id] = /^#(map-)?(.*?)(?:-(\d+))?$/.exec(decodeURIComponent(location.hash)) ?? [];
  const scale = atlas.scales.find((one) => one.name === name);
  if (!scale) return;
  find("find").value = onMap && id ? id : "";
  view = onMap ? "map" : "prototypes";
  choose(scale);
  if (onMap || !id) return;
  const place = rows.findIndex(([prototype]) => String(prototype.id) === id);
  makeCards(Math.max(0, place + 20 - find("prototypes").childElementCount));
  const card = find(`${name}-${id}`);
  if (card) {
    card.classList.add("marked");
    card.scrollIntoView();
    card.querySelector("button").focus({ preventScroll: true });
  }
}

find("title").textContent = document.title = `Prototypes of ${atlas.title}`;
for (const scale of atlas.scales) {
  const tab = make("button", { onclick: () => choose(scale) }, `${scale.name}: ${partsOf(scale)}`);
  tab.setAttribute("role", "tab");
  find("scales").append(tab);
}
find("scales").onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const tabs = find("scales").children;
  if (step) tabs[(atlas.scales.indexOf(current) + step + tabs.length) % tabs.length].focus();
  if (step) document.activeElement.click();
};
for (const name of ["prototypes", "map"]) {
  find(`view-${name}`).onclick = () => {
    view = name;
    show();
  };
}
find("order").onchange = show;
find("find").oninput = show;
window.onhashchange = follow;
window.addEventListener("DOMContentLoaded", () => {
  findOwn();
  show();
  follow();
});
