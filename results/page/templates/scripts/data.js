// What the run measured. A figure is [value, low, high, n], or null where it was not measured.

const data = JSON.parse(byId("data").textContent);

const objectiveNames = data.objectives.map((objective) => objective.metric);
const metricNames = Object.keys(data.maximized);
const placeOf = new Map(data.trials.map((trial, place) => [trial.id, place]));
const candidateOf = new Map(data.candidates.map((candidate) => [candidate.id, candidate]));

// The search's figure; of what the audit alone measures, the audit's.
function figureOf(place, metric) {
  const column = data.values[metric];
  if (column) return column[place];
  return candidateOf.get(data.trials[place].id)?.values[metric] ?? null;
}

// All figures of a metric, of the search and of the audit.
function figuresOf(metric) {
  const audited = data.candidates.map((candidate) => candidate.values[metric]);
  return [...(data.values[metric] ?? []), ...audited].filter(Boolean);
}

function maximized(metric) {
  return data.maximized[metric];
}

// What a trial is, in the order in which the marks lie over each other.
const KINDS = ["trial", "struck off", "audited, not verified", "verified", "undefended"];

// Whether its robust accuracy is not to be believed, by the search or by the audit.
function isStruck(trial) {
  return Boolean(trial.struck) || trial.verdict === "masking suspected";
}

function kindOf(trial) {
  if (trial.undefended) return "undefended";
  if (isStruck(trial)) return "struck off";
  if (trial.verdict === "verified") return "verified";
  return trial.because ? "audited, not verified" : "trial";
}

function verdictOf(trial) {
  return trial.struck && trial.verdict === "unverified" ? "struck off" : trial.verdict;
}
