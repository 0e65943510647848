// Parallel axes over all objectives; better is up on each. A range brushed on an axis filters like
// a requirement. Drawn on a canvas: Plotly's own kind takes half a second a step at 1,000 trials.

const AXES_HEIGHT = 350;
const AXES_MARGIN = { top: 70, bottom: 30, side: 42 };
const SHORTEST_BRUSH = 4;
let parallel = null;

function buildParallel() {
  const places = data.trials
    .map((_, place) => place)
    .filter((place) => objectiveNames.every((metric) => figureOf(place, metric) !== null));
  if (places.length < 2 || objectiveNames.length < 2) return byId("parallel-part").remove();
  const box = byId("parallel");
  const canvas = element("canvas", { role: "img", "aria-label": box.dataset.label });
  const axes = objectiveNames.map((metric) => axisOf(metric, places));
  parallel = { box, canvas, places, axes };
  box.append(canvas, ...axes.map((each) => each.strip));
  new ResizeObserver(() => showParallel(matching())).observe(box);
  byId("clear-brushes").addEventListener("click", () => {
    clearBrushes();
    changed();
  });
}

// An axis with its range, and the strip of the page on which it is brushed.
function axisOf(metric, places) {
  const values = places.map((place) => figureOf(place, metric)[0]);
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  const strip = element("div", { class: "strip", "data-metric": metric });
  const made = { metric, low, high: high > low ? high : low + 1, strip };
  made.strip.addEventListener("pointerdown", (event) => beginBrush(made, event));
  return made;
}

function heightOf({ metric, low, high }, value) {
  const share = (value - low) / (high - low);
  const room = AXES_HEIGHT - AXES_MARGIN.top - AXES_MARGIN.bottom;
  return AXES_MARGIN.top + room * (maximized(metric) ? 1 - share : share);
}

function valueAt({ metric, low, high }, height) {
  const room = AXES_HEIGHT - AXES_MARGIN.top - AXES_MARGIN.bottom;
  const share = Math.min(1, Math.max(0, (height - AXES_MARGIN.top) / room));
  const upward = maximized(metric) ? 1 - share : share;
  // Exact at both ends, so that a brush over all of the axis holds all.
  return low * (1 - upward) + high * upward;
}

function placeAxes(width) {
  const step = (width - 2 * AXES_MARGIN.side) / (parallel.axes.length - 1);
  parallel.axes.forEach((each, order) => {
    each.x = AXES_MARGIN.side + order * step;
    each.strip.style.left = `${each.x}px`;
  });
}

// From where the pointer goes down to where it is now; a mere click drops the brush.
function beginBrush(each, down) {
  const top = parallel.box.getBoundingClientRect().top;
  const start = down.clientY - top;
  each.strip.setPointerCapture(down.pointerId);
  down.preventDefault();
  const move = (event) => {
    const end = event.clientY - top;
    const ends = [valueAt(each, start), valueAt(each, end)].sort((a, b) => a - b);
    if (Math.abs(end - start) < SHORTEST_BRUSH) state.brushes.delete(each.metric);
    else state.brushes.set(each.metric, ends);
    changed();
  };
  const up = (event) => {
    move(event);
    each.strip.removeEventListener("pointermove", move);
  };
  each.strip.addEventListener("pointermove", move);
  each.strip.addEventListener("pointerup", up, { once: true });
}

function clearBrushes() {
  state.brushes.clear();
}

function showParallel(matches) {
  if (!parallel) return;
  byId("clear-brushes").disabled = state.brushes.size === 0;
  const width = parallel.box.clientWidth;
  const pen = preparedPen(width);
  placeAxes(width);
  drawTrials(pen, matches);
  const apart = (width - 2 * AXES_MARGIN.side) / (parallel.axes.length - 1);
  parallel.axes.forEach((each) => drawAxis(pen, each, apart - 6));
}

// The faint first, so that what matters lies over them.
function drawTrials(pen, matches) {
  const { places } = parallel;
  const shown = places.filter((place) => matches[place]);
  const isGood = (place) => kindOf(data.trials[place]) === "verified";
  drawLines(pen, places.filter((place) => !matches[place]), colour("line"), 1, 0.5);
  drawLines(pen, shown.filter((place) => !isGood(place)), colour("accent"), 1, shown.length > 200 ? 0.25 : 0.55);
  drawLines(pen, shown.filter(isGood), colour("good"), 2.5, 1);
  drawLines(pen, shown.filter((place) => data.trials[place].undefended), colour("ink"), 2, 1, [6, 4]);
  drawLines(pen, state.pins.filter((place) => places.includes(place)), colour("accent"), 4, 1);
}

// Sharp on every screen: as many pixels as the screen has.
function preparedPen(width) {
  const { canvas } = parallel;
  const ratio = devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(AXES_HEIGHT * ratio);
  canvas.style.height = `${AXES_HEIGHT}px`;
  const pen = canvas.getContext("2d");
  pen.scale(ratio, ratio);
  pen.font = "12px system-ui, sans-serif";
  return pen;
}

function drawLines(pen, places, paint, width, opacity, dash = []) {
  pen.save();
  Object.assign(pen, { strokeStyle: paint, lineWidth: width, globalAlpha: opacity });
  pen.setLineDash(dash);
  places.forEach((place) => {
    pen.beginPath();
    parallel.axes.forEach((each) => pen.lineTo(each.x, heightOf(each, figureOf(place, each.metric)[0])));
    pen.stroke();
  });
  pen.restore();
}

function drawAxis(pen, each, room) {
  const [top, bottom] = [AXES_MARGIN.top, AXES_HEIGHT - AXES_MARGIN.bottom];
  pen.fillStyle = colour("ink");
  pen.strokeStyle = colour("soft");
  pen.strokeRect(each.x, top, 0, bottom - top);
  pen.textAlign = "center";
  const lines = axisLines(pen, each.metric, Math.min(2 * AXES_MARGIN.side, room));
  lines.forEach((words, line) => pen.fillText(words, each.x, top - 22 - 14 * (lines.length - 1 - line)));
  pen.fillText(numberText(valueAt(each, top)), each.x, top - 6);
  pen.fillText(numberText(valueAt(each, bottom)), each.x, bottom + 15);
  const brush = state.brushes.get(each.metric);
  if (brush) drawBrush(pen, each, brush.map((value) => heightOf(each, value)));
}

function drawBrush(pen, each, [first, second]) {
  pen.save();
  pen.globalAlpha = 0.35;
  pen.fillStyle = colour("accent");
  pen.fillRect(each.x - 9, Math.min(first, second), 18, Math.abs(second - first));
  pen.restore();
}

// On as many lines as it takes for the names of neighbours not to meet; the last one lies lowest.
function axisLines(pen, metric, room) {
  const lines = [];
  metric.split("_").forEach((word) => {
    const longer = `${lines.at(-1) ?? ""} ${word}`.trim();
    if (lines.length && pen.measureText(longer).width <= room) lines[lines.length - 1] = longer;
    else lines.push(word);
  });
  return lines;
}

darkness.addEventListener("change", () => showParallel(matching()));
