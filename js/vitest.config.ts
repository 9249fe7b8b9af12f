import { defineConfig } from "vitest/config";

export default defineConfig({
  define: { __VERSION__: '"test"', __SHARED__: "(() => null)" },
  test: { setupFiles: ["tests/setup.ts"], include: ["tests/**/*.test.ts"] },
});
