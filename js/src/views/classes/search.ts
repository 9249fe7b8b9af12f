/** Search among class names: exact ids, starts of names, of synonyms, of words, then anywhere. Pure. */

import { range } from "../../core/collections";
import { count } from "../../core/format";

export interface ClassIndex {
  readonly names: readonly string[];
  /** Names in lower case without accents; built once, scanned on every key (21,843 names in some milliseconds). */
  readonly folded: readonly string[];
}

export interface Found {
  ids: number[];
  /** How many match in all; `ids` is capped. */
  total: number;
}

const fold = (text: string): string =>
  text
    .normalize("NFD")
    .replace(/[\u0300-\u036f]/g, "")
    .toLowerCase()
    .replaceAll("_", " ");

export function indexClasses(names: readonly string[]): ClassIndex {
  return { names, folded: names.map(fold) };
}

/** Where `word` is found in `name`: 0 start, 1 start of a synonym, 2 start of a word, 3 inside, -1 nowhere. */
function place(name: string, word: string): number {
  let best = -1;
  for (let at = name.indexOf(word); at >= 0; at = name.indexOf(word, at + 1)) {
    if (at === 0) return 0;
    const before = name.charCodeAt(at - 1);
    const letter = (before >= 97 && before <= 122) || (before >= 48 && before <= 57) || before > 127;
    const rank = letter ? 3 : before === 32 && name[at - 2] === "," ? 1 : 2;
    if (rank === 1) return 1;
    if (best < 0 || rank < best) best = rank;
  }
  return best;
}

/** Mean place of all words, -1 when one of them is nowhere. */
function placeAll(name: string, words: readonly string[]): number {
  let sum = 0;
  for (const word of words) {
    const own = place(name, word);
    if (own < 0) return -1;
    sum += own;
  }
  return sum / words.length;
}

/** The `cap` best matches of every word of `query`; the class with that id first when the query is a number. */
export function searchClasses(index: ClassIndex, query: string, cap: number): Found {
  const words = fold(query).split(/\s+/).filter(Boolean);
  const { folded } = index;
  if (words.length === 0) {
    return { ids: range(Math.min(cap, folded.length), (i) => i), total: folded.length };
  }
  const id = /^#?\d+$/.test(words.join("")) ? Number(words.join("").replace("#", "")) : -1;
  const buckets: number[][] = [[], [], [], [], []];
  let total = 0;
  for (let c = 0; c < folded.length; c++) {
    const mean = placeAll(folded[c], words);
    if (mean < 0 && c !== id) continue;
    total++;
    // The class of the given id before all others.
    const bucket = buckets[c === id ? 0 : Math.ceil(mean) + 1];
    if (bucket && bucket.length < cap) bucket.push(c);
  }
  return { ids: buckets.flat().slice(0, cap), total };
}

/** What is said below the options: that there are more of them, or none. */
export function searchNote({ ids, total }: Found, groups: number): string {
  if (groups === 0) return "No class has such a name or id.";
  const more = total - ids.length;
  return more > 0 ? `${count(more)} more: type to narrow down` : "";
}
