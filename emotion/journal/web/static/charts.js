// Draw the page's charts with Plotly, in the colors of the style sheet; again when these change.
"use strict";

const colors = () => {
  const style = getComputedStyle(document.documentElement);
  return (name) => style.getPropertyValue(`--${name}`).trim() || name;
};

const painted = (value, color) => {
  if (Array.isArray(value)) return value.map((each) => painted(each, color));
  if (value && typeof value === "object")
    return Object.fromEntries(Object.entries(value).map(([key, each]) => [
      key, /color$/i.test(key) ? (Array.isArray(each) ? each.map(color) : color(each)) : painted(each, color),
    ]));
  return value;
};

const draw = async (chart) => {
  if (chart.dataset.drawn !== chart.dataset.figure) {
    chart.figure = await (await fetch(chart.dataset.figure)).json();
    chart.dataset.drawn = chart.dataset.figure;
  }
  const color = colors(), { data, layout } = painted(chart.figure, color);
  const axis = { gridcolor: color("line"), zerolinecolor: color("line"), fixedrange: true, automargin: true };
  await Plotly.react(chart, data, {
    ...layout,
    margin: { l: 44, r: 8, t: 8, b: 36 },
    paper_bgcolor: "transparent", plot_bgcolor: "transparent", showlegend: false,
    font: { color: color("soft"), family: getComputedStyle(document.body).fontFamily, size: 13 },
    hoverlabel: { bgcolor: color("card"), bordercolor: color("line"), font: { color: color("ink"), size: 14 }, align: "left" },
    hovermode: "closest",
    xaxis: { ...axis, showgrid: false, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis },
  }, { displayModeBar: false, responsive: true });
  chart.removeAllListeners?.("plotly_click");
  chart.on("plotly_click", ({ points }) => { if (typeof points[0].customdata === "string") location.assign(points[0].customdata); });
};

const drawAll = () => document.querySelectorAll(".chart").forEach(draw);
drawAll();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
for (const button of document.querySelectorAll("[data-chart]"))
  button.addEventListener("click", () => {
    const chart = document.getElementById(button.dataset.chart);
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
    chart.dataset.figure = button.dataset.figure;
    draw(chart);
  });
