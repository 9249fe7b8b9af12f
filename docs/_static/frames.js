// Live pages in frames are as high as they are: each tells its height to the page around it (js/src/core/saved.ts).
addEventListener("message", ({ source, data }) => {
  const height = data?.cswHeight;
  if (!(height > 0)) return;
  for (const frame of document.querySelectorAll("iframe.live")) {
    if (frame.contentWindow === source) frame.style.height = `${Math.min(Math.ceil(height), 6000)}px`;
  }
});
