/** Interventions that were kept by name, as the kernel lists them. */

import { isRecord } from "./codec";

/** One intervention, and what it is called. */
export interface PinnedStep {
  readonly spec: Readonly<Record<string, unknown>>;
  readonly label: string;
}

/** A name, and the interventions that it stands for. */
export interface Pin {
  readonly label: string;
  readonly steps: readonly PinnedStep[];
}

export function isPin(value: unknown): value is Pin {
  if (!isRecord(value) || typeof value.label !== "string" || !Array.isArray(value.steps)) return false;
  return value.steps.every((step) => isRecord(step) && isRecord(step.spec) && typeof step.label === "string");
}
