"use strict";

// The theme follows the system until the button is pressed; nothing is stored.
const root = document.documentElement;
document.getElementById("theme").addEventListener("click", () => {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  root.dataset.theme = (root.dataset.theme || system) === "dark" ? "light" : "dark";
});

// Numbers sort by data-value, largest first; what has no value stays at the end. The last row is in tfoot.
function sortBy(header) {
  const table = header.closest("table");
  const body = table.tBodies[0];
  const numeric = header.classList.contains("num");
  const current = header.getAttribute("aria-sort");
  const first = numeric ? "descending" : "ascending";
  const direction = current === "none" ? first : current === "ascending" ? "descending" : "ascending";
  const sign = direction === "ascending" ? 1 : -1;
  const key = (row) => {
    const cell = row.cells[header.cellIndex];
    if (!numeric) return cell.textContent.trim();
    return cell.dataset.value === undefined ? null : Number(cell.dataset.value);
  };
  const compare = (a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * (numeric ? x - y : x.localeCompare(y, "en", { numeric: true }));
  };
  body.append(...[...body.rows].sort(compare));
  for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", direction);
}

for (const button of document.querySelectorAll("table.sortable th button")) {
  button.addEventListener("click", () => sortBy(button.closest("th")));
}

// Where the clipboard is not to be had, the text is selected instead.
async function copy(button) {
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code);
    button.textContent = "Selected: press Ctrl+C";
  }
  setTimeout(() => (button.textContent = "Copy"), 2500);
}

for (const button of document.querySelectorAll("button.copy")) {
  button.addEventListener("click", () => copy(button));
}

const dialog = document.getElementById("enlarged");
for (const button of document.querySelectorAll("button.enlarge")) {
  button.addEventListener("click", () => {
    const [shown, small] = [dialog.querySelector("img"), button.querySelector("img")];
    shown.src = small.src;
    shown.alt = small.alt;
    dialog.showModal();
  });
}

// A link to a folded run unfolds it.
for (const link of document.querySelectorAll('a[href^="#run-"]')) {
  link.addEventListener("click", () => {
    document.querySelector(link.getAttribute("href")).open = true;
  });
}
