import { setMaxListeners } from "node:events";

// A view hangs all its listeners on one signal; Node takes more than ten for a leak.
setMaxListeners(0);
