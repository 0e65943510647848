// The trials that meet what is asked. A row's name is a button that pins it.

const PAGE_ROWS = 50;
const order = { metric: "", up: false };
let rowsShown = PAGE_ROWS;

function buildTable() {
  byId("more-rows").addEventListener("click", () => {
    rowsShown += PAGE_ROWS;
    showTable(matching());
  });
}

function tableColumns() {
  return [...new Set([...objectiveNames, ...state.requirements.keys()])];
}

function showTable(matches) {
  const places = ordered(data.trials.map((_, place) => place).filter((place) => matches[place]));
  const columns = tableColumns();
  byId("matches-head").replaceChildren(headRow(columns));
  byId("matches-body").replaceChildren(...places.slice(0, rowsShown).map((place) => tableRow(place, columns)));
  const left = Math.max(0, places.length - rowsShown);
  byId("more-rows").hidden = left === 0;
  byId("more-rows").textContent = `Show ${Math.min(left, PAGE_ROWS)} more of ${left}`;
  byId("none-match").hidden = places.length > 0;
}

// Verified first, then who is on the front in at least half of the draws, then the front by the values
// alone, then as they finished, where the reader has not sorted.
function ordered(places) {
  const rank = (place) => {
    const trial = data.trials[place];
    if (trial.undefended) return 1;
    if (trial.verdict === "verified") return 0;
    if (isStruck(trial)) return 5;
    if (trial.share >= 0.5) return 2;
    return trial.front ? 3 : 4;
  };
  if (!order.metric) return places.sort((a, b) => rank(a) - rank(b) || a - b);
  const key = (place) => figureOf(place, order.metric)?.[0] ?? null;
  return places.sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return order.up ? x - y : y - x;
  });
}

function headRow(columns) {
  const [defense, verdict, front, trial] = ["defense", "verdict", "on the front", "trial"].map((words) =>
    element("th", { scope: "col" }, words),
  );
  return element("tr", {}, defense, verdict, ...columns.map(sortHead), front, trial);
}

function sortHead(metric) {
  const sorted = order.metric === metric;
  const sort = () => {
    order.up = sorted ? !order.up : !maximized(metric);
    order.metric = metric;
    showTable(matching());
    byId("matches-head").querySelector(`[data-metric="${CSS.escape(metric)}"]`).focus();
  };
  return element(
    "th",
    { scope: "col", "aria-sort": sorted ? (order.up ? "ascending" : "descending") : false },
    element("button", { type: "button", "data-metric": metric, onclick: sort }, metric),
  );
}

function tableRow(place, columns) {
  const trial = data.trials[place];
  const pinned = state.pins.includes(place);
  const button = element(
    "button",
    { type: "button", class: "pin", "aria-pressed": String(pinned), title: "pin this trial" },
    ...breakable(trial.label),
  );
  const share = trial.share === undefined ? "" : `${Math.round(100 * trial.share)} % of draws`;
  return element(
    "tr",
    { "data-trial": trial.id, class: pinned ? "pinned" : false, onclick: () => togglePin(place) },
    element("th", { scope: "row", class: "label" }, button),
    element("td", {}, verdictBadge(trial)),
    ...columns.map((metric) => figureCell(figureOf(place, metric))),
    element("td", { class: "number" }, trial.front ? "yes" : "no", " ", element("small", {}, share)),
    element("td", {}, element("code", {}, trial.id.slice(0, 10))),
  );
}

function verdictBadge(trial) {
  const verdict = verdictOf(trial);
  return element("span", { class: `verdict ${verdict.replaceAll(" ", "-")}` }, verdict);
}

function figureCell(figure) {
  if (!figure) return element("td", { class: "none" }, "not measured");
  return element("td", { class: "number" }, numberText(figure[0]), " ", element("small", {}, intervalText(figure)));
}

function markPinnedRows() {
  byId("matches-body").querySelectorAll("tr").forEach((row) => {
    const pinned = state.pins.includes(placeOf.get(row.dataset.trial));
    row.classList.toggle("pinned", pinned);
    row.querySelector("button").setAttribute("aria-pressed", String(pinned));
  });
}
