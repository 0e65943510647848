// The recommendation follows what is required; without a requirement it is the run's own.

const advice = { box: byId("advice"), own: null, looks: "" };

function buildRecommendation() {
  advice.own = [...advice.box.childNodes];
  advice.looks = advice.box.className;
  const goal = byId("goal");
  metricNames.forEach((metric) => {
    const words = `${maximized(metric) ? "highest" : "lowest"} ${metric}`;
    goal.append(element("option", { value: metric }, words));
  });
  goal.addEventListener("change", () => {
    state.goal = goal.value;
    changed();
  });
}

function showRecommendation() {
  const requirements = [...state.requirements.values()];
  const asked = requirements.length > 0 || state.goal;
  if (!asked || !data.candidates.length) {
    advice.box.className = advice.looks;
    return void advice.box.replaceChildren(...advice.own);
  }
  const found = select(data.candidates, requirements, goalsAsked());
  advice.box.className = `recommendation ${found.picks.length ? "verified" : "nothing"}`;
  const words = found.picks.length ? wordsOfPicks(found, requirements) : wordsOfNothing(found);
  advice.box.replaceChildren(...words, element("pre", {}, commandOf(requirements)));
}

function goalsAsked() {
  const metrics = state.goal ? [state.goal] : objectiveNames;
  return metrics.map((metric) => ({ metric, maximized: maximized(metric) }));
}

function sentence(words) {
  return element("p", {}, ...breakable(words));
}

function wordsOfPicks({ picks, excluded, verified }, requirements) {
  const [first, ...others] = picks;
  const asked = [...requirements.map((each) => each.metric), ...goalsAsked().map((goal) => goal.metric)];
  const names = [...new Set([...objectiveNames, ...asked])];
  const figures = names.map((metric) => `${metric} ${figureText(first.values[metric])}`).join(", ");
  return [
    element("p", { class: "headline" }, "Recommended under these requirements: ", ...breakable(first.label), "."),
    sentence(`Verified: ${first.because}. Audited: ${figures}.`),
    others.length ? sentence(`These fit too, in this order: ${others.map((each) => each.label).join("; ")}.`) : null,
    wordsOfExcluded(excluded, verified),
  ].filter(Boolean);
}

function wordsOfNothing({ nearest, excluded, verified, onlyUndefended }) {
  const nothing = onlyUndefended
    ? "Only the undefended model meets these requirements, and it is the reference that no run recommends."
    : "Nothing that is verified meets these requirements.";
  return [
    element("p", { class: "headline" }, nothing),
    nearest ? sentence(wordsOfNearest(nearest)) : null,
    wordsOfExcluded(excluded, verified),
  ].filter(Boolean);
}

function wordsOfNearest({ candidate, misses }) {
  return `The nearest is ${candidate.label}: ${misses.map(missText).join("; ")}.`;
}

function missText({ requirement, shortfall }) {
  const how = shortfall === Infinity ? "was not measured" : `is missed by ${numberText(shortfall)}`;
  return `${requirementText(requirement)} ${how}`;
}

function wordsOfExcluded(excluded, verified) {
  if (!excluded.length) return null;
  const parts = excluded.map(
    ({ requirement, count }) => `${requirementText(requirement)} excludes ${count} of ${verified.length} verified`,
  );
  return sentence(`${parts.join("; ")}.`);
}

function requirementText({ metric, op, threshold }) {
  return `${metric}${op}${threshold}`;
}

// The same as a command, whose exit code can be a gate: 0 where something fits, 3 where nothing.
function commandOf(requirements) {
  const goal = state.goal ? [maximized(state.goal) ? "--maximize" : "--minimize", state.goal] : [];
  const required = requirements.flatMap((each) => ["--require", `'${requirementText(each)}'`]);
  return ["python -m orchestrator select", shellQuoted(data.run), ...required, ...goal].join(" ");
}

function shellQuoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
}
