// An image of the user's own: its cells, their prototypes, and the nearest cells of the map. Needs `atlas --serve`.
"use strict";
let own; // { url, scales } of the image that was sent last

async function findOwn() {
  if (!location.protocol.startsWith("http")) return;
  const answer = await fetch("locate").catch(() => undefined);
  if (answer?.status !== 204) return; // a server of files alone
  find("own-choice").hidden = false;
  find("own-file").onchange = (event) => sendOwn(event.target.files[0]);
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    sendOwn(event.dataTransfer.files[0]);
  });
  find("own-close").onclick = () => {
    own = undefined;
    find("own-file").value = "";
    showOwn();
  };
}

async function sendOwn(file) {
  if (!file) return;
  try {
    const answer = await fetch("locate", { method: "POST", body: file });
    const found = await answer.json();
    own = answer.ok ? { url: URL.createObjectURL(file), name: file.name, scales: found } : { error: `${file.name}: ${found.error}` };
  } catch (error) {
    own = { error: `the server does not answer (${error.message}); start the command again` };
  }
  if (own.scales) await Promise.all(atlas.maps.map(loadPoints));
  showOwn();
}

function showOwn() {
  find("own").hidden = !own;
  if (!own) return;
  find("own-name").textContent = own.error ?? `${own.name}: cells of ${current.name} and the most similar ones`;
  find("own-image").hidden = !own.scales;
  find("own-cells").replaceChildren();
  if (!own.scales) return;
  const scale = current;
  const points = atlas.points[scale.name];
  const boxes = own.scales[scale.name].map(({ box: [left, top, right, bottom] }, number) => {
    const frame = make("div", { className: "own-box" }, `${number + 1}`);
    frame.style.cssText = `left: ${100 * left}%; top: ${100 * top}%; width: ${100 * (right - left)}%; height: ${100 * (bottom - top)}%`;
    return frame;
  });
  find("own-image").replaceChildren(make("img", { src: own.url, alt: own.name }), ...boxes);
  own.scales[scale.name].forEach(({ prototype, score, nearest }, number) => {
    const facts = make("span", {}, `cell ${number + 1}: `);
    facts.append(make("a", { href: `#${scale.name}-${prototype}`, onclick: followSame }, `prototype ${prototype}`), ` (cosine ${score})`);
    const cells = points ? nearest.map((i) => cellOf(points, i)) : [];
    const row = make("div", { className: "links" }, facts, ...cells.map((_, i) => makeCellTile(scale, cells, i)));
    row.onmouseenter = () => boxes[number].classList.add("marked");
    row.onmouseleave = () => boxes[number].classList.remove("marked");
    find("own-cells").append(row);
  });
}
