import { expect, test } from "vitest";
import { spelled } from "./spelled";

test("what cannot be seen is spelled out, the rest stays", () => {
  expect(spelled("a\x1b[31m \u202e\ud800 数 <b>\n\u200b😀")).toBe("a\\x1b[31m \\u202e\\ud800 数 <b>\n\\u200b😀");
});
