/** The script of guided tours, loaded where an explorer has some. */

import tour from "./styles/tour.css";
import type { Tours } from "./views/Explorer";
import { mount } from "./views/Tour";
import type { Tour } from "./views/tour/tour";

export default {
  STYLES: { name: "tour", text: tour },
  mount: (el, store, abort, tours) => mount(el, store, abort, tours as readonly Tour[]),
} satisfies Tours;
