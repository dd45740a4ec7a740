// JupyterLab's one-letter shortcuts ("x" cuts a cell) must not fire from a button or a list in here,
// and a screen reader hears where one is and that a note was saved. ipywidgets alone can do neither.
function render({ el }) {
  let tries = 600; // frames until the box stands in the page
  const claim = () => {
    const box = el.closest(".ek-explorer");
    if (!box) return tries-- > 0 && requestAnimationFrame(claim);
    // on what has the focus, not on the box: JupyterLab looks at the focused element first
    box.addEventListener("focusin", (event) => (event.target.dataset.lmSuppressShortcuts = "true"));
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", "Examples, one by one");
    for (const line of box.querySelectorAll(".ek-place, .ek-saved")) line.setAttribute("role", "status");
  };
  claim();
}
export default { render };
