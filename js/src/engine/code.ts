/** Interventions as the Python code that applies them: the twin of `interventions.base.to_code`. */

import type { Spec } from "../core/spec";

export function toCode(specs: readonly Spec[]): string {
  const names = [...new Set([...specs.map(({ type }) => type), "trace_with"])].sort();
  const listed = specs.map((spec) => `    ${expression(spec)},\n`).join("");
  return (
    `from classspace_widgets.interventions import ${names.join(", ")}\n\n` +
    `interventions = [\n${listed}]\ntrace = trace_with(space, image, interventions)\n`
  );
}

function expression({ type, ...fields }: Spec): string {
  const given = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined);
  return `${type}(${given.map(([name, value]) => `${name}=${literal(value)}`).join(", ")})`;
}

function literal(value: unknown): string {
  if (Array.isArray(value)) {
    const first = value[0];
    const run = value.length > 4 && value.every((v, i) => Number.isInteger(v) && v === first + i);
    return run ? `range(${first}, ${first + value.length})` : `[${value.map(literal).join(", ")}]`;
  }
  if (typeof value === "boolean") return value ? "True" : "False";
  return typeof value === "string" ? `'${value.replace(/[\\']/g, "\\$&")}'` : String(value);
}
