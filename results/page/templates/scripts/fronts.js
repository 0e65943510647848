// The Pareto fronts: a chart for each objective against clean accuracy. A step of a slider only
// fades marks and draws the front's line: Plotly would take 60 ms a chart to do it at 1,000 trials.

const MARKS = {
  trial: { symbol: "circle", size: 8, paint: "soft" },
  "struck off": { symbol: "x", size: 9, paint: "bad" },
  "audited, not verified": { symbol: "diamond-open", size: 11, paint: "accent" },
  verified: { symbol: "diamond", size: 12, paint: "good" },
  undefended: { symbol: "star", size: 15, paint: "ink" },
};
const charts = [];
const onScreen = new Set();

function buildFronts() {
  if (typeof Plotly === "undefined") {
    const words = "The charts need plotly.min.js next to this page: copy the whole report folder.";
    return byId("fronts-charts").append(element("p", { class: "warning" }, words));
  }
  charts.push(...data.planes.map(makeChart));
  // All of them stand before the first is drawn: its width follows from how many there are.
  byId("fronts-charts").append(...charts.map((chart) => chart.figure));
  const watcher = new IntersectionObserver(seen, { rootMargin: "200px" });
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => Plotly.Plots.resize(entry.target)));
  charts.forEach((chart) => {
    drawFront(chart);
    watcher.observe(chart.box);
    sizes.observe(chart.box);
  });
}

function makeChart(plane) {
  const places = data.trials.map((_, place) => place).filter((place) => isIn(plane, place));
  const kinds = KINDS.map((kind) => ({
    kind,
    places: places.filter((place) => kindOf(data.trials[place]) === kind),
  })).filter((each) => each.places.length);
  const words = `${plane.title}: trials and their front; the table below holds the same`;
  const box = element("div", { class: "chart", role: "img", "aria-label": words });
  const caption = element("figcaption");
  const figure = element("figure", {}, element("h4", {}, ...breakable(plane.title)), box, caption);
  return { plane, places, kinds, box, caption, figure, stale: false };
}

function isIn(plane, place) {
  const trial = data.trials[place];
  const here = trial.group === undefined || trial.group === plane.group;
  return here && figureOf(place, plane.x) !== null && figureOf(place, plane.y) !== null;
}

function drawFront(chart, matches = matching()) {
  const { plane, box } = chart;
  const layout = {
    ...baseLayout(),
    height: 380,
    margin: { l: 52, r: 12, t: 8, b: 48 },
    xaxis: { ...axis(axisTitle(plane.x)), ...(plane.frame && { range: plane.frame.x }) },
    yaxis: { ...axis(axisTitle(plane.y)), ...(plane.frame && { range: plane.frame.y }) },
    legend: { orientation: "h", y: -0.24, x: 0 },
    hovermode: "closest",
    dragmode: matchMedia("(pointer: fine)").matches ? "zoom" : false,
    shapes: shapesOf(chart, matches),
  };
  Plotly.react(box, tracesOf(chart), layout, { displayModeBar: false });
  box.removeAllListeners("plotly_click");
  box.removeAllListeners("plotly_afterplot");
  box.on("plotly_click", (event) => togglePin(event.points[0].customdata));
  box.on("plotly_afterplot", () => fadeMarks(chart, matching()));
  fadeMarks(chart, matches);
  showCaption(chart, matches);
}

function tracesOf({ plane, kinds }) {
  return kinds.map(({ kind, places: of }) => ({
    type: "scatter",
    mode: "markers",
    name: kind,
    x: of.map((place) => figureOf(place, plane.x)[0]),
    y: of.map((place) => figureOf(place, plane.y)[0]),
    customdata: of,
    text: of.map(hoverText),
    hovertemplate: "%{text}<extra></extra>",
    marker: {
      symbol: MARKS[kind].symbol,
      size: MARKS[kind].size,
      color: colour(MARKS[kind].paint),
      opacity: kind === "trial" ? 0.6 : 0.95,
      line: { width: 1, color: colour("paper") },
    },
  }));
}

// Plotly binds each mark to its place in its trace.
function fadeMarks({ box, kinds }, matches) {
  box.querySelectorAll(".scatterlayer .trace").forEach((trace, order) => {
    trace.querySelectorAll(".point").forEach((mark) => {
      mark.classList.toggle("faint", !matches[kinds[order].places[mark.__data__.i]]);
    });
  });
}

