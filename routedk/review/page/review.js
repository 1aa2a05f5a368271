// Sends edits and shows the page that comes back; the bundles are kept by the server.
"use strict";

const $ = (id) => document.getElementById(id);
const all = (query) => [...document.querySelectorAll(query)];
const NAME = "routedk-reviewer";
const said = $("said");
let queue = Promise.resolve();
let released = Promise.resolve();
let release = () => {};
let dragged = null;
let replacing = false;
let seen = {}; // Another object once the page shows what the person's own edits did not make.

// Edits go one after the other, each on the version that the one before it made. Where that one
// was not saved, those that wait were meant for something else, and are dropped.
function edit(change) {
  const count = $("session").dataset.count;
  later(() => send(change, count));
}

function later(act) {
  const meant = seen;
  queue = queue
    .then(() => meant === seen && act())
    .catch((error) => refuse(`not saved: ${error.message}`));
}

function refuse(text) {
  seen = {};
  say(text);
}

async function send(change, count) {
  const { session, base, count: now } = $("session").dataset;
  if ((change.to || change.bundle) && count !== now) {
    return refuse("The bundles have changed. Please try again.");
  }
  const user = localStorage.getItem(NAME) || "";
  const body = JSON.stringify({ ...change, session, base: Number(base), user });
  const response = await fetch(location.href, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body,
    keepalive: body.length < 2 ** 14, // Browsers refuse it above 64 KiB.
  });
  const text = await response.text();
  if (!(response.headers.get("Content-Type") || "").startsWith("text/html")) return refuse(text);
  await released;
  show(text);
  const shown = $("session")?.dataset;
  if (!response.ok || shown?.session !== session || shown.base > Number(base) + 1) seen = {};
}

function show(text) {
  const focused = document.activeElement;
  const typed = focused.matches("input") && focused.value !== focused.defaultValue ? focused : null;
  replacing = true;
  $("app").replaceWith(new DOMParser().parseFromString(text, "text/html").getElementById("app"));
  replacing = false;
  say("");
  settle();
  const again = focused.id && $(focused.id);
  if (again && typed) again.value = typed.value;
  if (again) again.focus({ preventScroll: true });
  if (again && typed) again.setSelectionRange(typed.selectionStart, typed.selectionEnd);
}

function say(text) {
  said.textContent = text;
}

function settle() {
  const url = new URL(location.href);
  if ($("session")) url.searchParams.set("session", $("session").dataset.session);
  history.replaceState(null, "", url); // A filter that the session no longer passes keeps it.
  $("name").value = localStorage.getItem(NAME) || "";
  $("name").defaultValue = $("name").value;
  document.querySelector("#list [aria-current=page]")?.scrollIntoView({ block: "nearest" });
}

const selected = () => all(".card[aria-selected=true]");
const ids = (cards) => cards.map((card) => card.dataset.item);

function toggle(card) {
  card.setAttribute("aria-selected", card.getAttribute("aria-selected") !== "true");
  chosen();
}

function chosen() {
  const count = selected().length;
  $("bar").hidden = !count;
  $("chosen").textContent = `Move ${count} item${count === 1 ? "" : "s"} to`;
}

// To bundle `to`: the selected items, or else the focused one.
function move(to) {
  const focused = all(".card:focus");
  const cards = selected().length ? selected() : focused;
  if (!cards.length) return say("Choose an item first, with the arrow keys.");
  if (to > Number($("session").dataset.count) + 1) return say(`There is no bundle ${to}.`);
  edit({ do: "move", items: ids(cards), to });
}

function rename(section) {
  const intent = section.querySelector(".intent").value;
  const kind = section.querySelector(".kind").value || null;
  edit({ do: "rename", bundle: Number(section.dataset.bundle), intent, kind });
}

function arrow(key) {
  const cards = all(".card");
  const at = cards.indexOf(document.activeElement);
  if (at < 0) return cards[0];
  if (key === "ArrowLeft" || key === "ArrowRight") return cards[at + (key === "ArrowLeft" ? -1 : 1)];
  const box = cards[at].getBoundingClientRect();
  const far = (other) => (key === "ArrowDown" ? other.top - box.bottom : box.top - other.bottom);
  const there = cards
    .map((card) => ({ card, other: card.getBoundingClientRect() }))
    .filter(({ other }) => far(other) >= 0)
    .map(({ card, other }) => ({ card, cost: 3 * far(other) + Math.abs(other.left - box.left) }));
  return there.sort((one, two) => one.cost - two.cost)[0]?.card;
}

