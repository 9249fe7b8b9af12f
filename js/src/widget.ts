/**
 * The session's module.  Its model has no view of its own: view models ask the host for it and get what `initialize`
 * returns.  The store is made when the first view is mounted - `initialize` must be quick - and lives with the session.
 */

import { onAbort } from "./core/frame";
import { link } from "./core/link";
import { hear, type WidgetModel } from "./core/mirror";
import { hideSaved } from "./core/saved";
import { atHand } from "./core/scripts";
import { Snapshot } from "./core/snapshot";
import type { State } from "./core/state";
import { Store } from "./core/store";
import { showProblem } from "./mounting";
import { followReserve } from "./reserve";
import { mountView } from "./runtime";
import { STYLES } from "./views/styles";
import type { Options } from "./views/view";

export interface SessionExports {
  readonly version: string;
  /** The session's store; throws when its snapshot cannot be read. */
  store(): Store;
  /** `find` looks up a session by its reference, which only a view's host can; `own` is that of this one. */
  mount(view: string, el: HTMLElement, options: Options, abort: AbortSignal, find: Find, own: string): void;
}

/** The script `page.js`. */
interface Page {
  mountPage(): void;
}

type Find = (reference: string) => Promise<SessionExports>;

/** A link to another session, as the kernel lists it. */
interface Linked {
  readonly id: number;
  readonly other: string;
  readonly names: readonly (keyof State)[];
  /** Whether the other is the second picture, whose states go into this one's pass. */
  readonly states?: boolean;
}

interface Initialize {
  readonly model: WidgetModel;
  readonly signal: AbortSignal;
}

function initialize({ model, signal }: Initialize): SessionExports {
  let made: Store | null = null;
  const store = () => {
    if (made) return made;
    const snapshot = Snapshot.parse(model.get("_snapshot") as ArrayBufferView);
    const own = new Store(snapshot, model);
    followReserve(model, own);
    onAbort(signal, () => own.dispose());
    made = own;
    return own;
  };
  const links = new Map<number, AbortController>();
  let following = false;
  /** Make the links that the kernel lists and undo those it no longer does; they live as long as the session. */
  const followLinks = (find: Find) => {
    if (following) return;
    following = true;
    const update = () => {
      const listed = (model.get("_links") ?? []) as readonly Linked[];
      for (const [id, controller] of links) {
        if (!listed.some((linked) => linked.id === id)) {
          controller.abort();
          links.delete(id);
        }
      }
      for (const { id, other, names, states } of listed) {
        if (links.has(id)) continue;
        const controller = new AbortController();
        links.set(id, controller);
        find(other).then(
          (session) => {
            if (controller.signal.aborted) return;
            link(store(), session.store(), controller.signal, names);
            if (!states) return;
            store().other.value = session.store();
            onAbort(controller.signal, () => {
              store().other.value = null;
            });
          },
          () => links.delete(id),
        );
      }
    };
    hear(model, "change:_links", update, signal);
    onAbort(signal, () => {
      for (const controller of links.values()) controller.abort();
    });
    update();
  };
  return {
    version: __VERSION__,
    store,
    mount(view, el, options, abort, find, own) {
      try {
        followLinks(find);
        followConnection(el, store(), abort);
        mountView(view, el, store(), abort, { ...options, paced: true });
        hideSaved(own, abort);
      } catch (error) {
        showProblem(el, abort, STYLES, "This snapshot cannot be shown", error);
      }
    },
  };
}

/** The notebook marks views whose kernel has gone with a class on their element. */
function followConnection(el: HTMLElement, store: Store, abort: AbortSignal): void {
  const marked = "jupyter-widgets-disconnected";
  const update = () => store.setKernel(el.closest(`.${marked}`) === null);
  const observer = new MutationObserver(update);
  for (let node: HTMLElement | null = el, i = 0; node && i < 4; node = node.parentElement, i++) {
    observer.observe(node, { attributes: true, attributeFilter: ["class"] });
  }
  onAbort(abort, () => observer.disconnect());
  update();
}

// Inline in an exported page, a module has the page's own address (also where that is a blob's) and mounts what stands
// there; a notebook imports it from an address of its own.
const bare = (url: string) => url.replace(/#.*$/s, "");
if (bare(import.meta.url) === bare(document.baseURI) && document.querySelector(".csw-mount")) {
  atHand<Page>("page")?.mountPage();
}

export default { initialize };
