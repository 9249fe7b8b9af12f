/** The script of what asks the model for something new: interventions, sweeps, and another part of the picture. */

import crop from "./styles/crop.css";
import whatif from "./styles/whatif.css";
import { cropEditor } from "./views/explorer/cropEditor";
import { mount as HeatGrid } from "./views/HeatGrid";
import type { Actions } from "./views/later";
import { mount as WhatIf } from "./views/WhatIf";

const STYLES = { name: "actions", text: `${whatif}\n${crop}` };

export default { STYLES, WhatIf, HeatGrid, cropEditor } satisfies Actions;
