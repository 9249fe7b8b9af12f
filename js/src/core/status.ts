/** What is going on, in words. */

export interface Status {
  readonly kind: "idle" | "busy" | "error";
  readonly text: string;
  readonly progress: number | null;
}

export const IDLE: Status = { kind: "idle", text: "", progress: null };

export const failure = (text: string): Status => ({ kind: "error", text, progress: null });
