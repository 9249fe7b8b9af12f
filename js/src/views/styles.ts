/** The styles of the views of a session; every rule is scoped to .csw. */

import base from "../styles/base.css";
import charts from "../styles/charts.css";
import explorer from "../styles/explorer.css";
import heatmap from "../styles/heatmap.css";
import slider from "../styles/slider.css";

export const STYLES = {
  name: "views",
  text: [base, charts, slider, heatmap, explorer].join("\n"),
};
