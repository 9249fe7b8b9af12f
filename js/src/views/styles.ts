/** The styles of all views; every rule is scoped to .csw. */

import base from "../styles/base.css";
import charts from "../styles/charts.css";
import explorer from "../styles/explorer.css";
import heatmap from "../styles/heatmap.css";
import memories from "../styles/memories.css";
import slider from "../styles/slider.css";
import whatif from "../styles/whatif.css";

export const STYLES = [base, charts, slider, heatmap, whatif, memories, explorer].join("\n");
