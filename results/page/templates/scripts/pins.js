// Pinned trials side by side: configuration, verdict, figures of the search and of the audit.

const MOST_PINS = 4;

function togglePin(place) {
  const at = state.pins.indexOf(place);
  if (at >= 0) state.pins.splice(at, 1);
  else state.pins.push(place);
  if (state.pins.length > MOST_PINS) state.pins.shift();
  showPins();
  markPinnedRows();
  showFronts(matching());
  showParallel(matching());
}

function showPins() {
  byId("pins").replaceChildren(...state.pins.map(pinCard));
  byId("pins-empty").hidden = state.pins.length > 0;
}

function pinCard(place) {
  const trial = data.trials[place];
  const unpin = {
    type: "button",
    class: "quiet",
    "aria-label": `unpin ${trial.label}`,
    onclick: () => togglePin(place),
  };
  return element(
    "article",
    { class: "card", "data-trial": trial.id },
    element("header", {}, element("h4", {}, ...breakable(trial.label)), element("button", unpin, "unpin")),
    element("p", {}, verdictBadge(trial), ` ${trial.struck || trial.because || "not audited"}`),
    figuresTable(place),
    element("p", { class: "soft" }, "trial ", element("code", {}, trial.id), `, seed ${trial.seed}`),
  );
}

function figuresTable(place) {
  const audited = candidateOf.get(data.trials[place].id);
  const names = metricNames.filter((metric) => figureOf(place, metric)).slice(0, 14);
  const head = ["metric", "search", ...(audited ? ["audit"] : [])];
  return element(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": `Figures of ${data.trials[place].label}` },
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...head.map((words) => element("th", { scope: "col" }, words)))),
      element("tbody", {}, ...names.map((metric) => figuresRow(place, metric, audited))),
    ),
  );
}

function figuresRow(place, metric, audited) {
  const cells = [figureCell(data.values[metric]?.[place])];
  if (audited) cells.push(figureCell(audited.values[metric] ?? null));
  return element("tr", {}, element("th", { scope: "row" }, ...breakable(metric)), ...cells);
}
