/** All views by name. */

import { mount as ClassPicker } from "./ClassPicker";
import { mount as ContributionBars } from "./ContributionBars";
import { mount as Explorer } from "./Explorer";
import { mount as HeadGrid } from "./HeadGrid";
import { mount as LayerSlider } from "./LayerSlider";
import { later } from "./later";
import { mount as PatchHeatmap } from "./PatchHeatmap";
import { mount as TokenTrajectories } from "./TokenTrajectories";
import { mount as TopClasses } from "./TopClasses";
import type { Mount } from "./view";

export const VIEWS: Readonly<Record<string, Mount>> = {
  ClassPicker,
  ContributionBars,
  Explorer,
  HeadGrid,
  HeatGrid: later("HeatGrid", "the sweeps"),
  LayerSlider,
  PatchHeatmap,
  TokenTrajectories,
  TopClasses,
  WhatIf: later("WhatIf", "the what-if panel"),
};
