// What the reader has asked for, and which trials meet it. All views follow from this one state.

const state = {
  requirements: new Map(), // metric -> {metric, op, threshold}
  brushes: new Map(), // metric -> [low, high], drawn on the parallel axes
  pins: [], // places of trials
  goal: "", // the metric that ranks the picks; empty: the knee point
};
const views = [];
let waiting = false;

function onChange(view) {
  views.push(view);
}

// Several changes within one frame of the screen are shown once.
function changed() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    const matches = matching();
    views.forEach((view) => view(matches));
  });
}

function matching() {
  const requirements = [...state.requirements.values()];
  const brushes = [...state.brushes];
  return data.trials.map(
    (_, place) =>
      requirements.every((each) => meets(figureOf(place, each.metric), each)) &&
      brushes.every(([metric, range]) => brushed(figureOf(place, metric), range)),
  );
}

function brushed(figure, [low, high]) {
  return figure !== null && figure[0] >= low && figure[0] <= high;
}

function isFiltered() {
  return state.requirements.size > 0 || state.brushes.size > 0;
}
