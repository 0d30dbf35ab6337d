// The other pictures of a slider are loaded when it is about to be moved.
for (const event of ["pointerover", "focusin", "touchstart", "input"]) {
  document.addEventListener(
    event,
    ({ target }) => {
      const slider = target.closest?.(".u2-explore");
      for (const picture of slider?.querySelectorAll("img[data-src]") ?? []) {
        picture.src = picture.dataset.src;
        picture.removeAttribute("data-src");
      }
    },
    { capture: true, passive: true },
  );
}

// Paper is white, and cannot be unfolded: a page is printed light, with its solutions.
let theme = "";
let unfolded = [];
addEventListener("beforeprint", () => {
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
  const folds = [...document.querySelectorAll(".bd-article details:not([open])")];
  unfolded = folds.filter((fold) => fold.querySelector("summary")?.textContent.startsWith("Solution"));
  for (const fold of unfolded) fold.open = true;
});
addEventListener("afterprint", () => {
  document.documentElement.dataset.theme = theme;
  for (const fold of unfolded) fold.open = false;
});
