// One slider a metric: what a defense must reach, by the pessimistic end of its interval.

const STEPS = 200;

function buildRequirements() {
  const form = byId("requirements");
  objectiveNames.forEach((metric) => form.append(requirementRow(metric, false)));
  const select = byId("add-metric");
  metricNames
    .filter((metric) => !objectiveNames.includes(metric))
    .forEach((metric) => select.append(element("option", { value: metric }, metric)));
  select.addEventListener("change", () => addRequirement(select));
  byId("clear").addEventListener("click", clearRequirements);
}

function addRequirement(select) {
  const metric = select.value;
  select.value = "";
  if (!metric) return;
  select.querySelector(`option[value="${CSS.escape(metric)}"]`).disabled = true;
  const row = requirementRow(metric, true);
  byId("requirements").append(row);
  row.querySelector("input").focus();
}

function requirementRow(metric, removable) {
  const scale = scaleOf(metric);
  const id = `require-${metric}`;
  const slider = element("input", { type: "range", id, "data-metric": metric, ...scale });
  const number = element("input", {
    type: "number",
    step: "any",
    placeholder: "any",
    "aria-label": `${metric}: threshold as a number`,
  });
  const excluded = element("small", { class: "excluded" });
  const row = element(
    "div",
    { class: "requirement", "data-metric": metric },
    element("label", { for: id }, ...breakable(metric), element("small", {}, directionWords(metric))),
    removable ? removeButton(metric) : null,
    slider,
    number,
    excluded,
  );
  slider.addEventListener("input", () => {
    setRequirement(metric, isOff(slider, metric) ? null : Number(slider.value));
  });
  number.addEventListener("input", () => {
    setRequirement(metric, number.value === "" ? null : Number(number.value));
  });
  showRequirement(row);
  return row;
}

function removeButton(metric) {
  const remove = () => {
    state.requirements.delete(metric);
    const option = byId("add-metric").querySelector(`option[value="${CSS.escape(metric)}"]`);
    option.disabled = false;
    requirementOf(metric).remove();
    byId("add-metric").focus();
    changed();
  };
  return element("button", { type: "button", class: "quiet", onclick: remove }, "remove");
}

function requirementOf(metric) {
  return byId("requirements").querySelector(`.requirement[data-metric="${CSS.escape(metric)}"]`);
}

// From the least that every trial meets to the most that any does, in steps of round numbers.
function scaleOf(metric) {
  const ends = figuresOf(metric).map((figure) => (maximized(metric) ? figure[1] : figure[2]));
  const low = ends.reduce((least, end) => Math.min(least, end), Infinity);
  const high = ends.reduce((most, end) => Math.max(most, end), -Infinity);
  const step = 10 ** Math.ceil(Math.log10((high - low || 1) / STEPS));
  const min = Math.floor(low / step) * step;
  const max = Math.ceil(high / step) * step;
  const clean = (number) => Number(number.toPrecision(6));
  return { min: clean(min), max: clean(max), step: clean(step), value: clean(maximized(metric) ? min : max) };
}

function isOff(slider, metric) {
  return Number(slider.value) === Number(maximized(metric) ? slider.min : slider.max);
}

function setRequirement(metric, threshold) {
  if (threshold === null || !Number.isFinite(threshold)) state.requirements.delete(metric);
  else state.requirements.set(metric, { metric, op: maximized(metric) ? ">=" : "<=", threshold });
  showRequirement(requirementOf(metric));
  changed();
}

// Writes the state into a row's slider, number and words, except where the reader is just typing.
function showRequirement(row) {
  const metric = row.dataset.metric;
  const [slider, number] = row.querySelectorAll("input");
  const set = state.requirements.get(metric);
  const value = set ? set.threshold : Number(maximized(metric) ? slider.min : slider.max);
  if (document.activeElement !== slider || Number(slider.value) !== value) slider.value = value;
  if (document.activeElement !== number) number.value = set ? set.threshold : "";
  const words = set ? `${maximized(metric) ? "at least" : "at most"} ${set.threshold}` : "any";
  slider.setAttribute("aria-valuetext", words);
  const out = set ? data.trials.filter((_, place) => !meets(figureOf(place, metric), set)).length : 0;
  row.classList.toggle("set", Boolean(set));
  row.querySelector(".excluded").textContent = set ? `${words}: excludes ${counted(out, "trial")}` : "any value";
}

function directionWords(metric) {
  return maximized(metric) ? "at least; higher is better" : "at most; lower is better";
}

function clearRequirements() {
  state.requirements.clear();
  byId("requirements").querySelectorAll(".requirement").forEach(showRequirement);
  clearBrushes();
  changed();
}

function showCount(matches) {
  const count = matches.filter(Boolean).length;
  const isPick = (trial) => trial.verdict === "verified" && !trial.undefended;
  const verified = data.trials.filter((trial, place) => matches[place] && isPick(trial)).length;
  const what = isFiltered() ? "meet all that is asked" : "are shown";
  const audited = data.candidates.length ? `, ${verified} of them verified by the audit` : ", none of them audited";
  byId("count").textContent = `${count} of ${counted(matches.length, "trial")} ${what}${audited}.`;
  byId("clear").disabled = !isFiltered();
}
