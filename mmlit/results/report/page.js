"use strict";
// A click, Enter or Space on a heading sorts its table by that column; once more turns the order round.
function valueOf(row, column) {
  const cell = row.cells[column];
  const number = cell.dataset.sort;
  return number === undefined ? cell.textContent.trim().toLowerCase() : Number(number);
}

function compare(one, other) {
  if (typeof one !== typeof other) return typeof one === "number" ? -1 : 1;  // what has no number comes last
  return typeof one === "number" ? one - other : one.localeCompare(other);
}

function sortBy(heading) {
  const column = heading.cellIndex;
  const body = heading.closest("table").tBodies[0];
  const before = heading.getAttribute("aria-sort");
  const numbers = heading.classList.contains("number");
  const first = numbers ? "descending" : "ascending";
  const order = before === "none" ? first : before === "ascending" ? "descending" : "ascending";
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", other === heading ? order : "none");
  const sign = order === "ascending" ? 1 : -1;
  const rows = Array.from(body.rows, (row) => [valueOf(row, column), row]);
  rows.sort(([one], [other]) => (typeof one === typeof other ? sign : 1) * compare(one, other));
  body.append(...rows.map(([, row]) => row));
}

for (const button of document.querySelectorAll("th > button")) {
  button.addEventListener("click", () => sortBy(button.parentElement));
}
