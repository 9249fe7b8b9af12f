/** A view's module: everything is in the session's, of which there is one for many views. */

import type { SessionExports } from "./widget";

interface Host {
  getWidget?(reference: string): Promise<{ exports: SessionExports }>;
}

interface Render {
  readonly model: { get(name: string): unknown };
  readonly el: HTMLElement;
  readonly host: Host;
  readonly signal: AbortSignal;
}

async function render({ model, el, host, signal }: Render): Promise<void> {
  const find = async (reference: string) => {
    if (!host?.getWidget) throw new Error("this notebook needs anywidget 0.11 or later");
    return (await host.getWidget(reference)).exports;
  };
  try {
    const reference = String(model.get("_session"));
    const session = await find(reference);
    if (signal.aborted) return;
    session.mount(
      String(model.get("view")),
      el,
      model.get("options") as Record<string, unknown>,
      signal,
      find,
      reference,
    );
  } catch (error) {
    el.textContent = `This view cannot be shown: ${error instanceof Error ? error.message : error}. Run its cell again.`;
  }
}

export default { render };
