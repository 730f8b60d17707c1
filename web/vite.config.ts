import { readFileSync } from "node:fs";
import { svelte } from "@sveltejs/vite-plugin-svelte";
import katex from "katex";
import { defineConfig, type Plugin } from "vite";

/** `import clip from "./clip.tex"`: the formula as MathML. The page carries neither KaTeX nor its fonts. */
function formulas(): Plugin {
  return {
    name: "formulas",
    enforce: "pre",
    load(id) {
      if (!id.endsWith(".tex")) return null;
      this.addWatchFile(id);
      const mathml = katex.renderToString(readFileSync(id, "utf8").trim(), {
        displayMode: true,
        output: "mathml",
        strict: "error",
        throwOnError: true,
      });
      return `export default ${JSON.stringify(mathml)};`;
    },
  };
}

// One script and one style sheet under fixed names: the report inlines the same two files.
export default defineConfig({
  plugins: [formulas(), svelte()],
  base: "/",
  build: {
    outDir: "../src/oneloop/lab/static",
    emptyOutDir: true,
    target: "es2022",
    modulePreload: false,
    reportCompressedSize: true,
    rolldownOptions: {
      output: {
        entryFileNames: "assets/app.js",
        assetFileNames: "assets/[name][extname]",
        codeSplitting: false,
      },
    },
    cssCodeSplit: false,
    assetsInlineLimit: 0,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8765" } },
  test: { include: ["src/**/*.test.ts"] },
} as Parameters<typeof defineConfig>[0]);
