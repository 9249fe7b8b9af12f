// Texts of the views whose contrast with what lies behind them is less than `least` (WCAG 2, relative luminance).
(least) => {
  const rgb = (c) => { const m = c.match(/[\d.]+/g).map(Number); return c.startsWith('color(srgb') ? [m[0]*255, m[1]*255, m[2]*255, m[3] ?? 1] : [m[0], m[1], m[2], m[3] ?? 1]; };
  const over = (a, b) => [0, 1, 2].map((i) => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = (c) => { const f = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; return 0.2126 * f(c[0]) + 0.7152 * f(c[1]) + 0.0722 * f(c[2]); };
  const ground = (e) => { const layers = []; for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 0) layers.push(c); if (c[3] === 1) break; } let out = document.documentElement.dataset.theme === 'dark' || matchMedia('(prefers-color-scheme: dark)').matches ? [18,18,18,1] : [255, 255, 255, 1]; for (const l of layers.reverse()) out = over(l, out); return out; };
  const bad = [];
  for (const e of document.querySelectorAll('.csw-view *, .csw-explorer *')) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || !e.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
    if (e.disabled || e.closest('[disabled], option, .csw-tip, .csw-curtain')) continue;
    const style = getComputedStyle(e);
    const back = ground(e);
    const own = over(rgb(e instanceof SVGElement ? style.fill : style.color), back);
    const [a, b] = [light(own), light(back)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < least) bad.push(`${e.className?.baseVal ?? e.className} "${e.textContent.trim().slice(0, 20)}" ${ratio.toFixed(2)}`);
  }
  return [...new Set(bad)];
}
