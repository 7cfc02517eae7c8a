// Draws the charts, and passes the task and the layer of a clicked mark on to all of them.
const views = [];

function choose({task, layer}) {
  for (const view of views) {
    if (task !== undefined) view.signal("chosen_task", task);
    if (layer !== undefined) view.signal("chosen_layer", layer);
    view.runAsync();
  }
}

const data = JSON.parse(document.getElementById("report-data").textContent);
const options = {renderer: "svg", actions: false, defaultStyle: false};
const drawn = Object.entries(data.charts).map(async ([name, chart]) => {
  chart.datasets = {tasks: data.tasks};
  const {view} = await vegaEmbed(`#${name}-chart`, chart, options);
  view.addEventListener("click", (event, item) => choose(item?.datum ?? {}));
  views.push(view);
});
Promise.all(drawn).then(() => performance.mark("drawn"));
