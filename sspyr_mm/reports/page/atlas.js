// Page of an atlas. Data: window.ATLAS, written by sspyr_mm/reports/atlas_page.py.
"use strict";
const atlas = window.ATLAS;
const find = (id) => document.getElementById(id);
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const percent = (share) => `${(100 * share).toFixed(share < 0.001 ? 2 : 1)} %`;

// A tile shows a part of a sheet, which is loaded when the tile comes near the window.
const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) {
      if (isIntersecting) {
        target.style.backgroundImage = `url("${target.dataset.sheet}")`;
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

function showSource(scale, prototype, column) {
  const [image, left, top, right, bottom, score, margin] = prototype.cells[column];
  const { sheets, side, columns, per_sheet: perSheet, sizes, names } = atlas.images;
  const [width, height] = sizes[image];
  const place = image % perSheet;
  const frame = find("source-image");
  const zoom = Math.min(2, (0.85 * window.innerWidth) / width);
  const rows = Math.ceil(Math.min(perSheet, sizes.length - perSheet * Math.floor(image / perSheet)) / columns);
  frame.style.cssText = `width: ${zoom * width}px; height: ${zoom * height}px;
    background-image: url("${sheets[Math.floor(image / perSheet)]}");
    background-size: ${zoom * side * columns}px ${zoom * side * rows}px;
    background-position: ${-zoom * side * (place % columns)}px ${-zoom * side * Math.floor(place / columns)}px`;
  find("source-box").style.cssText = `left: ${100 * left}%; top: ${100 * top}%;
    width: ${100 * (right - left)}%; height: ${100 * (bottom - top)}%`;
  find("source-name").textContent = names[image];
  const lead = scale.num_prototypes > 1 ? `, ${margin} above that of the second nearest` : "";
  find("source-facts").textContent = `Prototype ${prototype.id} of ${scale.name}: cosine ${score}${lead}`;
  const dialog = find("source");
  dialog.onkeydown = (event) => {
    const next = column + { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (next >= 0 && next < prototype.cells.length) showSource(scale, prototype, next);
  };
  if (!dialog.open) dialog.showModal();
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
    const line = make("div", { className: "links" }, toFine ? `composed of ${fine}:` : `part of ${coarse}:`);
    const used = pairs.map(([id, weight]) => [id, weight, other.prototypes.findIndex((one) => one.id === id)]);
    const shown = used.filter(([, , row]) => row >= 0).sort((a, b) => b[1] - a[1]);
    for (const [id, weight, row] of shown.slice(0, 12)) {
      const link = make("a", { href: `#${other.name}-${id}` }, makeTile("span", other, row, 0), `${id} (${weight})`);
      link.onclick = () => {
        if (location.hash === link.hash) follow(); // otherwise the address changes
      };
      line.append(link);
    }
    if (line.childElementCount) found.push(line);
  }
  return found;
}

function makeCard(scale, prototype, row) {
  const share = prototype.count / scale.num_assigned;
  const facts = make("small", {}, ` ${percent(share)} of the cells, ${prototype.count}`);
  const card = make("article", { id: `${scale.name}-${prototype.id}` }, make("h2", {}, `${prototype.id}`, facts));
  const cells = make("div", { className: "cells" });
  prototype.cells.forEach((cell, column) => {
    const tile = makeTile("button", scale, row, column);
    tile.title = atlas.images.names[cell[0]];
    tile.setAttribute("aria-label", `Cell ${column + 1} of prototype ${prototype.id}: ${tile.title}`);
    tile.onclick = () => showSource(scale, prototype, column);
    cells.append(tile);
  });
  card.append(cells, ...makeLinks(scale, prototype));
  return card;
}

let current = atlas.scales[0];
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

function matches(prototype, text) {
  return (
    !text ||
    String(prototype.id) === text ||
    (/\D/.test(text) && prototype.cells.some(([image]) => atlas.images.names[image].toLowerCase().includes(text)))
  );
}

function show() {
  const order = find("order").value;
  const text = find("find").value.trim().toLowerCase();
  const key = { count: (p) => -p.count, score: (p) => -p.cells[0][5], id: (p) => p.id }[order];
  rows = current.prototypes.map((prototype, row) => [prototype, row]).filter(([p]) => matches(p, text));
  rows.sort(([a], [b]) => key(a) - key(b) || a.id - b.id);
  observer.disconnect();
  find("prototypes").replaceChildren();
  makeCards(50);
  const used = current.prototypes.length;
  find("summary").textContent =
    `${current.name}: ${used} of ${current.num_prototypes} prototypes used by ${current.num_assigned} cells of ` +
    `${atlas.num_images} images` + (text ? `; ${rows.length} found` : "");
  for (const tab of find("scales").children) tab.setAttribute("aria-selected", tab.textContent === current.name);
}

function choose(scale) {
  current = scale;
  show();
}

// #s1-12 shows prototype 12 of scale s1.
function follow() {
  const [name, id] = location.hash.slice(1).split("-");
  const scale = atlas.scales.find((one) => one.name === name);
  if (!scale) return;
  find("find").value = "";
  choose(scale);
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
  const tab = make("button", { onclick: () => choose(scale) }, scale.name);
  tab.setAttribute("role", "tab");
  find("scales").append(tab);
}
find("scales").onkeydown = (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  const tabs = find("scales").children;
  if (step) tabs[(atlas.scales.indexOf(current) + step + tabs.length) % tabs.length].focus();
  if (step) document.activeElement.click();
};
find("order").onchange = show;
find("find").oninput = show;
window.onhashchange = follow;
show();
follow();
