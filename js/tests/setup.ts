import { setMaxListeners } from "node:events";
import actions from "../src/actions";
import tour from "../src/tour";

// A view hangs all its listeners on one signal; Node takes more than ten for a leak.
setMaxListeners(0);

// Scripts that are loaded later share all modules with the tests.
globalThis.classspaceScripts = { "actions test": () => actions, "tour test": () => tour };
