// While the run goes on, the page reloads itself, until the reader has begun to use it.

function keepUpToDate() {
  const banner = byId("running");
  if (!banner) return;
  const timer = setInterval(() => location.reload(), 1000 * Number(banner.dataset.every));
  const stop = () => {
    clearInterval(timer);
    byId("reload").hidden = false;
    byId("reloads").hidden = true;
  };
  ["pointerdown", "keydown", "wheel", "touchstart"].forEach((kind) => addEventListener(kind, stop, { once: true }));
  byId("reload").addEventListener("click", () => location.reload());
}
