// A click on a column's head sorts a table of the page; what was not measured stays last.

function makeSortable(table) {
  table.querySelectorAll("thead th").forEach((head, place) => {
    const button = element("button", { type: "button" }, ...head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => sortTable(table, head, place));
  });
}

function sortTable(table, head, place) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => ({ row, key: keyOf(row.children[place]) }));
  rows.sort((first, second) => compareKeys(first.key, second.key, up));
  body.append(...rows.map(({ row }) => row));
}

function keyOf(cell) {
  return cell.classList.contains("none") ? null : cell.dataset.v || cell.textContent.trim();
}

function compareKeys(a, b, up) {
  if (a === null || b === null) return (a === null) - (b === null);
  const text = Number.isNaN(Number(a)) || Number.isNaN(Number(b));
  const difference = text ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  return up ? difference : -difference;
}
