// A live view in a page that is no notebook: a model with these values, and a host that finds its session. Returns what ends it.
async ({ session, widget, view, values, reference, place }) => {
  const module = async (text) =>
    (await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })))).default;
  const model = (all) => ({ get: (name) => all[name], set() {}, save_changes() {}, on() {}, off() {}, send() {} });
  const bytes = Uint8Array.from(atob(values._snapshot), (c) => c.charCodeAt(0));
  const stop = new AbortController();
  const own = model({ ...values, _snapshot: new DataView(bytes.buffer) });
  const exports = (await module(widget)).initialize({ model: own, signal: stop.signal });
  await (await module(view)).render({
    model: model({ view: "Explorer", options: {}, _session: reference }),
    el: document.querySelector(place),
    host: { getWidget: async () => ({ exports }) },
    signal: stop.signal,
  });
  window.endView = () => stop.abort();
}
