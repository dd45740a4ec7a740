// One mark an example on a canvas, so that thousands are drawn at once; a click picks the nearest within reach.
const SIZE = 320, EDGE = 28, REACH = 14;
const COLOURS = ["#c2410c", "#1f5fa8", "#8b93a0", "#8b93a0"]; // regressed, fixed, both wrong, both right

function render({ model, el }) {
  const canvas = document.createElement("canvas");
  const across = document.createElement("div");
  const sharp = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: SIZE * sharp, height: SIZE * sharp, tabIndex: -1 });
  canvas.style.cssText = `width:${SIZE}px;height:${SIZE}px;cursor:pointer`;
  canvas.setAttribute("role", "img");
  canvas.className = "ek-points";
  el.append(canvas, across);

  const spots = () => {
    const points = model.get("points");
    const most = Math.max(1e-9, ...points.map(([x, y]) => Math.max(x, y)));
    const least = Math.min(0, ...points.map(([x, y]) => Math.min(x, y)));
    const place = (value) => ((value - least) / (most - least)) * (SIZE - 2 * EDGE);
    return points.map(([x, y, kind, at]) => [EDGE + place(x), SIZE - EDGE - place(y), kind, at]);
  };
  const draw = () => {
    const [x, y] = model.get("axes"), pen = canvas.getContext("2d"), now = model.get("at");
    across.textContent = `Across: ${x}. Up: ${y}. Diamond: regressed. Filled: fixed. A click goes to the example.`;
    canvas.setAttribute("aria-label", `${model.get("points").length} examples as marks; search or sort to pick one by keyboard`);
    pen.setTransform(sharp, 0, 0, sharp, 0, 0);
    pen.clearRect(0, 0, SIZE, SIZE);
    pen.strokeStyle = "#8b93a0";
    pen.strokeRect(EDGE, EDGE, SIZE - 2 * EDGE, SIZE - 2 * EDGE);
    pen.beginPath(), pen.moveTo(EDGE, SIZE - EDGE), pen.lineTo(SIZE - EDGE, EDGE), pen.stroke();
    for (const [left, top, kind, at] of spots()) {
      pen.strokeStyle = pen.fillStyle = COLOURS[kind];
      pen.beginPath();
      if (kind === 0) pen.moveTo(left, top - 5), pen.lineTo(left + 5, top), pen.lineTo(left, top + 5), pen.lineTo(left - 5, top), pen.closePath();
      else pen.arc(left, top, 3.5, 0, 7);
      if (kind === 0 || kind === 1) pen.fill();
      pen.stroke();
      if (at === now) pen.beginPath(), pen.arc(left, top, 10, 0, 7), (pen.strokeStyle = getComputedStyle(el).color), pen.stroke();
    }
  };
  canvas.addEventListener("click", (event) => {
    const box = canvas.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top;
    const near = spots().map(([left, top, , at]) => [Math.hypot(left - x, top - y), at]).sort(([a], [b]) => a - b);
    if (!near.length || near[0][0] > REACH) return;
    // marks on one spot are gone through click by click
    const same = near.filter(([away]) => away - near[0][0] < 0.5).map(([, at]) => at).sort((a, b) => a - b);
    model.set("picked", same.find((at) => at > model.get("at")) ?? same[0]);
    model.save_changes();
  });
  model.on("change:points change:at change:axes", draw);
  draw();
}
export default { render };
