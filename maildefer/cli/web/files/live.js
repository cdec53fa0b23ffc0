"use strict";
// Keeps the overview up to date, and copies commands. What it is sent is HTML that the server has escaped.
const state = document.getElementById("state");

function renew(old, fresh) {
  const chosen = getSelection();
  if (old.innerHTML === fresh.innerHTML && old.className === fresh.className) return;
  if (!chosen.isCollapsed && old.contains(chosen.anchorNode)) return; // somebody copies from it
  const active = old.contains(document.activeElement) ? document.activeElement : null;
  const places = [...old.querySelectorAll("[id]")].map((one) => [one.id, one.scrollLeft]);
  old.replaceWith(fresh);
  for (const [id, left] of places) {
    const one = document.getElementById(id);
    if (one) one.scrollLeft = left;
  }
  if (!active) return;
  const href = active.getAttribute("href");
  const again = active.id ? document.getElementById(active.id)
    : [...fresh.querySelectorAll("a")].find((one) => one.getAttribute("href") === href);
  if (again) again.focus({ preventScroll: true });
}

if (document.getElementById("live")) {
  const source = new EventSource("news");
  source.onmessage = (event) => {
    const page = new DOMParser().parseFromString(event.data, "text/html");
    for (const fresh of page.querySelectorAll("section[id]")) {
      renew(document.getElementById(fresh.id), document.adoptNode(fresh));
    }
    state.textContent = "live";
  };
  source.onerror = () => { state.textContent = "no connection: what is shown is old"; };
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const code = button.parentElement.querySelector("code");
  try {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(code); // for the reader to copy
  }
});
