/** The worker's side: messages in, the model's answers out. One model; a session for every picture that the page shows. */

import { type Block, unpackBlock } from "../core/block";
import { message } from "../core/codec";
import { kept } from "../core/collections";
import type { Meta } from "../core/meta";
import type { Params } from "../core/transport";
import { type Files, Session } from "./answers";
import { Model } from "./model";

/** From the page: the model once, then sessions and what their views send. */
export type ToWorker =
  | { readonly type: "model"; readonly block: Block | Uint8Array<ArrayBuffer> }
  | {
      readonly type: "session";
      readonly session: number;
      readonly base: Meta;
      readonly embedding: Float32Array;
    }
  | {
      readonly type: "message";
      readonly session: number;
      readonly content: unknown;
      readonly buffers: readonly ArrayBuffer[];
    };

/** To the page: a new value of a session's trait, a message to its views, or that the model cannot run. */
export type FromWorker =
  | { readonly type: "set"; readonly session: number; readonly name: string; readonly value: unknown }
  | {
      readonly type: "message";
      readonly session: number;
      readonly content: object;
      readonly buffers: readonly ArrayBuffer[];
    }
  | { readonly type: "failed"; readonly text: string };

interface Request {
  readonly type: string;
  readonly client: string;
  readonly id: number;
  readonly kind: string;
  readonly params: Params;
}

/** Milliseconds after which a session's own pass is run if nothing else is. */
const PAUSE = 200;

type Post = (message: FromWorker, transfer: Transferable[]) => void;

/** What to call with every message of the page. */
export function serve(post: Post, files: Files): (message: ToWorker) => Promise<void> {
  let model: Promise<Model> = Promise.reject(new Error("no model has come"));
  model.catch(() => {});
  const sessions = new Map<number, Promise<Session>>();
  const running = new Set<string>();
  const failed = (error: unknown) => post({ type: "failed", text: message(error) }, []);

  const reply = async (session: number, request: Request, buffers: readonly ArrayBuffer[]) => {
    const { client, id, kind, params } = request;
    const key = `${client} ${id}`;
    const send = (content: object, parts: readonly ArrayBuffer[] = []) =>
      post({ type: "message", session, content: { client, id, ...content }, buffers: parts }, [...parts]);
    const refuse = (title: string, text: string) =>
      send({ type: "response", ok: false, error: { title, message: text } });
    const set = (name: string, value: Uint8Array<ArrayBuffer>) =>
      post({ type: "set", session, name, value }, [value.buffer]);
    running.add(key);
    try {
      const steps = (await (sessions.get(session) as Promise<Session>)).answer(kind, params, buffers);
      for (;;) {
        const { done, value } = await steps.next();
        if (done) {
          const { snapshot, intervened, result, part } = value;
          if (snapshot) set("_snapshot", snapshot);
          if (intervened) set("_intervened", intervened);
          return send({ type: "response", ok: true, result }, part ? [part.buffer] : []);
        }
        send({ type: "progress", ...value });
        // Other messages are heard here: that this request is no longer wanted, for one.
        await new Promise((resume) => setTimeout(resume));
        if (!running.has(key)) return refuse("Cancelled", "");
      }
    } catch (error) {
      refuse("Error", message(error));
    } finally {
      running.delete(key);
    }
  };

  return async (sent) => {
    if (sent.type === "model") {
      const { block } = sent;
      model = ("text" in block ? unpackBlock(block) : Promise.resolve(block)).then(Model.parse);
      model.catch(failed);
    } else if (sent.type === "session") {
      const { session, base, embedding } = sent;
      const made = model.then((own) => new Session(own, base, embedding, files));
      // What is asked meanwhile comes first: it may need no more than its own pass.
      await kept(sessions, session, () => made).then((own) => setTimeout(() => own.prepare(), PAUSE), failed);
    } else {
      const request = sent.content as Request;
      if (request.type === "cancel") running.delete(`${request.client} ${request.id}`);
      else await reply(sent.session, request, sent.buffers);
    }
  };
}
