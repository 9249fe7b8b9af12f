// What axe-core finds inside `where`, by every rule of WCAG 2.2 A and AA and its own habits; one line for every element.
async (where) => {
  const rules = Object.fromEntries(
    axe.getRules(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]).map(({ ruleId }) => [ruleId, { enabled: true }]),
  );
  const { violations } = await axe.run(where, { rules, runOnly: Object.keys(rules) });
  return violations.flatMap(({ id, nodes }) =>
    nodes.map(({ html, any, all, none }) =>
      `${id}: ${html.slice(0, 200)} (${[...any, ...all, ...none].map(({ message }) => message).join("; ")})`),
  );
}
