// Predictions for one task: each input with the predictions of all runs.

import {announce, choice, labelled, make} from "./dom.js";
import {byCategory, RUNS, runSuffix, TASKS} from "./model.js";
import {counted} from "./numbers.js";
import {lead, section} from "./section.js";
import {onSelect} from "./state.js";

const LONG_INPUT = 420; // characters shown before the rest is hidden

export function predictionsSection() {
  const tasks = [...new Set(RUNS.flatMap((run) => run.predictions.map((entry) => entry.task)))].sort(
    (a, b) => a - b,
  );
  if (!tasks.length) return;
  const list = make("div", {class: "samples"});
  const count = make("p", {class: "count"});
  const show = (task) => {
    const samples = joinedSamples(task);
    count.textContent = counted(samples.length, "sample");
    list.replaceChildren(...samples.map(sampleNode));
  };
  const change = (task) => {
    show(Number(task));
    announce(count.textContent);
  };
  const taskChoice = choice([], change, {id: "prediction-task"});
  for (const [category, members] of byCategory(tasks)) {
    const options = members.map((task) => make("option", {value: String(task)}, TASKS[task].name));
    taskChoice.append(make("optgroup", {label: category}, options));
  }
  section(
    "predictions",
    "Predictions",
    lead("Examples evenly spread over each task's file, with the prediction of each run's best checkpoint."),
    make("div", {class: "tools"}, labelled("task", taskChoice)),
    count,
    list,
  );
  show(Number(taskChoice.value));
  onSelect((chosen) => {
    if (chosen?.kind !== "task" || !tasks.includes(chosen.task)) return;
    taskChoice.value = String(chosen.task);
    show(chosen.task);
  });
}

// [{part, input, answers, more, given: [{run, prediction, exact}]}, ...]: predictions of several runs for
// one input are joined. Inputs of the same run stay apart, even if they were cut to the same text.
export function joinedSamples(task) {
  const found = new Map();
  for (const run of RUNS) {
    for (const {task: own, part, samples} of run.predictions) {
      if (own !== task) continue;
      const seen = new Map();
      for (const {input, answers, prediction, exact, more_answers: more} of samples) {
        const text = JSON.stringify([part, input, answers, more]);
        seen.set(text, (seen.get(text) ?? 0) + 1);
        const key = `${seen.get(text)} ${text}`;
        if (!found.has(key)) found.set(key, {part, input, answers, more, given: []});
        found.get(key).given.push({run, prediction, exact});
      }
    }
  }
  return [...found.values()];
}

export function sampleNode({part, input, answers, more, given}) {
  const others = more ? make("span", {class: "count"}, `… and ${more} more`) : null;
  const entries = [
    [`${part} input`, foldedText(input)],
    [answers.length + (more ?? 0) === 1 ? "accepted answer" : "accepted answers", [quoted(answers), others]],
  ];
  for (const {run, prediction, exact} of given) {
    const verdict = make(
      "span",
      {class: exact ? "verdict yes" : "verdict"},
      `exact match: ${exact ? "yes" : "no"}`,
    );
    entries.push([`prediction${runSuffix(run)}`, [quoted([prediction]), verdict]]);
  }
  const pairs = entries.map(([term, value]) => [make("dt", {}, term), make("dd", {}, value)]);
  return make("dl", {class: "sample"}, pairs);
}

// An empty text would be invisible.
function quoted(texts) {
  return make(
    "ul",
    {class: "texts"},
    texts.map((text) => {
      return text.trim() ? make("li", {}, text) : make("li", {class: "empty"}, "(empty)");
    }),
  );
}

function foldedText(text) {
  if (text.length <= LONG_INPUT) return make("span", {class: "text"}, text);
  const start = make("span", {class: "text"}, `${text.slice(0, LONG_INPUT)}…`);
  const all = make("span", {class: "text", hidden: true}, text);
  const button = make("button", {type: "button", class: "quiet", "aria-expanded": "false"}, "Whole input");
  button.addEventListener("click", () => {
    all.hidden = !all.hidden;
    start.hidden = !all.hidden;
    button.setAttribute("aria-expanded", String(!all.hidden));
    button.textContent = all.hidden ? "Whole input" : "Less";
  });
  return [start, all, " ", button];
}
