// Which candidates to recommend: the rule of results/choosing/selection.py, restated for the page.
// A figure is [value, low, high, n]; a goal is {metric, maximized}. Nothing here touches the page.

function meets(figure, requirement) {
  return shortfallOf(figure, requirement) === 0;
}

// By how much the pessimistic end of an interval misses a requirement; Infinity if not measured.
function shortfallOf(figure, { op, threshold }) {
  if (!figure) return Infinity;
  const [, low, high] = figure;
  const met = { ">=": low >= threshold, "<=": high <= threshold, ">": low > threshold, "<": high < threshold };
  return met[op] ? 0 : Math.abs((op.startsWith(">") ? low : high) - threshold);
}

function select(candidates, requirements, goals) {
  const verified = candidates.filter((each) => each.verdict === "verified");
  const missed = (candidate) => requirements.filter((each) => !meets(candidate.values[each.metric], each));
  // The undefended model is what the others are compared with: it is no pick and no nearest miss.
  const able = verified.filter((candidate) => !candidate.undefended);
  const fits = (candidate) => missed(candidate).length === 0;
  const picks = ranked(able.filter(fits), goals);
  return {
    verified,
    picks,
    onlyUndefended: !picks.length && verified.some((candidate) => candidate.undefended && fits(candidate)),
    excluded: requirements.map((requirement) => ({
      requirement,
      count: verified.filter((candidate) => !meets(candidate.values[requirement.metric], requirement)).length,
    })),
    nearest: picks.length ? null : nearestMiss(able, requirements, missed),
  };
}

// Those that no other beats in every goal first, then the next layer; within one by the goals.
function ranked(candidates, goals) {
  const rows = candidates.map((candidate) => ({ candidate, losses: goals.map((goal) => lossOf(candidate, goal)) }));
  let left = rows;
  for (let layer = 0; left.length; layer += 1) {
    const front = left.filter((row) => !left.some((other) => beats(other.losses, row.losses)));
    front.forEach((row) => (row.layer = layer));
    left = left.filter((row) => row.layer === undefined);
  }
  rows.sort((a, b) => a.layer - b.layer || compareLosses(a.losses, b.losses));
  return rows.map(({ candidate }) => candidate);
}

function lossOf(candidate, { metric, maximized }) {
  const figure = candidate.values[metric];
  if (!figure) return Infinity;
  return maximized ? -figure[1] : figure[2];
}

function beats(a, b) {
  return a.every((loss, place) => loss <= b[place]) && a.some((loss, place) => loss < b[place]);
}

function compareLosses(a, b) {
  const place = a.findIndex((loss, at) => loss !== b[at]);
  return place < 0 ? 0 : a[place] < b[place] ? -1 : 1;
}

// The one whose worst shortfall is least; of a threshold above 1 as a share of the threshold.
function nearestMiss(candidates, requirements, missed) {
  const rows = candidates.map((candidate) => {
    const misses = missed(candidate).map((requirement) => ({
      requirement,
      shortfall: shortfallOf(candidate.values[requirement.metric], requirement),
    }));
    const worst = Math.max(...misses.map((miss) => miss.shortfall / Math.max(1, Math.abs(miss.requirement.threshold))));
    return { candidate, misses, worst };
  });
  const able = rows.filter((row) => row.misses.length);
  able.sort((a, b) => (a.worst === b.worst ? 0 : a.worst - b.worst) || a.misses.length - b.misses.length);
  return able[0] ?? null;
}
