const find = (name) => element.querySelector(name);
let at = null; // the frame that the user has chosen; null follows the newest one

const show = () => {
  const { frames = [], labels = [], steps = 0, note = "", error = "" } = props.value || {};
  const last = frames.length - 1;
  const now = at === null ? last : Math.min(at, last);
  find(".td-view").innerHTML = frames[now] || "";
  find(".td-error").textContent = error;
  find(".td-note").textContent = note;
  find(".td-scrub").hidden = last < 1;
  const slider = find("input");
  slider.max = Math.max(steps - 1, last);
  slider.value = now;
  find("output").textContent = labels[now] || "";
};

element.addEventListener("input", () => {
  const last = props.value.frames.length - 1;
  const chosen = Number(find("input").value);
  at = chosen >= last ? null : chosen;
  show();
});

let before = 0;
watch("value", () => {
  const { frames = [], at: start } = props.value || {};
  if (frames.length) { // an error has none, and leaves the slider where it is
    if (frames.length < before || frames.length === 1) at = null; // another request
    before = frames.length;
  }
  if (start !== undefined) at = start;
  show();
});

if (props.value && props.value.at !== undefined) at = props.value.at;
show();
