import { describe, expect, it } from "vitest";
import { indexClasses, searchClasses } from "../src/views/classes/search";

const names = [
  "tench, Tinca tinca",
  "goldfish",
  "great white shark",
  "tiger shark",
  "hammerhead",
  "Egyptian cat",
  "tiger cat",
  "catamaran",
  "crème brûlée",
  "<img src=x>",
  "traffic_light",
];
const index = indexClasses(names);
const find = (query: string) => searchClasses(index, query, 10).ids.map((c) => names[c]);

describe("class search", () => {
  it("puts starts of names before starts of words before the rest", () => {
    expect(find("cat")).toEqual(["catamaran", "Egyptian cat", "tiger cat"]);
    expect(find("tin")).toEqual(["tench, Tinca tinca"]);
  });

  it("wants every word, in any order", () => {
    expect(find("shark tig")).toEqual(["tiger shark"]);
    expect(find("shark cat")).toEqual([]);
  });

  it("knows ids, accents, underscores and marks", () => {
    expect(find("5")[0]).toBe("Egyptian cat");
    expect(find("#0")).toEqual(["tench, Tinca tinca"]);
    expect(find("creme bru")).toEqual(["crème brûlée"]);
    expect(find("traffic light")).toEqual(["traffic_light"]);
    expect(find("<img")).toEqual(["<img src=x>"]);
  });

  it("puts the class of an id before names with that number", () => {
    const numbered = indexClasses(["3 dogs", "cat", "dog", "bird 3", "3rd dog"]);
    expect(searchClasses(numbered, "3", 10).ids).toEqual([3, 0, 4]);
  });

  it("caps the list and counts all", () => {
    const many = indexClasses(Array.from({ length: 21843 }, (_, i) => `class ${i}`));
    const found = searchClasses(many, "class 1", 50);
    expect(found.ids).toHaveLength(50);
    expect(found.total).toBeGreaterThan(5000);
    expect(searchClasses(many, "", 50)).toEqual({
      ids: Array.from({ length: 50 }, (_, i) => i),
      total: 21843,
    });
  });
});
