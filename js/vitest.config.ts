import { defineConfig } from "vitest/config";

export default defineConfig({
  define: { __VERSION__: '"test"' },
  test: { setupFiles: ["tests/setup.ts"], include: ["tests/**/*.test.ts"] },
});
