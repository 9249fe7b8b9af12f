import { vi } from "vitest";

/** What happy-dom lacks of drawing: pictures are one pixel, and paths go nowhere. Undone by `vi.unstubAllGlobals`. */
export function stubDrawing(): void {
  vi.stubGlobal("createImageBitmap", () => Promise.resolve({ width: 1, height: 1, close() {} }));
  vi.stubGlobal(
    "Path2D",
    class {
      moveTo() {}
      lineTo() {}
    },
  );
}