function hoverText(place) {
  const trial = data.trials[place];
  const name = plotText(wrapped(trial.label, 58)).replaceAll("\n", "<br>");
  const rows = objectiveNames.map((metric) => `${metric} ${figureText(figureOf(place, metric))}`);
  rows.push(`${verdictOf(trial)}, trial ${trial.id.slice(0, 10)}`);
  return [`<b>${name}</b>`, ...rows.map(plotText)].join("<br>");
}

function wrapped(text, width) {
  const lines = [""];
  text.split(/(?<=[ ,_(])/).forEach((word) => {
    if (lines.at(-1).length + word.length > width) lines.push("");
    lines[lines.length - 1] += word;
  });
  return lines.join("\n");
}

// The trials of a plane that no other one beats in it, the struck off aside; by rising x.
function frontOf(chart, matches) {
  const { plane } = chart;
  const sign = (metric) => (maximized(metric) ? 1 : -1);
  const score = (place, metric) => sign(metric) * figureOf(place, metric)[0];
  const able = chart.places.filter((place) => matches[place] && !isStruck(data.trials[place]));
  able.sort((a, b) => score(b, plane.x) - score(a, plane.x) || score(b, plane.y) - score(a, plane.y));
  let [bestX, bestY] = [Infinity, -Infinity];
  const front = able.filter((place) => {
    const [x, y] = [score(place, plane.x), score(place, plane.y)];
    if (y < bestY || (y === bestY && x < bestX)) return false;
    [bestX, bestY] = [x, y];
    return true;
  });
  return front.sort((a, b) => figureOf(a, plane.x)[0] - figureOf(b, plane.x)[0]);
}

// The front as a line, its members' intervals as crosses, and a ring around each pinned trial.
function shapesOf(chart, matches) {
  const { plane } = chart;
  const points = (places) => places.map((place) => [figureOf(place, plane.x), figureOf(place, plane.y)]);
  chart.front = frontOf(chart, matches);
  const members = points(chart.front);
  const rings = points(state.pins.filter((place) => isIn(plane, place))).map(ringAround);
  if (!members.length) return rings;
  const crosses = pathShape(members.map(crossOf).join(""), 1, 0.45);
  const steps = members.slice(1).map((point, order) => stepTo(plane, members[order], point));
  return steps.length ? [crosses, pathShape(steps.join(""), 2, 1), ...rings] : [crosses, ...rings];
}

function pathShape(path, width, opacity) {
  return { type: "path", path, opacity, layer: "below", line: { width, color: colour("accent") } };
}

function crossOf([x, y]) {
  return `M${x[1]},${y[0]}L${x[2]},${y[0]}M${x[0]},${y[1]}L${x[0]},${y[2]}`;
}

// From one member to the next by the corner of what both together beat.
function stepTo(plane, [fromX, fromY], [x, y]) {
  const corner = maximized(plane.x) ? `L${fromX[0]},${y[0]}` : `L${x[0]},${fromY[0]}`;
  return `M${fromX[0]},${fromY[0]}${corner}L${x[0]},${y[0]}`;
}

function ringAround([x, y]) {
  const size = { x0: -11, x1: 11, y0: -11, y1: 11, xsizemode: "pixel", ysizemode: "pixel" };
  const line = { width: 2.5, color: colour("accent") };
  return { type: "circle", xanchor: x[0], yanchor: y[0], ...size, line };
}

function showFronts(matches) {
  charts.forEach((chart) => {
    chart.stale = !onScreen.has(chart.box);
    if (!chart.stale) updateFront(chart, matches);
  });
}

function updateFront(chart, matches) {
  fadeMarks(chart, matches);
  Plotly.relayout(chart.box, { shapes: shapesOf(chart, matches) });
  showCaption(chart, matches);
}

function showCaption(chart, matches) {
  const shown = chart.places.filter((place) => matches[place]).length;
  chart.box.dataset.shown = shown;
  const wide = chart.plane.frame ? " Some lie outside the frame: double-click shows all." : "";
  chart.caption.textContent =
    `${shown} of ${counted(chart.places.length, "trial")}; ${chart.front.length} on the front of this plane ` +
    `(line; crosses: 95 % intervals).${wide}`;
}

// A chart that is scrolled into view catches up with what has changed meanwhile.
function seen(entries) {
  entries.forEach((entry) => {
    if (!entry.isIntersecting) return void onScreen.delete(entry.target);
    onScreen.add(entry.target);
    const chart = charts.find((each) => each.box === entry.target);
    if (chart.stale) updateFront(chart, matching());
    chart.stale = false;
  });
}

darkness.addEventListener("change", () => charts.forEach((chart) => drawFront(chart)));
