// Controls that are less than `least` pixels high or wide to a finger or a pointer; those inside a line of text may be lower.
(least) =>
  [...document.querySelectorAll(".csw :is(button, select, input, [tabindex], [role=gridcell])")]
    .filter((e) => e.checkVisibility({ visibilityProperty: true }) && !e.closest("[hidden], .csw-sr"))
    .filter((e) => !e.matches("input[type=file], .csw-segments input"))
    .map((e) => [e, (e.matches("input[type=checkbox]") ? e.closest("label") : e).getBoundingClientRect()])
    .filter(([, { width, height }]) => Math.min(width, height) < least - 0.1)
    .map(([e, { width, height }]) =>
      `${e.tagName} ${e.className?.baseVal ?? e.className} "${(e.getAttribute("aria-label") ?? e.textContent).slice(0, 20)}" ${Math.round(width)}x${Math.round(height)} in ${e.parentElement.className?.baseVal ?? e.parentElement.className}`);
