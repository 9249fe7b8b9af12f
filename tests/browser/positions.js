// Where every control of the first explorer stands, in it, by name.
() => {
  const explorer = document.querySelector(".csw-explorer");
  const from = explorer.getBoundingClientRect();
  return Object.fromEntries(
    [...explorer.querySelectorAll('button, input, select, [tabindex="0"]')]
      .filter((e) => e.checkVisibility({ visibilityProperty: true }))
      // Not the lists of what was found, whose entries are others.
      .filter((e) => !e.closest(".csw-popup, .csw-status, .csw-outcome, .csw-steps, .csw-map-classes, .csw-list"))
      .map((e) => {
        const { x, y } = e.getBoundingClientRect();
        const { key, token } = e.dataset;
        const place = [...e.parentElement.children].indexOf(e);
        const name = e.getAttribute("aria-label") || e.value || key || token || `${e.className} ${place}`;
        return [`${e.closest("section").className} ${e.tagName} ${name}`, [Math.round(x - from.x), Math.round(y - from.y)]];
      }),
  );
}
