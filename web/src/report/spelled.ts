/** Text with what cannot be seen (control characters, changes of direction, lone surrogates) spelled out. */

const UNSEEN = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}]/gu;

export function spelled(text: string): string {
  return text.replace(UNSEEN, (character) => {
    if (character === "\n") return character;
    const code = character.codePointAt(0)!;
    const [mark, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
    return `\\${mark}${code.toString(16).padStart(digits as number, "0")}`;
  });
}
