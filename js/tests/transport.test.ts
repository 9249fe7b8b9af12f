import { describe, expect, it } from "vitest";
import { KernelError, NoKernel, Superseded, Transport } from "../src/core/transport";

function wire() {
  const sent: { id: number; type: string; kind?: string; params?: unknown }[] = [];
  const transport = new Transport((content) => sent.push(content as (typeof sent)[number]));
  const respond = (i: number, body: object) =>
    transport.receive({ type: "response", id: sent[i].id, ...body }, []);
  return { sent, transport, respond };
}

describe("requests", () => {
  it("keeps one of a kind in flight and only the latest waiting", async () => {
    const { sent, transport, respond } = wire();
    const all = [1, 2, 3, 4].map((n) => transport.request("classes", { n }));
    expect(sent).toHaveLength(1);
    respond(0, { ok: true, result: { n: 1 } });
    await expect(all[0]).resolves.toMatchObject({ result: { n: 1 } });
    await expect(all[1]).rejects.toBeInstanceOf(Superseded);
    await expect(all[2]).rejects.toBeInstanceOf(Superseded);
    expect(sent.map((m) => m.params)).toEqual([{ n: 1 }, { n: 4 }]);
    respond(1, { ok: true, result: { n: 4 } });
    await expect(all[3]).resolves.toMatchObject({ result: { n: 4 } });
  });

  it("lets kinds run side by side", () => {
    const { sent, transport } = wire();
    void transport.request("classes", {});
    void transport.request("attention", {});
    expect(sent.map((m) => m.kind)).toEqual(["classes", "attention"]);
  });

  it("goes on with the waiting one after an error", async () => {
    const { sent, transport, respond } = wire();
    const first = transport.request("image", { n: 1 });
    const second = transport.request("image", { n: 2 });
    respond(0, { ok: false, error: { title: "ValueError", message: "no picture" } });
    const error = await first.catch((e: KernelError) => e);
    expect(error).toBeInstanceOf(KernelError);
    expect(error).toMatchObject({ title: "ValueError", message: "no picture" });
    respond(1, { ok: true });
    await expect(second).resolves.toEqual({ result: {}, buffers: [] });
    expect(sent).toHaveLength(2);
  });

  it("cancels", async () => {
    const { sent, transport, respond } = wire();
    const request = transport.request("sweep", {});
    transport.cancel("sweep");
    expect(sent[1]).toEqual({ type: "cancel", client: transport.client, id: sent[0].id });
    respond(0, { ok: false, error: { title: "Cancelled", message: "" } });
    await expect(request).rejects.toBeInstanceOf(Superseded);
  });

  it("takes no answer that another page on the same session asked for", async () => {
    const [one, other] = [wire(), wire()];
    const request = one.transport.request("classes", {});
    expect(one.sent[0]).toMatchObject({ client: one.transport.client });
    expect(one.transport.client).not.toBe(other.transport.client);
    const { id } = one.sent[0];
    const answer = (client: object, result: object) =>
      one.transport.receive({ type: "response", ...client, id, ok: true, result }, []);
    answer({ client: other.transport.client }, { n: 1 });
    answer({ client: one.transport.client }, { n: 2 });
    await expect(request).resolves.toMatchObject({ result: { n: 2 } });
  });

  it("takes answers of a kernel that names no page", async () => {
    const { transport, respond } = wire();
    const request = transport.request("classes", {});
    respond(0, { ok: true, result: { n: 1 } });
    await expect(request).resolves.toMatchObject({ result: { n: 1 } });
  });

  it("ignores messages that are not its own", () => {
    const { transport } = wire();
    for (const content of [null, 7, "x", {}, { type: "response", id: 99, ok: true }])
      transport.receive(content, []);
  });

  it("ends all requests when the kernel goes", async () => {
    const { transport } = wire();
    const requests = [1, 2].map((n) => transport.request("image", { n }));
    transport.connect(null);
    for (const request of requests) await expect(request).rejects.toBeInstanceOf(NoKernel);
    await expect(transport.request("image", {})).rejects.toBeInstanceOf(NoKernel);
  });

  it("turns a channel that throws into a refusal", async () => {
    const transport = new Transport(() => {
      throw new Error("comm is closed");
    });
    await expect(transport.request("image", {})).rejects.toThrow("comm is closed");
    await expect(transport.request("image", {})).rejects.toThrow("comm is closed");
  });
});