document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const section = target.closest("[data-bundle]");
  if (key === "Enter" && target.matches(".intent")) return section.querySelector(".card").focus();
  if (key === "Enter" && target.matches("#name")) return target.blur();
  if (key === "Escape") {
    if (target.matches("input")) target.value = target.defaultValue;
    selected().forEach(toggle);
    return target.blur();
  }
  if (key.startsWith("Arrow") && target.matches(".merge")) {
    event.preventDefault(); // The first one would be chosen at once.
    return target.showPicker();
  }
  if (target.matches("input, select")) return;
  if (event.repeat && /^([0-9nauxrmjk ]|Enter)$/.test(key)) return event.preventDefault();
  if (key === "j" || key === "k") return $(key === "j" ? "after" : "before")?.click();
  if (!$("session")) return;
  if (key.startsWith("Arrow")) arrow(key)?.focus();
  else if (key === " " && target.matches(".card")) toggle(target);
  else if (/^[0-9]$/.test(key)) move(Number(key));
  else if (key === "n") move(Number($("session").dataset.count) + 1);
  else if (key === "a" && $("accept")) $("accept").click();
  else if (key === "u") $("undo").click();
  else if ("rmx".includes(key) && !section) say("Choose an item of a bundle first, with the arrow keys.");
  else if (key === "r") section.querySelector(".intent").select();
  else if (key === "m") section.querySelector(".merge")?.focus();
  else if (key === "x") section.querySelector("[data-do=reject]").click();
  else return;
  event.preventDefault();
});

document.addEventListener("click", (event) => {
  const on = (query) => event.target.closest(query);
  const link = !event.ctrlKey && !event.metaKey && !event.shiftKey && on("a[href]");
  if (link) {
    event.preventDefault();
    later(() => location.assign(link.href));
  }
  if (on("[data-do]")) {
    edit({ do: on("[data-do]").dataset.do, bundle: Number(on("[data-bundle]")?.dataset.bundle || 0) });
  } else if (on("[data-move]")) move(Number(on("[data-move]").dataset.move));
  else if (on("#clear")) selected().forEach(toggle);
  else if (on(".card")) toggle(on(".card"));
  else if (on("#drawer")) {
    const open = document.body.classList.toggle("open");
    $("drawer").setAttribute("aria-expanded", open);
  } else if (!on("#list")) document.body.classList.remove("open");
});

document.addEventListener("submit", (event) => {
  event.preventDefault();
  const query = new URLSearchParams(new FormData(event.target));
  later(() => location.assign(`?${query}`)); // The form itself may be replaced until then.
});

document.addEventListener("change", ({ target }) => {
  const section = target.closest("[data-bundle]");
  if (target.id === "name") localStorage.setItem(NAME, target.value.trim());
  else if (target.matches(".merge") && target.value) {
    edit({ do: "merge", bundle: Number(section.dataset.bundle), to: Number(target.value) });
  } else if (target.matches(".kind")) rename(section);
});

// Not on change: a text that outlived a new page is no change to the browser.
document.addEventListener("focusout", ({ target }) => {
  const typed = !replacing && target.matches(".intent") && target.value !== target.defaultValue;
  if (typed) rename(target.closest("[data-bundle]"));
});

// What is typed when the tab is closed is sent, too.
window.addEventListener("pagehide", () => document.activeElement.blur());

document.addEventListener("dragstart", (event) => {
  dragged = null;
  if (!event.target.matches?.("[draggable=true]")) return; // A link, or text.
  const card = event.target.closest(".card");
  const chosenToo = card?.getAttribute("aria-selected") === "true";
  if (card) dragged = { do: "move", items: ids(chosenToo ? selected() : [card]) };
  else dragged = { do: "merge", bundle: Number(event.target.closest("[data-bundle]").dataset.bundle) };
  event.dataTransfer.effectAllowed = "move";
  event.dataTransfer.setData("text/plain", dragged.do);
});

document.addEventListener("dragover", (event) => {
  const over = dragged && event.target.closest?.("[data-to]");
  all(".over").forEach((one) => one !== over && one.classList.remove("over"));
  if (!over) return;
  event.preventDefault();
  over.classList.add("over");
});

document.addEventListener("drop", (event) => {
  if (!dragged) return;
  event.preventDefault();
  const over = event.target.closest?.("[data-to]");
  if (!over) return;
  const to = Number(over.dataset.to);
  if (dragged.do === "move") edit({ ...dragged, to });
  else if (to === 0) edit({ do: "reject", bundle: dragged.bundle });
  else if (to !== dragged.bundle && to <= $("session").dataset.count) edit({ ...dragged, to });
});

document.addEventListener("dragend", () => {
  dragged = null;
  all(".over").forEach((one) => one.classList.remove("over"));
});

// A page that changes between press and release would lose the click, or the drag.
document.addEventListener("pointerdown", () => {
  released = new Promise((resolve) => (release = resolve));
});
for (const name of ["pointerup", "pointercancel", "dragend"]) {
  document.addEventListener(name, () => dragged || setTimeout(release));
}

settle();
document.querySelector(".card")?.focus({ preventScroll: true });
